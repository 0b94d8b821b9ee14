"""Embeddings to an index, as a job.

    ray job submit --working-dir . -- python jobs/build_index.py --data /shared/rag

Reads DATA/corpus and DATA/embeddings (from embed_corpus.py), writes DATA/index and lets it serve the new snapshot.
"""

import argparse
from pathlib import Path

import ragray

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder on storage that all nodes share")
parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
parser.add_argument("--executor", choices=("ray", "local"), default="ray", help="local: processes of this node")
parser.add_argument("overrides", nargs="*", metavar="section.key=value")

if __name__ == "__main__":
    args = parser.parse_args()
    config = ragray.load_config(args.config, args.overrides, command="index build")
    print(
        ragray.build_index(
            args.data / "embeddings", args.data / "corpus", args.data / "index", config, executor=args.executor
        )
    )
