"""New sources into an index that serves, as a job: ingest, then sync.

    ray job submit --working-dir . -- python jobs/sync_index.py --source /data/docs --data /shared/rag

Reads the sources anew into DATA/corpus and makes DATA/index hold exactly that: only what is new or changed is embedded. Submit
it again after a failure and it goes on where it stopped.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import ragray

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--source", action="append", required=True, help="file, folder, glob or URI; may be repeated")
parser.add_argument("--data", type=Path, required=True, help="folder on storage that all nodes share")
parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="local: processes of this node")
parser.add_argument("overrides", nargs="*", metavar="section.key=value")

if __name__ == "__main__":
    args = parser.parse_args()
    config = ragray.load_config(args.config, args.overrides)
    with ragray.session() if args.executor == "ray" else nullcontext():
        print(ragray.ingest(args.source, args.data / "corpus", config, executor=args.executor))
        print(ragray.sync_index(args.data / "index", args.data / "corpus", config, executor=args.executor))
