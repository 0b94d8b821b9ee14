"""Environments of checks whose packages are too heavy for `make test`: made once below `work/`, used again."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def python_with(folder: Path, packages: Sequence[str]) -> Path:
    """Return the interpreter of an environment that has these packages and nothing of ragray; makes it where it is missing."""
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join(packages)
    if not done.is_file() or done.read_text() != wanted:
        print(f"making {folder} with {', '.join(packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        done.write_text(wanted)
    return python
