"""Texts that slow careless patterns down. In: a number of characters, a source of chance. Out: a text of one pattern, that long."""

from collections.abc import Callable
from random import Random


def _repeated(unit: str) -> Callable[[int, Random], str]:
    return lambda size, _: (unit * (size // len(unit) + 1))[:size]


def _marks(size: int, chance: Random) -> str:
    """Marks that stand above and below, which NFC sorts."""
    return "a" + "".join(chance.choices("\u0301\u0316\u0327\u0345", k=size - 1))


NASTY: dict[str, Callable[[int, Random], str]] = {
    "bullets": _repeated("- \n- item\n"),
    "bars": _repeated("| a | b\n"),
    "tables": _repeated("x | y\n--|--\n1 | 2\n\ncafé au lait\n\n"),
    "fences": _repeated("```\ncode\n"),
    "open fence": lambda size, _: "```\n" + "code here\n" * (size // 10),
    "backticks": lambda size, _: "`" * size + " x`\n- a",
    "delimiter": lambda size, _: "a|b\n" + " " * size + "|x\n",
    "newlines": lambda size, _: "a" + "\n" * size + "b",
    "blank lines": _repeated("  \t \n"),
    "spaces": lambda size, _: "a\n" + " " * size + "b",
    "ideographic spaces": lambda size, _: "港\n" + "\u3000" * size + "b",
    "hyphens": _repeated("inter-\nnational "),
    "hyphened": _repeated("a-"),
    "one word": _repeated("a"),
    "one run": _repeated("港口的仓库"),
    "stops": _repeated("。"),
    "quotes": _repeated('港"'),
    "closers": _repeated(".)"),
    "marks": _marks,
    "one mark": _repeated("\u0301"),
    "joiners": _repeated("\u200d"),
    "soft hyphens": _repeated("\u00ad "),
    "long line above": lambda size, _: "x" * (size // 2) + "\n" + "- y\n1 z\n"[4:] * (size // 8),
    "apostrophes": _repeated("a'"),
    "mojibake": _repeated("Ã©"),
}
