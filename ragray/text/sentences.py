"""Where sentences end. In: a text and a place in it. Out: whether a sentence or a clause ends there, and where a cut does no harm. Pure.

Full stops of all scripts count, with the quotes and brackets that close behind them. Thai and Lao write none: their spaces
part phrases. A text is not parsed: abbreviations are a short list.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ragray.text.scripts import SPACELESS

# ruff: noqa: RUF001 - the full-width marks and curly quotes below are meant.
WORD, PAUSE, CLAUSE, SENTENCE = range(4)
"""What may end at a place: no more than a word, a part before a comma, a clause (or a line of a list, a table or code), a sentence."""
STOPS = "。｡！？؟۔।॥។៕။།։።፧"
"""End a sentence wherever they stand."""
MARKS = ".!?…‥．⁇⁈⁉‼"
"""End a sentence before white space, or beside characters of scripts without spaces."""
CLAUSE_MARKS = "；;"
PAUSES = "，、：,:､﹐﹑"
OPENERS = "\"'“‘«‹([{「『【《〈（〔［｛〖〘〚„‚¿¡"
CLOSERS = "\"'”’»›)]}」』】》〉）〕］｝〗〙〛"
ENDS = frozenset(STOPS + MARKS + CLAUSE_MARKS + PAUSES)
_CLUSTER_MARKS = STOPS + MARKS + CLAUSE_MARKS + PAUSES
_CLUSTER = re.compile(rf"[{re.escape(_CLUSTER_MARKS)}][{re.escape(_CLUSTER_MARKS + CLOSERS)}]*")
_SENTENCE_END = re.compile(rf"[{re.escape(STOPS + MARKS)}][{re.escape(CLOSERS)}]*$")
_CLOSED = re.compile(rf"[{re.escape(STOPS + MARKS)}][ \u00a0\u202f]?[{re.escape(CLOSERS)}]+$")
_ABBREVIATION = re.compile(
    rf"[{re.escape(OPENERS)}]*"
    r"([A-ZÀ-ÖØ-ÞА-Я]|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|vs|cf|Nr|Art|Abs|Bd|Hr|Fr|Mme|Sr|Sra|TP|TS|ThS|GS|PGS|[a-zа-я]\.\s?[A-Za-zа-я]|\d{1,2})\.$"
)
_LAST_CHARS = frozenset(STOPS + MARKS + CLOSERS)
_NO_START = frozenset(STOPS + MARKS + CLAUSE_MARKS + PAUSES + "”’»›)]}」』】》〉）〕］｝〗〙〛ーっゃゅょッャュョ々")
_NO_END = frozenset("“‘«‹([{「『【《〈（〔［｛〖〘〚„‚เแโใไເແໂໃໄ")
_SPACELESS = re.compile(f"[{SPACELESS}]")
_MARKED = re.compile(rf"[{STOPS}；，、：﹐﹑]|[{SPACELESS}]")
_STRAIGHT = '"'


def ends_sentence(text: str, start: int, end: int, following: int) -> bool:
    """Return whether the word text[start:end] ends a sentence, white space behind it up to ``following``."""
    if text[end - 1] not in _LAST_CHARS:
        return False
    word = text[start:end]
    if not _SENTENCE_END.search(word) and not _CLOSED.search(text[max(0, start - 2) : end]):
        return False
    behind = text[following : following + 1]
    if behind.islower() or behind in _NO_START:
        return False
    return not _ABBREVIATION.match(word)


def may_have_parts(text: str) -> bool:
    """Return whether a text may hold several sentences or clauses without white space between them."""
    return not text.isascii() and _MARKED.search(text) is not None


def parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ends within text[start:end], which holds no white space, of what its marks part, and what ends there.

    The last one is ``end`` itself, as a word; a run of a script with spaces has no other.
    """
    if may_have_parts(text[start:end]):
        quotes, counted = 0, start
        for match in _CLUSTER.finditer(text, start, end):
            stop = match.end()
            if _STRAIGHT in match[0]:
                quotes += text.count(_STRAIGHT, counted, stop)
                counted = stop
                if quotes % 2 and text[stop - 1] == _STRAIGHT:  # it opens what comes next
                    stop -= 1
            level = _level(text, match.start(), stop, start, end)
            if level >= 0 and stop < end:
                yield stop, level
            elif level > WORD:
                yield end, level
                return
    yield end, WORD


def _level(text: str, first: int, stop: int, start: int, end: int) -> int:
    """Return what ends with the marks text[first:stop], -1 where they part nothing."""
    mark = next(char for char in reversed(text[first:stop]) if char in ENDS)
    if mark in STOPS:
        return SENTENCE
    before = text[first - 1 : first] if first > start else ""
    behind = text[stop : stop + 1] if stop < end else ""
    if mark in "．.:：,，" and before.isdigit():
        return -1
    if mark in "；，、：､﹐﹑":
        return CLAUSE if mark == "；" else PAUSE
    is_among = bool(_SPACELESS.match(before) or _SPACELESS.match(behind) or (before and before in CLOSERS + STOPS))
    if not is_among or (behind and behind.isascii() and behind.isalnum() and mark in ".,:;"):
        return -1
    if mark in MARKS:
        return SENTENCE
    return CLAUSE if mark == ";" else PAUSE


def safe_cut(text: str, low: int, stop: int) -> int:
    """Move a cut back, not past ``low``, to where it parts no character from its marks, no bracket from its content."""
    cut = stop
    while cut > low + 1:
        behind, before = text[cut : cut + 1], text[cut - 1]
        is_joined = (
            behind in ("\u200c", "\u200d") or before == "\u200d" or unicodedata.category(behind or " ")[0] == "M"
        )
        if not is_joined and behind not in _NO_START and before not in _NO_END:
            return cut
        cut -= 1
    return stop


def last_pause(text: str, start: int, stop: int) -> int:
    """Return the end of the last clause or pause within text[start:stop], 0 where there is none."""
    return max(text.rfind(mark, start, stop) for mark in "；，、;,") + 1


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in one line or paragraph, without the white space between them."""
    cuts = [0]
    for word in re.finditer(r"\S+\s*", text):
        stop = word.start() + len(word[0].rstrip())
        levels = dict(parts(text, word.start(), stop))
        if ends_sentence(text, word.start(), stop, word.end()):
            levels[stop] = SENTENCE
        cuts += [end for end, level in levels.items() if level == SENTENCE]
    spans = zip(cuts, [*cuts[1:], len(text)], strict=True)
    return [sentence for start, end in spans if (sentence := text[start:end].strip())]
