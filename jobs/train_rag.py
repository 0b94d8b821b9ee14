"""An index and examples to a run, as a job.

    ray job submit --working-dir . -- python jobs/train_rag.py --data /shared/rag --examples train.jsonl

Reads DATA/index, writes DATA/run; submit it again after a failure and it goes on at the last checkpoint.
"""

import argparse
from pathlib import Path

import ragray

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder on storage that all nodes share")
parser.add_argument(
    "--examples",
    required=True,
    help='records {"id", "question", "answers"}: jsonl, CSV, TSV, Parquet, SQuAD JSON, datasets',
)
parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
parser.add_argument("overrides", nargs="*", metavar="section.key=value")

if __name__ == "__main__":
    args = parser.parse_args()
    config = ragray.load_config(args.config, args.overrides, command="train")
    print(ragray.train_rag(args.data / "index", args.examples, args.data / "run", config))
