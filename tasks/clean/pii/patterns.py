"""What patterns and checksums find: Presidio's recognisers called directly, and a few of our own.

Presidio's engine runs every recogniser on every text. Here a vectorised test first leaves out the
texts, and then the recognisers, for which there is nothing to find: no mail address without an @,
no card number without twelve digits. The tests only leave out what cannot match.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex  # type: ignore[import-untyped]

from tasks.clean.pii.kernel import Flags
from tasks.errors import ConfigError

LANGUAGE = "en"
_NAME = r"\p{Lu}[\p{L}'’-]*\p{Ll}[\p{L}'’-]*"
FULL_NAME = rf"{_NAME}(?: {_NAME}){{1,2}}"
# Where people write names: spaCy's small model misses one in eight of them there.
_CUES = (
    r"my name is|name on (?:file|the account) is|i am|i'm|this is|signed|sent by|ask for|know me as"
)
_CLOSINGS = r"regards|wishes|sincerely|faithfully|best|yours|cheers|thanks"
_TITLES = r"Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau"
_INTRODUCTIONS = regex.compile(
    rf"(?<=\b(?i:{_CUES})[,:]?\s){FULL_NAME}"
    rf"|(?<=\b(?i:{_CLOSINGS})[,!]\s){FULL_NAME}"
    rf"|(?<=\b(?:{_TITLES})\.?\s){_NAME}(?: {_NAME}){{0,2}}"
    rf"|(?<=(?:[.!?]\s|\n)[-–—]\s?){FULL_NAME}(?=\s*$)",
    regex.MULTILINE,
)
_INTRODUCTION_SCORE = 0.6
# Presidio takes only addresses with a public ending; those of a company's own network count too.
_PRIVATE_ADDRESS = regex.compile(
    r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}(?![\w-])"
)
_PRIVATE_ADDRESS_SCORE = 0.5
_OWN = (
    ("PERSON", _INTRODUCTIONS, _INTRODUCTION_SCORE),
    ("EMAIL_ADDRESS", _PRIVATE_ADDRESS, _PRIVATE_ADDRESS_SCORE),
)

_SPACE = r"[\s\p{Z}]"  # what \s is elsewhere; in RE2, which Arrow uses, it is ASCII alone
_INTRODUCTION_NEEDS = (
    rf"(?i:\b(?:{_CUES})[,:]?{_SPACE}|\b(?:{_CLOSINGS})[,!]{_SPACE})\p{{Lu}}"
    rf"|\b(?:{_TITLES})\.?{_SPACE}\p{{Lu}}|[.!?\n]{_SPACE}?[-–—]{_SPACE}?\p{{Lu}}"
)
# By recogniser, what a text must contain for it to find anything: an @ or a digit at the least.
_NEEDS = {
    "EmailRecognizer": "@",
    "PhoneRecognizer": r"(?:\d\D*){7}",  # five pass in Presidio's German region, not in ours
    "CreditCardRecognizer": r"\d[\d -]{10,}\d",
    "IbanRecognizer": r"(?i)[A-Z]{2}\d\d",
    "UsSsnRecognizer": r"\d{5}|\d{3}[- .]\d{2}",
}
_ANY_NEED = r"[@\p{Nd}]"
_CONTEXT_WORDS = 5
_CONTEXT_GAIN, _CONTEXT_MINIMUM = 0.35, 0.4  # as in Presidio's enhancer


class Found(NamedTuple):
    """Something personal in a text."""

    start: int
    end: int
    entity: str
    score: float


@dataclass(frozen=True, slots=True)
class _Recogniser:
    """One of Presidio's, with the test of what a text must contain; None runs it on every text."""

    analyse: Any
    context: tuple[str, ...]
    needs: Any


class PatternFinder:
    """Finds the entities that have a form: addresses, numbers, introduced names."""

    def __init__(self, entities: Sequence[str], score_threshold: float) -> None:
        self._entities = list(entities)
        self._threshold = score_threshold
        self._recognisers = _recognisers(tuple(entities))
        self._has_test = all(r.needs is not None for r in self._recognisers)

    def candidates(self, texts: pa.Array) -> Flags:
        """Which texts may hold anything; vectorised, and never wrong about those it leaves out."""
        if not self._has_test:
            return np.ones(len(texts), dtype=bool)
        mask = pc.match_substring_regex(texts, pattern=rf"{_ANY_NEED}|{_INTRODUCTION_NEEDS}")
        result: Flags = mask.fill_null(False).to_numpy(zero_copy_only=False)
        return result

    def find(self, text: str) -> list[Found]:
        """What is in one text, with a score of at least the threshold; spans may overlap."""
        found = []
        for recogniser in self._recognisers:
            if recogniser.needs is not None and not recogniser.needs.search(text):
                continue
            for item in recogniser.analyse(text, self._entities, None) or ():
                score = item.score
                if score < self._threshold:
                    score = _with_context(text, item.start, score, recogniser.context)
                if score >= self._threshold:
                    found.append(Found(item.start, item.end, item.entity_type, score))
        for entity, pattern, score in _OWN:
            if entity in self._entities and score >= self._threshold:
                spans = (match.span() for match in pattern.finditer(text))
                found += [Found(start, end, entity, score) for start, end in spans]
        return found


def check_entities(names: Sequence[str]) -> None:
    """Raise ConfigError for an entity that Presidio does not know."""
    registry = _registry()
    known = set(registry.get_supported_entities([LANGUAGE])) | set(_spacy_entities())
    if unknown := sorted(set(names) - known):
        raise ConfigError(
            f"clean.pii.entities: Presidio knows no {', '.join(unknown)}. Expected some of "
            f"{', '.join(sorted(known))}."
        )


def _spacy_entities() -> list[str]:
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    return list(SpacyRecognizer.ENTITIES)


def _with_context(text: str, start: int, score: float, context: tuple[str, ...]) -> float:
    """A weak find counts more after words such as "social security", as in Presidio's engine."""
    from spacy.lang.en.stop_words import STOP_WORDS

    words = re.findall(r"\w+", text[max(0, start - 200) : start].lower())
    near = [w for w in words if w not in STOP_WORDS][-_CONTEXT_WORDS:]
    if any(term in word for term in context for word in near):
        return max(score + _CONTEXT_GAIN, _CONTEXT_MINIMUM)
    return score


@lru_cache(maxsize=8)
def _recognisers(entities: tuple[str, ...]) -> list[_Recogniser]:
    chosen = _registry().get_recognizers(language=LANGUAGE, entities=list(entities))
    return [
        _Recogniser(r.analyze, tuple(word.lower() for word in r.context or ()), _test(r))
        for r in chosen
        if type(r).__name__ != "SpacyRecognizer"
    ]


def _test(recogniser: Any) -> Any:
    need = _NEEDS.get(type(recogniser).__name__)
    return regex.compile(need) if need else None


@lru_cache(maxsize=1)
def _registry() -> Any:
    import tldextract
    from presidio_analyzer import RecognizerRegistry
    from presidio_analyzer.predefined_recognizers import IbanRecognizer, SpacyRecognizer

    # It warns of every recogniser of a language that it does not load.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    # Presidio checks the ending of a mail address, for which tldextract would ask the internet.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    registry: Any = RecognizerRegistry(supported_languages=[LANGUAGE])
    registry.load_predefined_recognizers(languages=[LANGUAGE])
    registry.add_recognizer(SpacyRecognizer())
    # Presidio ignores case, so that "1332 belongs" reads as part of the number.
    registry.add_recognizer(
        IbanRecognizer(name="upper_case_iban", regex_flags=re.DOTALL | re.MULTILINE)
    )
    return registry
