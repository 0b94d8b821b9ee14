"""The page, as a reader meets it. In: Chromium. Out: a line for each thing that holds, screenshots, exit code 1 where one does not.

pip install playwright        into the environment that runs this; Chromium comes from the system (Debian: chromium)
python -m tests.browser [--shots FOLDER] [--chromium PATH] [--port N] [NAME ...]
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, expect, sync_playwright

from tests.browser import checks
from tests.browser.service import running


def arguments() -> argparse.Namespace:
    """Return the options of this command."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks to run; all if none is named")
    parser.add_argument("--shots", type=Path, default=Path("work/browser"), help="folder of the screenshots")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--port", type=int, default=8861)
    return parser.parse_args()


def every_check() -> dict[str, Callable[..., None]]:
    """Return the checks by name, in the order in which they stand."""
    found = inspect.getmembers(checks, inspect.isfunction)
    own = [(name, check) for name, check in found if name.startswith("check_")]
    return {
        name.removeprefix("check_"): check
        for name, check in sorted(own, key=lambda each: each[1].__code__.co_firstlineno)
    }


def is_wrong(said: ConsoleMessage) -> bool:
    """Return whether the browser complains; that a request was refused is what some checks are about."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


def holds(check: Callable[..., None], browser: Browser, address: str, shots: Path) -> bool:
    """Run a check in a browser of its own; prints what it is about, and where it fails."""
    options = {"viewport": {"width": 1100, "height": 800}, "locale": "en-GB", **getattr(check, "options", {})}
    context = browser.new_context(**options)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda err: wrong.append(f"error of the page: {err}"))
    page.on("console", lambda said: wrong.append(f"console: {said.text}") if is_wrong(said) else None)
    try:
        page.goto(address)
        check(page, lambda name: page.screenshot(path=shots / f"{name}.png"))
        assert not wrong, wrong
    except Exception:
        page.screenshot(path=shots / f"failed-{check.__name__}.png")
        traceback.print_exc()
        print(*wrong, sep="\n", file=sys.stderr)
        return False
    finally:
        context.close()
    return True


def main() -> int:
    """Run the checks that are named, or all."""
    asked = arguments()
    if asked.chromium is None:
        sys.exit(
            "tests.browser: no Chromium found; install it (Debian: apt-get install chromium), or name it with --chromium"
        )
    every = every_check()
    if unknown := [name for name in asked.names if name not in every]:
        sys.exit(f"tests.browser: no check {unknown[0]!r}; there are {', '.join(every)}")
    asked.shots.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=30_000)
    failed = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), asked.port) as address,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=asked.chromium, args=["--no-sandbox"])
        for name in asked.names or every:
            passed = holds(every[name], browser, address, asked.shots)
            print(f"{'holds ' if passed else 'FAILED'}  {inspect.getdoc(every[name])}", flush=True)
            failed += [] if passed else [name]
        browser.close()
    print(f"{len(failed)} failed; screenshots lie in {asked.shots}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
