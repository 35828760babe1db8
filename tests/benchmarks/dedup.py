"""Near-duplicates among generated records of 50 to 300 words, against datasketch and rensa.

    make bench B=dedup       100,000 records; targets 15 x datasketch and 4 x rensa
    make bench B=dedup-1m    a million; targets 4 GiB and 12 x the time of 100,000

5-word shingles, 128 permutations, threshold 0.8. From strings to which row stands for which: ours
from an Arrow array with the kernels compiled, theirs from a list of Python strings. Recall is the
share of pairs of exact similarity 0.8 and more of which at least one row goes; precision the share
of rows that go whose exact similarity to the row they go to is 0.8 and more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash, MinHashLSH
from rensa import RMinHash, RMinHashDeduplicator, RMinHashLSH

from tasks.clean.config import DuplicateConfig
from tasks.clean.minhash import shingle_hashes
from tasks.clean.similar import (
    NearDuplicates,
    cluster_sizes,
    jaccard,
    near_duplicates,
    shingles,
)
from tests.benchmarks.harness import Result, peak_of_this_process

THRESHOLD, WORDS, PERMUTATIONS, BANDS = 0.8, 5, 128, 16
CONFIG = DuplicateConfig(threshold=THRESHOLD, shingle_words=WORDS, num_permutations=PERMUTATIONS)
_ROUNDS = 3
_BY_DATASKETCH, _BY_RENSA = 15, 4
_MAX_GIB, _MAX_GROWTH = 4, 12
_MIN_RECALL = 0.98
_PART = 50_000  # records generated at a time
_SAMPLE = 20_000  # rows that go whose similarity is computed again, of a million
Kept = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Corpus:
    """Texts, and the number of the planted cluster that each belongs to."""

    texts: pa.LargeStringArray
    cluster_of: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


def generate(num_records: int, seed: int = 1) -> Corpus:
    """Records of Zipf-distributed words; a third of them are others with a few words changed.

    Changing m of n words leaves about (n - 5m) / (n + 5m) of the shingles: m is chosen for a
    similarity of 0.6 to 0.95. The rows are shuffled.
    """
    rng = np.random.default_rng(seed)
    letters = rng.integers(ord("a"), ord("z") + 1, (50_000, 12), dtype=np.uint8)
    lengths = rng.integers(2, 12, len(letters))
    vocabulary = np.array(
        [bytes(w[:n]).decode() for w, n in zip(letters, lengths, strict=True)], dtype=object
    )
    weights = 1 / np.arange(10, len(vocabulary) + 10)
    drawn = np.searchsorted(np.cumsum(weights / weights.sum()), (np.arange(2**20) + 0.5) / 2**20)

    def draw(count: int) -> npt.NDArray[np.int64]:
        return np.asarray(drawn[rng.integers(0, len(drawn), count)], dtype=np.int64)

    texts: list[pa.Array] = []
    clusters: list[int] = []
    part: list[str] = []
    cluster = 0
    while len(clusters) < num_records:
        base = draw(int(rng.integers(50, 301)))
        size = int(rng.geometric(0.5)) + 1 if rng.random() < 0.2 else 1
        for number in range(min(size, num_records - len(clusters))):
            words = base.copy()
            if number:
                similarity = rng.uniform(0.6, 0.95)
                changed = (1 - similarity) / (1 + similarity) * len(base) / WORDS
                places = rng.integers(0, len(base), max(1, round(changed)))
                words[places] = draw(len(places))
            part.append(" ".join(vocabulary[words]))
            clusters.append(cluster)
        cluster += 1
        if len(part) >= _PART or len(clusters) == num_records:
            texts.append(pa.array(part, pa.large_string()))
            part = []
    shuffled = rng.permutation(num_records)
    return Corpus(pa.concat_arrays(texts).take(pa.array(shuffled)), np.array(clusters)[shuffled])


def dedup() -> Result:
    corpus = generate(100_000)
    strings = corpus.texts.to_pylist()
    compile_seconds, load_seconds = _first_call()
    _ours(corpus.texts.slice(0, 100))
    ways: dict[str, Callable[[], Any]] = {
        "retune": lambda: _ours(corpus.texts),
        "datasketch 2.0": lambda: _datasketch(strings),
        "rensa 0.5 deduplicator": lambda: _rensa(strings),
        "rensa 0.5 matrix": lambda: _rensa_matrix(strings),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    outcomes: dict[str, Any] = {}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            outcomes[name] = way()
            seconds[name].append(time.perf_counter() - started)
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    pairs = _similar_pairs(corpus)
    found: NearDuplicates = outcomes.pop("retune")
    stays = found.kept_of == np.arange(len(corpus))
    recall = _recall(stays, pairs)
    precision = _precision(found, strings, np.flatnonzero(~stays))
    accidental = _accidental_rows(corpus)
    peers = {
        name: {
            "seconds": round(medians[name], 2),
            "ratio": round(medians[name] / medians["retune"], 1),
            "recall": round(_recall(kept, pairs), 4),
            "num_kept": int(kept.sum()),
        }
        for name, kept in outcomes.items()
    }
    by_rensa = min(peer["ratio"] for name, peer in peers.items() if "rensa" in name)
    figure = peers["datasketch 2.0"]["ratio"]
    return Result(
        "dedup",
        figure,
        "x faster than datasketch 2.0, end to end",
        _BY_DATASKETCH,
        figure >= _BY_DATASKETCH
        and by_rensa >= _BY_RENSA
        and recall >= _MIN_RECALL
        and precision == 1
        and accidental == 0,
        peers=peers,
        details={
            "targets": f"{_BY_DATASKETCH} x datasketch, {_BY_RENSA} x the faster rensa",
            "num_records": len(corpus),
            "seconds": round(medians["retune"], 3),
            "all_seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
            "recall": round(recall, 4),
            "precision": precision,
            "num_similar_pairs": len(pairs),
            "num_kept": int(stays.sum()),
            "largest_clusters": list(cluster_sizes(found.kept_of).values())[:3],
            "rows_that_may_be_similar_by_accident": accidental,
            "compile_seconds_first_call_ever": compile_seconds,
            "seconds_first_call_in_a_process": load_seconds,
        },
    )


def dedup_1m() -> Result:
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name:
        folder = Path(name)
        corpora = {count: generate(count) for count in (100_000, 1_000_000)}
        for count, corpus in corpora.items():
            table = pa.table({"text": corpus.texts})
            with pa.ipc.new_file(str(folder / f"{count}.arrow"), table.schema) as writer:
                writer.write_table(table)
        command = [sys.executable, "-m", "tests.benchmarks.dedup", str(folder)]
        measured = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        found = NearDuplicates(np.load(folder / "kept_of.npy"), np.load(folder / "similarity.npy"))
    corpus = corpora[1_000_000]
    stays = found.kept_of == np.arange(len(corpus))
    sampled = Corpus(corpus.texts, np.where(corpus.cluster_of % 10 == 0, corpus.cluster_of, -1))
    pairs = _similar_pairs(sampled)
    recall = _recall(stays, pairs)
    gone = np.random.default_rng(1).permutation(np.flatnonzero(~stays))[:_SAMPLE]
    precision = _precision(found, corpus.texts, gone)
    growth = measured["seconds_1m"] / measured["seconds_100k"]
    return Result(
        "dedup-1m",
        round(measured["peak_gib"], 2),
        "GiB at the peak, the texts and the interpreter included",
        _MAX_GIB,
        measured["peak_gib"] < _MAX_GIB
        and growth <= _MAX_GROWTH
        and recall >= _MIN_RECALL
        and precision == 1,
        details={
            **{key: round(value, 3) for key, value in measured.items()},
            "growth": round(growth, 2),
            "growth_target": _MAX_GROWTH,
            "recall": round(recall, 4),
            "num_similar_pairs": len(pairs),
            "precision": precision,
            "num_rows_checked_for_precision": len(gone),
            "num_kept": int(stays.sum()),
        },
    )


def measure(folder: Path) -> dict[str, float]:
    """In a process of its own: seconds of both corpora, and the most memory it ever held."""
    small, large = (_read(folder / f"{count}.arrow") for count in (100_000, 1_000_000))
    _ours(small.slice(0, 100))
    seconds_100k, seconds_1m = [], []
    for _ in range(_ROUNDS):
        seconds_100k.append(_timed(small)[0])
        taken, found = _timed(large)
        seconds_1m.append(taken)
    np.save(folder / "kept_of.npy", found.kept_of)
    np.save(folder / "similarity.npy", found.similarity)
    return {
        "seconds_100k": statistics.median(seconds_100k),
        "seconds_1m": statistics.median(seconds_1m),
        "peak_gib": peak_of_this_process(),
    }


def _timed(texts: pa.LargeStringArray) -> tuple[float, NearDuplicates]:
    started = time.perf_counter()
    found = _ours(texts)
    return time.perf_counter() - started, found


def _read(path: Path) -> pa.LargeStringArray:
    with pa.OSFile(str(path)) as source:
        column = pa.ipc.open_file(source).read_all().column("text")
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _first_call() -> tuple[float, float]:
    """Seconds of the first call with an empty cache of compiled kernels, and with a full one."""
    script = (
        "import time, numpy as np, pyarrow as pa\n"
        "from tasks.clean.config import DuplicateConfig\n"
        "from tasks.clean.similar import near_duplicates\n"
        "started = time.perf_counter()\n"
        "texts = pa.array(['a b c'] * 2, pa.large_string())\n"
        "near_duplicates(texts, np.arange(2), DuplicateConfig())\n"
        "print(time.perf_counter() - started)"
    )
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        first, second = (
            float(
                subprocess.run(
                    [sys.executable, "-c", script],
                    env=environment,
                    check=True,
                    stdout=subprocess.PIPE,
                ).stdout
            )
            for _ in range(2)
        )
    return round(first, 2), round(second, 2)


def _ours(texts: pa.LargeStringArray) -> NearDuplicates:
    return near_duplicates(texts, np.arange(len(texts)), CONFIG)


def _datasketch(texts: Iterable[str]) -> Kept:
    """Its bulk interface, the fastest of its ways: a call a record takes 1.5 to 6 times as long."""
    lsh = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
    sets = ([shingle.encode() for shingle in _split(text)] for text in texts)
    kept = []
    for number, signature in enumerate(MinHash.generator(sets, num_perm=PERMUTATIONS)):
        kept.append(not lsh.query(signature))
        if kept[-1]:
            lsh.insert(number, signature)
    return np.array(kept)


def _rensa(texts: Iterable[str]) -> Kept:
    """As its README keeps unique documents."""
    deduplicator = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True)
    pairs = ((str(number), _split(text)) for number, text in enumerate(texts))
    return np.array(deduplicator.add_pairs(pairs))


def _rensa_matrix(texts: Iterable[str]) -> Kept:
    """Its batch interface: flags every row that shares a band with another, compares none."""
    matrix = RMinHash.digest_matrix_from_token_sets(map(_split, texts), PERMUTATIONS, 42)
    lsh = RMinHashLSH(THRESHOLD, PERMUTATIONS, BANDS)
    return ~np.array(lsh.query_duplicate_flags_matrix_one_shot(matrix))


def _split(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]


def _similar_pairs(corpus: Corpus) -> list[tuple[int, int]]:
    """Pairs of a planted cluster whose exact similarity reaches the threshold."""
    return [
        (i, k)
        for rows in _clusters(corpus)
        for sets in [{row: shingles(corpus.texts[row].as_py(), WORDS) for row in rows}]
        for i, k in combinations(rows, 2)
        if jaccard(sets[i], sets[k]) >= THRESHOLD
    ]


def _clusters(corpus: Corpus) -> Iterator[list[int]]:
    """The rows of each planted cluster of two rows and more; cluster -1 is none."""
    order = np.argsort(corpus.cluster_of, kind="stable")
    edges = np.flatnonzero(np.diff(corpus.cluster_of[order])) + 1
    for rows in np.split(order, edges):
        if len(rows) > 1 and corpus.cluster_of[rows[0]] >= 0:
            yield rows.tolist()


def _recall(kept: Kept, pairs: list[tuple[int, int]]) -> float:
    return 1 - sum(bool(kept[i] and kept[k]) for i, k in pairs) / len(pairs)


def _precision(found: NearDuplicates, texts: Any, rows: npt.NDArray[np.int64]) -> float:
    """Share of these rows whose exact similarity reaches the threshold and is the one told."""
    right = 0
    for row in rows.tolist():
        mine, other = (shingles(str(texts[i]), WORDS) for i in (row, int(found.kept_of[row])))
        similarity = jaccard(mine, other)
        right += bool(similarity >= THRESHOLD and similarity == found.similarity[row])
    return right / len(rows)


def _accidental_rows(corpus: Corpus) -> int:
    """Rows that hold so many shingles of other clusters that they may be similar to one of them.

    None means that the pairs within the planted clusters are all there are.
    """
    hashes = shingle_hashes(corpus.texts, WORDS)
    sizes = np.diff(np.asarray(hashes.offsets))
    row_of = np.repeat(np.arange(len(corpus)), sizes)
    _, shingle_of = np.unique(np.asarray(hashes.values), return_inverse=True)
    owner = np.full(shingle_of.max() + 1, -1)
    owner[shingle_of] = corpus.cluster_of[row_of]
    shared = np.zeros(len(owner), dtype=bool)
    shared[shingle_of[owner[shingle_of] != corpus.cluster_of[row_of]]] = True
    held = np.bincount(row_of, weights=shared[shingle_of], minlength=len(corpus))
    return int((held >= THRESHOLD * sizes).sum())


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
