"""The language of a prompt, by py3langid; reason ``wrong_language``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.config import QualityConfig
from tasks.clean.rows import Finding
from tasks.errors import ConfigError
from tasks.languages import NO_LANGUAGE, PREFIX, identifier, identify

_LEAST_LETTERS = 20


def wrong_language(prompts: pa.Array, config: QualityConfig) -> list[Finding]:
    """Prompts that are surely in none of the configured languages.

    All the languages that the classifier knows compete: restricted to the configured ones it would
    call every text one of them. Raises ConfigError for a code that it does not know.
    """
    if not config.languages:
        return []
    _check_codes(config.languages)
    beginnings = pc.utf8_slice_codeunits(pc.fill_null(prompts, ""), 0, PREFIX)
    letters = pc.utf8_length(pc.replace_substring_regex(beginnings, r"\PL", ""))
    judged = np.flatnonzero(np.asarray(letters) >= _LEAST_LETTERS)
    encoded = beginnings.take(pa.array(judged)).dictionary_encode()
    languages = [identify(text.as_py()) for text in encoded.dictionary]
    least = config.min_language_probability
    is_wrong = np.array(
        [
            language not in {*config.languages, NO_LANGUAGE} and probability >= least
            for language, probability in languages
        ],
        dtype=bool,
    )
    codes = np.asarray(encoded.indices)
    allowed = ", ".join(config.languages)
    return [
        Finding(
            int(judged[i]),
            "wrong_language",
            "{} with probability {:.2f}; allowed: {}".format(*languages[codes[i]], allowed),
        )
        for i in np.flatnonzero(is_wrong[codes]).tolist()
    ]


def _check_codes(languages: tuple[str, ...]) -> None:
    known = set(identifier().labels)
    if unknown := [code for code in languages if code not in known]:
        raise ConfigError(
            f"clean.quality.languages: {', '.join(unknown)} is not known. Give codes of ISO 639-1 "
            f"among {', '.join(sorted(code for code in known if len(code) == 2))}."
        )
