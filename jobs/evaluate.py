"""A run to a report, as a job.

    ray job submit --working-dir . -- python jobs/evaluate.py --data /shared/rag --examples test.jsonl

Reads DATA/index and DATA/run, writes DATA/report. --base measures the model before training (DATA/report-base), --closed-book
an answer without passages (DATA/report-closed-book).
"""

import argparse
from pathlib import Path

import ragray

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder on storage that all nodes share")
parser.add_argument(
    "--examples",
    required=True,
    help='records {"id", "question", "answers", "gold_ids"}: jsonl, CSV, TSV, Parquet, SQuAD JSON, datasets',
)
parser.add_argument("--base", action="store_true", help="use the configured model instead of DATA/run")
parser.add_argument("--closed-book", action="store_true", help="answer without passages")
parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="local: processes of this node")
parser.add_argument("overrides", nargs="*", metavar="section.key=value")

if __name__ == "__main__":
    args = parser.parse_args()
    config = ragray.load_config(args.config, args.overrides, command="evaluate")
    run = None if args.base or args.closed_book else args.data / "run"
    index = None if args.closed_book else args.data / "index"
    name = "report-closed-book" if args.closed_book else "report-base" if args.base else "report"
    report = ragray.evaluate_rag(
        args.examples,
        args.data / name,
        config,
        index=index,
        run=run,
        closed_book=args.closed_book,
        executor=args.executor,
    )
    print(report)
