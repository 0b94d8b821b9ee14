"""One entry to all benches. In: the name of one, its options. Out: what it prints and writes to `tests/bench/results/`.

python -m tests.bench NAME [options]      without a name: what there is; NAME --help: its options
"""

import ast
import importlib
import sys
from pathlib import Path

BENCHES = (
    "ann",
    "autoscale",
    "chinese",
    "embed_speed",
    "evaluate_speed",
    "filters",
    "fusion",
    "kills",
    "lexical",
    "memory",
    "nasty",
    "overload",
    "readers",
    "refresh",
    "scifact",
    "search",
    "serving",
    "squad_open",
    "swaps",
    "sync",
    "train_step",
)


def caption(name: str) -> str:
    """Return the first sentence of a bench's docstring, which is read without importing it."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return str(ast.get_docstring(ast.parse(text))).partition(". ")[0]


def listing() -> str:
    """Return the benches, one per line."""
    return "\n".join(
        ["usage: python -m tests.bench NAME [options]", "", *(f"{name:<12} {caption(name)}" for name in BENCHES)]
    )


def main(arguments: list[str]) -> None:
    """Run a bench, or list them."""
    name, *options = arguments or [""]
    if name in ("", "-h", "--help"):
        print(listing())
        return
    if name not in BENCHES:
        sys.exit(f"tests.bench: no bench {name!r}\n{listing()}")
    sys.argv = [f"python -m tests.bench {name}", *options]
    importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
