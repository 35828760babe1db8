"""Texts much longer or shorter than the others; ``prompt_length_outlier`` and
``answer_length_outlier``.

A length is compared on a log scale, on which twice as long is as far as half as long. It starts at
``_OFFSET`` characters: between "no" and "not applicable" lies no outlier.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.rows import Finding

Floats = npt.NDArray[np.float64]

_LEAST_ROWS = 50
_OFFSET = 20  # characters
# Where nearly all answers are of one length the rest must not stand out for a few words: by eight
# deviations of 0.3, an eleventh or the elevenfold.
_LEAST_SPREAD = 0.3
_MAD_OF_NORMAL = 0.6745  # median absolute deviation of the standard normal distribution
_RANGE_OF_NORMAL = 4.6527  # from its first to its 99th percentile


def length_outliers(texts: pa.Array, max_deviations: float, reason: str) -> list[Finding]:
    """The texts whose length is too far from the median, where there are enough to say so."""
    if len(texts) < _LEAST_ROWS:
        return []
    sizes = np.asarray(pc.fill_null(pc.utf8_length(texts), 0), dtype=np.int64)
    far = deviations(sizes)
    usual = np.median(sizes)
    return [
        Finding(
            i,
            reason,
            f"{sizes[i]} characters, the median is {usual:.0f}: {far[i]:+.1f} deviations, at most "
            f"{max_deviations:g} are allowed",
        )
        for i in np.flatnonzero(np.abs(far) > max_deviations).tolist()
    ]


def deviations(sizes: npt.NDArray[np.int64]) -> Floats:
    """Robust standard deviations of each log-length from the median.

    The spread is that of the middle half or that from the first to the 99th percentile, whichever
    is larger: what one row in a hundred does, as a list that is mostly empty, is no outlier.
    """
    logs = np.log(sizes + _OFFSET)
    middle = np.median(logs)
    low, high = np.percentile(logs, [1, 99])
    spread = max(
        float(np.median(np.abs(logs - middle))) / _MAD_OF_NORMAL,
        float(high - low) / _RANGE_OF_NORMAL,
        _LEAST_SPREAD,
    )
    return np.asarray((logs - middle) / spread)
