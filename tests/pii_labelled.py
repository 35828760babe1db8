"""The labelled set of personal data, and how well a detector does on it.

``data/pii_labelled.jsonl`` was written for this, before any pattern was tried on it. Half of it, by
the hash of the text, is held out: patterns may be mended on the other half alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABELLED = Path(__file__).parent / "data" / "pii_labelled.jsonl"
ENTITIES = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN")

Span = tuple[int, int, str]


@dataclass(frozen=True)
class Labelled:
    """A text and what is personal in it."""

    text: str
    spans: tuple[Span, ...]

    @property
    def is_held_out(self) -> bool:
        return hashlib.sha256(self.text.encode()).digest()[0] % 2 == 1


@dataclass
class Score:
    """By entity: spans there are, of these found in full; spans found, of these on no label."""

    wanted: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def recall(self, entity: str) -> float:
        return self.hit[entity] / self.wanted[entity] if self.wanted[entity] else 1.0

    def precision(self, entity: str) -> float:
        return 1 - self.wrong[entity] / self.found[entity] if self.found[entity] else 1.0

    def total_recall(self) -> float:
        return self.hit.total() / self.wanted.total()

    def as_dict(self) -> dict[str, list[float]]:
        """(recall, precision) by entity."""
        return {e: [round(self.recall(e), 3), round(self.precision(e), 3)] for e in ENTITIES}


def labelled() -> list[Labelled]:
    lines = LABELLED.read_text(encoding="utf-8").splitlines()
    return [
        Labelled(e["text"], tuple((s["start"], s["end"], s["entity"]) for s in e["spans"]))
        for e in map(json.loads, lines)
    ]


def score(items: Iterable[Labelled], found: Sequence[Sequence[Span]]) -> Score:
    """A label counts as found when one find of its entity covers it whole."""
    result = Score()
    for item, spans in zip(items, found, strict=True):
        for start, end, entity in item.spans:
            result.wanted[entity] += 1
            result.hit[entity] += any(
                s <= start and end <= e and kind == entity for s, e, kind in spans
            )
        for start, end, entity in set(spans):
            result.found[entity] += 1
            result.wrong[entity] += not any(s < end and start < e for s, e, _ in item.spans)
    return result


def plain_analyzer() -> Callable[[str], list[Span]]:
    """Presidio as its users call it: one engine, one text after another."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    from tasks.clean.pii.names import SPACY_MODEL

    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    models = [{"lang_code": "en", "model_name": SPACY_MODEL}]
    configuration = {"nlp_engine_name": "spacy", "models": models}
    nlp_engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
    engine: Any = AnalyzerEngine(nlp_engine=nlp_engine, supported_languages=["en"])

    def analyze(text: str) -> list[Span]:
        found = engine.analyze(text, entities=list(ENTITIES), language="en")
        return [(f.start, f.end, f.entity_type) for f in found]

    return analyze
