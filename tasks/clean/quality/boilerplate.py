"""Refusals and boilerplate of assistants in answers; reasons ``refusal`` and ``boilerplate``.

A model trained on them refuses customers and tells them of its knowledge cutoff.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from tasks.assistant_speech import BOILERPLATE, HEAD, REFUSALS, either, recites, refuses
from tasks.clean.rows import Finding


def boilerplate(answers: pa.Array) -> list[Finding]:
    """The answers that refuse or recite, each once; the detail quotes the beginning or clause."""
    refusing = np.asarray(refuses(answers))
    reciting = np.asarray(recites(answers)) & ~refusing
    found = [
        Finding(int(i), reason, _quote(answers[int(i)].as_py(), patterns))
        for reason, is_so, patterns in (
            ("refusal", refusing, REFUSALS),
            ("boilerplate", reciting, BOILERPLATE),
        )
        for i in np.flatnonzero(is_so)
    ]
    return sorted(found, key=lambda finding: finding.index)


def _quote(text: str, patterns: tuple[str, ...]) -> str:
    """What was found, in the answer's own words."""
    found = re.search(either(patterns), text, re.IGNORECASE)
    return f"the answer says {' '.join(found[0].split()) if found else text[:HEAD]!r}"
