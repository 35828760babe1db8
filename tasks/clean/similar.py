"""Near-duplicates: which rows say nearly the same as one that is kept.

``shingles`` and ``jaccard`` are the definition in plain Python; the kernels of ``minhash`` compute
the same on 64-bit hashes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash

from tasks.clean import minhash
from tasks.clean.config import DuplicateConfig
from tasks.clean.rows import Indices
from tasks.example import normalise

logger = logging.getLogger(__name__)
_SEED = 1
_BATCH = 4096  # rows compared side by side before any of them is kept
_TELL_EVERY = 100_000
_SAMPLE = 100_000  # rows that tell which shingles are rare
_MAX_THREADS = 32
_MAX_SLOTS = 2**26 - 1
_RECALL = 0.99  # of pairs exactly at the threshold; the bands are chosen for it


def shingles(text: str, words: int) -> frozenset[str]:
    """The runs of ``words`` words of the normalised text; a shorter text is one shingle."""
    tokens = [t for t in (w.strip(".,;:!?()\"'") for w in normalise(text).split()) if t]
    runs = [" ".join(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))]
    return frozenset(runs)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """For each row the row that is kept instead of it (itself, when it stays) and how alike."""

    kept_of: Indices
    similarity: npt.NDArray[np.float64]


def near_duplicates(
    texts: pa.LargeStringArray, order: Indices, config: DuplicateConfig
) -> NearDuplicates:
    """Rows whose text is nearly that of a row that comes before them in ``order`` and stays.

    Candidates come from MinHash-LSH (Broder 1997; banding as in Leskovec et al., Mining of Massive
    Datasets, 3.4) and are verified by the exact Jaccard similarity, so that precision is 1. A row
    is only ever compared with rows that stay: what goes is close to something that is kept, the
    closest of them, of equals the first. The same whatever the number of threads.

    Where a template makes many rows share a bucket, they are not compared one by one: similar
    sets must share one of their rarest shingles, so the rows that hold those are looked up
    (prefix filtering). That loses no pair.
    """
    _check_order(order, len(texts))
    if not len(texts):
        return NearDuplicates(np.empty(0, np.int64), np.empty(0))
    workers = min(os.cpu_count() or 1, _MAX_THREADS)
    with ThreadPoolExecutor(workers) as pool:
        search = _Search(texts, order, config, pool, workers)
        kept_of, similarity = search.run()
    by_row = NearDuplicates(np.empty_like(kept_of), np.empty_like(similarity))
    by_row.kept_of[order] = order[kept_of]
    by_row.similarity[order] = similarity
    return by_row


def cluster_sizes(kept_of: Indices) -> dict[int, int]:
    """Rows that stand for others too: their index and the size of their cluster, largest first."""
    sizes = np.bincount(kept_of, minlength=len(kept_of))
    kept = np.flatnonzero(sizes > 1)
    largest = kept[np.lexsort((kept, -sizes[kept]))]
    return {int(index): int(sizes[index]) for index in largest}


def choose_bands(threshold: float, num_permutations: int) -> tuple[int, int]:
    """(bands, rows): the most selective banding that still finds 99 % of pairs at the threshold.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands. datasketch's own
    choice weighs both errors equally and loses a third of the pairs; here a false candidate only
    costs one exact comparison.
    """
    for rows in range(num_permutations, 1, -1):
        bands = num_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return num_permutations, 1


class _Search:
    """Near-duplicates among rows numbered in the order in which they are kept."""

    def __init__(
        self,
        texts: pa.LargeStringArray,
        order: Indices,
        config: DuplicateConfig,
        pool: ThreadPoolExecutor,
        workers: int,
    ) -> None:
        data, offsets = minhash.normalised_bytes(texts)
        self.count = len(order)
        self.texts = minhash.Texts(data, offsets[:-1][order], offsets[1:][order])
        self.words, self.threshold = config.shingle_words, config.threshold
        self.num_permutations = config.num_permutations
        max_bytes = int(np.diff(offsets).max())
        self.rooms = [minhash.scratch(max_bytes, self.count) for _ in range(workers)]
        self.pool = pool

    def run(self) -> tuple[Indices, npt.NDArray[np.float64]]:
        """The place that each row goes to and the similarity.

        Batch by batch: first all rows of a batch are compared, side by side, with what was kept
        before it; then one after the other with what is kept of the batch.
        """
        index = self._index()
        kept_of = np.full(self.count, minhash.NONE, np.int64)
        similarity = np.zeros(self.count)
        rule = (self.words, self.threshold)
        for first in range(0, self.count, _BATCH):
            last = min(first + _BATCH, self.count)

            def seek(start: int, end: int, room: minhash.Scratch) -> None:
                minhash.seek(self.texts, index, start, end, *rule, room, kept_of, similarity)

            self._spread(seek, first, last)
            minhash.settle(
                self.texts, index, first, last, *rule, self.rooms[0], kept_of, similarity
            )
            if last == self.count or last // _TELL_EVERY > first // _TELL_EVERY:
                logger.info("near_duplicate: %s of %s rows", f"{last:,}", f"{self.count:,}")
        return kept_of, similarity

    def _index(self) -> minhash.Index:
        num_bands, rows = choose_bands(self.threshold, self.num_permutations)
        keys, sizes = self._band_keys(num_bands, rows)
        buckets = np.full((self.count, num_bands), minhash.NONE, np.int32)
        crowd = [minhash.CROWD] * num_bands
        list(self.pool.map(minhash.group, keys, range(num_bands), crowd, [buckets] * num_bands))
        del keys
        crowded = np.flatnonzero((buckets < minhash.NONE).any(axis=1))
        num_postings = int(minhash.prefix_lengths(sizes[crowded], self.threshold).sum())
        slots = 1 << min(max(num_postings, 1), _MAX_SLOTS).bit_length()
        frequency = np.zeros(slots if len(crowded) else 1, np.uint32)
        sample = crowded[:: 1 + len(crowded) // _SAMPLE]
        minhash.count_shingles(self.texts, sample, self.words, self.rooms[0], frequency)
        return minhash.Index(
            buckets=buckets,
            heads=np.full(buckets.shape, minhash.NONE, np.int32),
            nexts=np.empty(buckets.shape, np.int32),
            sizes=sizes,
            frequency=frequency,
            posting_heads=np.full(slots, minhash.NONE, np.int64),
            posting_rows=np.empty(num_postings, np.int32),
            posting_nexts=np.empty(num_postings, np.int64),
            num_postings=np.zeros(1, np.int64),
        )

    def _band_keys(self, num_bands: int, rows: int) -> tuple[minhash.Hashes, minhash.Places]:
        a, b = MinHash(num_perm=num_bands * rows, seed=_SEED).permutations
        keys = np.empty((num_bands, self.count), np.uint64)
        sizes = np.empty(self.count, np.int32)

        def sign(start: int, end: int, room: minhash.Scratch) -> None:
            minhash.band_keys(self.texts, start, end, self.words, a, b, rows, room, keys, sizes)

        for first in range(0, self.count, _TELL_EVERY):
            last = min(first + _TELL_EVERY, self.count)
            self._spread(sign, first, last)
            logger.info("near_duplicate: %s of %s rows hashed", f"{last:,}", f"{self.count:,}")
        return keys, sizes

    def _spread(
        self, work: Callable[[int, int, minhash.Scratch], None], first: int, last: int
    ) -> None:
        """Do a range of rows in as many parts as there are threads, each with its own scratch."""
        edges = np.linspace(first, last, len(self.rooms) + 1).astype(int).tolist()
        list(self.pool.map(work, edges[:-1], edges[1:], self.rooms))


def _check_order(order: Indices, count: int) -> None:
    """The kernels trust it; a wrong place would write into foreign memory."""
    if len(order) != count or not np.array_equal(np.sort(order), np.arange(count)):
        raise ValueError(
            f"order must name each of the {count:,} rows once, came {len(order):,} places, "
            f"{len(np.unique(order)):,} of them different"
        )
