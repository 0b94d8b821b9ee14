"""HTML as text. In: tags, attributes, texts. Out: markup in which every text and attribute value is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Union

VOID = frozenset({"meta", "line", "circle", "rect", "path", "br"})
"""Elements that hold nothing."""

NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Markup(str):
    """Text that is markup already; every other text is escaped where it is put into an element."""


Child = Union[str, "Markup", Iterable["Markup"]]


def element(name: str, /, *children: Child, **attributes: str | float) -> Markup:
    """Return an element. ``class_`` is the attribute class, ``stroke_width`` is stroke-width.

    Raises:
        ValueError: the name of the element or of an attribute is none; they are never taken from data.
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    for one in (name, *names.values()):
        if not NAME.fullmatch(one):
            raise ValueError(f"{one!r} is no name of an element or attribute")
    inside = "".join(f' {names[key]}="{html.escape(_value(value))}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{inside}/>")
    return Markup(f"<{name}{inside}>{''.join(map(_child, children))}</{name}>")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _child(child: Child) -> str:
    if isinstance(child, Markup):
        return str(child)
    return html.escape(readable(child)) if isinstance(child, str) else "".join(map(_child, child))


def readable(text: str) -> str:
    """Return a text without the control characters that HTML forbids; each becomes the replacement character."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", text)


def raw_style(css: str) -> Markup:
    """Return a style element; the style sheet is one of ragray's own."""
    return Markup(f"<style>\n{css}</style>")
