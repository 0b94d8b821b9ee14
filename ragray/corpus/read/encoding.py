"""Encodings. In: bytes of a file, and the encoding that was asked for. Out: the name of theirs, their text, or a stream in UTF-8.

A byte order mark says what a file is, whatever was asked for. With ``auto`` it is UTF-8 where it can be, else what
`charset_normalizer` finds with confidence: short files in a rare encoding are refused rather than guessed.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from charset_normalizer import CharsetMatch, from_bytes

AUTO = "auto"
NOT_VALID = "not valid "
ADVICE = " (ingest.encoding=NAME reads another encoding)"
SAMPLE_BYTES = 1 << 18
"""So much of a stream decides on its encoding."""
DETECTED_BYTES = 1 << 16
"""So much of what is not UTF-8 is shown to the detector."""
MAX_DISORDER = 0.02
"""Share of a text that may look like the wrong characters (`chaos` of charset_normalizer)."""
MIN_LEAD = 0.04
"""By so much less disorder must an encoding of Chinese, Japanese or Korean win, unless its text is also recognised as a language."""
MIN_COHERENCE = 0.3
"""How sure a language must be for an encoding of one byte a character: in most of them every text can be read."""
MIN_COHERENCE_LEAD = 0.1
"""By so much surer must the language of one encoding of one byte a character be, where another one reads no more disorder."""
MIN_FOREIGN_BYTES = 4
MAX_CHAR_BYTES = 4
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
}
"""What is read for an encoding that is named too narrowly as a rule: a superset of it."""
_MULTIBYTE_PREFIXES = ("gb", "big5", "cp949", "cp950", "cp932", "shift", "euc", "johab", "iso2022")
_PREFERRED = ("cp1252", "gb18030", "big5", "cp932", "euc_jp", "cp949")
"""Of encodings that read the same text from a file, the one that is most used."""
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
DECLARATION_BYTES = 4096
_FOREIGN = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
_CHUNK = 1 << 16
logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The name of a codec, and how it was found: by its mark, as asked, as UTF-8, as declared or as detected."""

    codec: str
    found: str = ""

    @property
    def label(self) -> str:
        """Its name as it stands in messages."""
        return "UTF-8" if self.is_utf8 else self.codec

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, with a mark or without."""
        return self.codec in ("utf-8", "utf-8-sig")


UTF8 = Encoding("utf-8")


def not_valid(encoding: Encoding) -> str:
    """Return the reason for refusing bytes that are none of an encoding."""
    return f"{NOT_VALID}{encoding.label}"


def encoding_of(sample: bytes, wanted: str, *, label: str, is_whole: bool = False) -> Encoding:
    """Find the encoding of a file from its beginning, and note in the log where it is not UTF-8.

    ``is_whole`` says that the sample is the file; otherwise a character may be cut off at its end.
    """
    found = _encoding_of(sample, wanted, is_whole=is_whole)
    if found.found == "detected":
        logger.warning(
            "%s: is not UTF-8; read as %s, which was detected (ingest.encoding names another)", label, found.codec
        )
    return found


def declared_encoding(page: bytes, wanted: str, *, label: str) -> Encoding:
    """Find the encoding of a web page: by its mark, as it declares where that is true, else as of any file."""
    match = _XML.search(page[:DECLARATION_BYTES]) or _DECLARED.search(page[:DECLARATION_BYTES])
    if match and not _mark(page):
        name = known_codec(match[1].decode("ascii"))
        # a page that declares UTF-16 in ASCII is none
        if name and not name.startswith(("utf-16", "utf-32")) and _reads(page, Encoding(_WIDER.get(name, name)).codec):
            return Encoding(_WIDER.get(name, name), "declared")
    return encoding_of(page, wanted, label=label, is_whole=True)


def known_codec(name: str) -> str:
    """Return the name by which Python knows an encoding of text, nothing for one that it does not know."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return ""
    return codecs.lookup(name).name


