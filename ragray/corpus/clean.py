"""Cleaning. In: text as a source holds it. Out: repaired, printable, evenly spaced text, or why it is refused. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from ragray.config import IngestConfig
from ragray.errors import ConfigError, MissingPackageError
from ragray.text.repair import clean_text
from ragray.text.scripts import language_of_script, length_in_letters

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_SYMBOL = re.compile(r"[^\w\s]|_")
LANGUAGE_CHARS = 10_000
"""So much of a document decides on its language."""
LEAST_LETTERS = 20
"""Below so many characters the detector guesses."""


def clean_line(text: str) -> str:
    """Repair a title: as `clean_text`, on one line."""
    return " ".join(line.strip() for line in clean_text(text).split("\n") if line.strip())


UNWANTED = ("empty", "shorter than", "longer than", "symbols", "language", "duplicate", "near duplicate")
"""Beginnings of the reasons for which a sound record is left out; any other reason means that the source is damaged."""


def is_damage(reason: str) -> bool:
    """Return whether a record was refused because it could not be read, not because it is not wanted."""
    return not reason.startswith(UNWANTED)


def refuse_reason(text: str, config: IngestConfig) -> str | None:
    """Return why a text cannot be ingested, None where it can."""
    if len(text) > config.max_chars:
        return f"longer than max_chars={config.max_chars}"
    if not text.strip():
        return "empty"
    if len(text) < config.min_chars and length_in_letters(text) < config.min_chars:
        return f"shorter than min_chars={config.min_chars}"
    if config.max_symbol_ratio < 1 and symbol_ratio(text) > config.max_symbol_ratio:
        return f"symbols over max_symbol_ratio={config.max_symbol_ratio}"
    if config.languages and (found := language_of(text)) and found not in config.languages:
        return f"language {found}"
    return None


def symbol_ratio(text: str) -> float:
    """Return the share of the visible characters that are neither letters (with their marks) nor digits."""
    symbols = sum(unicodedata.category(found)[0] != "M" for found in _SYMBOL.findall(text))
    return symbols / max(1, sum(map(len, text.split())))


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of the language that the beginning of a text is probably in; nothing where that would be a guess.

    Chinese, Cantonese and Wu are ``zh``, also with terms in English; Japanese and Korean are told from them by their script. The
    language of another text of less than ``LEAST_LETTERS`` is not judged.

    Raises:
        MissingPackageError: py3langid is not installed.
    """
    beginning = text[:LANGUAGE_CHARS]
    if found := language_of_script(beginning):
        return found
    return "" if len(beginning) < LEAST_LETTERS else str(_identifier().classify(beginning)[0])


def check_languages(config: IngestConfig) -> None:
    """Check that the languages asked for are ones that can be told apart.

    Raises:
        ConfigError: names the code that is not known.
        MissingPackageError: py3langid is not installed.
    """
    if config.languages:
        known = _identifier().labels
        for code in config.languages:
            if code not in known:
                raise ConfigError(
                    f"ingest.languages: '{code}' is no language code that py3langid knows ({' '.join(sorted(known))})"
                )


@cache
def _identifier() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as err:
        raise MissingPackageError("ingest.languages needs py3langid; run: pip install py3langid") from err
    return LanguageIdentifier.from_model_file(MODEL_FILE)
