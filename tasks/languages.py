"""The language of a text, by py3langid."""

from __future__ import annotations

from functools import lru_cache

NO_LANGUAGE = "zxx"  # ISO 639's code for what is no language: random letters, code
# The classifier walks each byte in Python: more of a text makes it slower and hardly surer.
PREFIX = 200


def identify(text: str) -> tuple[str, float]:
    """(ISO 639 code, probability) of the most probable language of the text's beginning."""
    language, probability = identifier().classify(text[:PREFIX])
    return str(language), float(probability)


@lru_cache(maxsize=1)
def identifier():  # type: ignore[no-untyped-def]
    """The classifier, loaded once."""
    from py3langid.langid import (  # type: ignore[import-untyped]
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