def _encoding_of(sample: bytes, wanted: str, *, is_whole: bool) -> Encoding:
    if mark := _mark(sample):
        return Encoding(mark, "mark")
    if wanted != AUTO:
        name = known_codec(wanted)
        return Encoding("gb18030" if name in ("gb2312", "gbk") else name, "asked")
    if sample.isascii() or _reads(sample, "utf-8", is_whole=is_whole):
        return UTF8
    foreign = b"".join(_FOREIGN.findall(sample[:SAMPLE_BYTES]))
    lines = foreign.splitlines()
    if sum(_reads(line, "utf-8") for line in lines) * 2 >= len(lines):
        return UTF8  # with some damaged lines
    codec = next(filter(None, map(_detected, _beginnings(foreign))), "")
    return Encoding(codec, "detected") if codec and _reads(sample, codec, is_whole=is_whole) else UTF8


def _mark(data: bytes) -> str:
    return next((codec for mark, codec in _BOMS if data.startswith(mark)), "")


def _reads(data: bytes, codec: str, *, is_whole: bool = True) -> bool:
    try:
        codecs.getincrementaldecoder(codec)().decode(data, final=is_whole)
    except UnicodeError:
        return False
    return True


def _beginnings(data: bytes) -> Iterator[bytes]:
    """Yield what the detector is shown: all of a short text, the whole lines that a long one begins with.

    Of a long line the end may be half a character, with which no encoding reads it; so it is shown with 0 to 3 bytes less.
    """
    if len(data) <= DETECTED_BYTES:
        yield data
    elif lines := data[:DETECTED_BYTES].rpartition(b"\n")[0]:
        yield lines
    else:
        yield from (data[: DETECTED_BYTES - cut] for cut in range(MAX_CHAR_BYTES))


def _detected(data: bytes) -> str:
    """Return the encoding that is detected with confidence, nothing where none is."""
    if sum(byte > 0x7F for byte in data) < MIN_FOREIGN_BYTES:
        return ""
    matches = [match for match in from_bytes(data) if not match.encoding.startswith("utf")]
    if not matches or matches[0].chaos > MAX_DISORDER:
        return ""
    best, *others = matches
    if _is_multibyte(best):
        is_sure = best.coherence > 0 or all(other.chaos >= best.chaos + MIN_LEAD for other in others)
    else:
        is_sure = best.coherence >= MIN_COHERENCE and not any(_rivals(best, other) for other in others)
    return _usual(best) if is_sure else ""


def _rivals(best: CharsetMatch, other: CharsetMatch) -> bool:
    """Return whether another encoding reads another text that looks as good: as cp1250 and cp1252 do of French."""
    return other.chaos < best.chaos + MIN_LEAD and other.coherence > best.coherence - MIN_COHERENCE_LEAD


def _is_multibyte(match: CharsetMatch) -> bool:
    return match.encoding.startswith(_MULTIBYTE_PREFIXES)


def _usual(match: CharsetMatch) -> str:
    alike: Iterable[str] = match.could_be_from_charset
    return next((name for name in _PREFERRED if name in alike), match.encoding)


def in_utf8(stream: IO[bytes], encoding: Encoding, *, num_bytes: int) -> IO[bytes]:
    """Return a stream of the same text in UTF-8, of so many bytes at most.

    Bytes that are none of the encoding stay as they are, to be refused by line.
    """
    return io.BufferedReader(_Recoded(stream, encoding.codec, num_bytes))


class _Recoded(io.RawIOBase):
    """Reads a stream of one encoding as UTF-8."""

    def __init__(self, stream: IO[bytes], codec: str, num_bytes: int) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
        self._left = num_bytes
        self._ready = b""

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return how many bytes it holds, 0 at the end."""
        while not self._ready:
            piece = self._stream.read(min(_CHUNK, self._left))
            self._left -= len(piece)
            self._ready = self._decoder.decode(piece, final=not piece).encode("utf-8", "surrogateescape")
            if not piece:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
