"""autofaiss in a process of its own. In: vectors and a memory. Out: the FAISS file that autofaiss chose, built and tuned, and its choice.

    PYTHONPATH=FOLDER python tests/bench/ann_autofaiss.py VECTORS.npy BYTES OUT.faiss

autofaiss 2.18 pins numpy<2 and pandas<3, which ragray does not run on: it is installed into FOLDER without its pins, and given the one
thing that it lacks on FAISS 1.15 (it names arguments of OPQMatrix that FAISS now takes by position alone).
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np

PACKAGES = ("autofaiss==2.18.0", "embedding-reader==1.8.1")


@dataclass(frozen=True)
class Chosen:
    """What autofaiss made: its index, what it chose, the seconds it took, the bytes of its file."""

    index: faiss.Index
    choice: str
    build_s: float
    num_bytes: int


def install(folder: Path) -> str:
    """Install autofaiss into a folder, once; return why that failed, if it did."""
    if folder.is_dir():
        return ""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"pip: {done.stderr.strip().splitlines()[-1]}"


def choose(vectors: Path, num_bytes: int, folder: Path, limit_s: float) -> Chosen | str:
    """Let autofaiss choose, build and tune; return why there is nothing, if so."""
    out = vectors.with_name("autofaiss.faiss")
    command = [sys.executable, __file__, str(vectors), str(num_bytes), str(out)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit_s, env={**os.environ, "PYTHONPATH": str(folder)}
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not finished after {limit_s:g} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    said = json.loads(done.stdout.splitlines()[-1])
    return Chosen(faiss.read_index(str(out)), said["choice"], said["build_s"], out.stat().st_size)


def main(vectors: str, num_bytes: str, out: str) -> None:
    """Build and tune with autofaiss's own defaults, on all cores."""
    original, faiss.OPQMatrix = faiss.OPQMatrix, lambda d, M, d2: original(d, M, d2)
    vectors_ND = np.load(vectors).astype(np.float32)
    started = perf_counter()
    index, infos = import_module("autofaiss").build_index(
        vectors_ND, save_on_disk=False, max_index_memory_usage=f"{num_bytes}B", current_memory_available="12G",
        metric_type="ip", nb_cores=os.cpu_count(), verbose=40,
    )  # fmt: skip
    took = perf_counter() - started
    faiss.write_index(index, out)
    print(json.dumps({"choice": f"{infos['index_key']} {infos['index_param']}", "build_s": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
