"""The kernels against plain definitions: shingles in Python, signatures by datasketch."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tasks
from tasks.clean import minhash
from tasks.clean.similar import shingles

U64 = 2**64 - 1
# White space, capitals whose lower case depends on their place or is longer, what NFKC composes,
# decomposes or turns into punctuation, and letters that only newer versions of Unicode know.
TRICKY = " \t\n\v\x1c\x85\xa0\u1680\u2003\u2028\u3000.,;:!?()\"'-aAzZ"
TRICKY += "éE\u0301İΣςﬁ½Å！（\ua7dc\U00010d50\0"
TEXTS = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])))


def texts_of(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def mix(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & U64
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & U64
    return value ^ value >> 33


def hash_of(shingle: str) -> int:
    """The documented hash of a shingle, byte by byte."""
    rolled = 0
    for word in shingle.split():
        letters = 0x9E3779B97F4A7C15
        for byte in word.encode():
            letters = (letters ^ byte) * 0x100000001B3 & U64
        rolled = (rolled * 0xD6E8FEB86659FD93 + mix(letters)) & U64
    return mix(rolled)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.integers(1, 10))
@example(["ΑΣ ΑΣ. İi", "one two", "", "?!", "a a a a", "'tis o'clock, isn't it?"], 2)
def test_shingles_are_those_of_the_definition(texts: list[str], words: int) -> None:
    found = minhash.shingle_hashes(texts_of(*texts), words).to_pylist()
    assert [set(hashes) for hashes in found] == [
        {hash_of(shingle) for shingle in shingles(text, words)} for text in texts
    ]
    assert all(len(set(hashes)) == len(hashes) for hashes in found)


def test_every_character_is_read_as_in_the_definition() -> None:
    points = [chr(n) for n in range(0x110000) if not 0xD800 <= n <= 0xDFFF]
    lines = ["A" + "B ".join(points[at : at + 512]) for at in range(0, len(points), 512)]
    found = minhash.shingle_hashes(texts_of(*lines), 1).to_pylist()
    for line, hashes in zip(lines[:100], found[:100], strict=True):
        assert set(hashes) == {hash_of(shingle) for shingle in shingles(line, 1)}
    counts = [len(shingles(line, 1)) for line in lines]
    assert [len(hashes) for hashes in found] == counts


def test_arrow_slices_nulls_and_empty_arrays() -> None:
    whole = texts_of("zero", "one two", "three", "vier fünf", "six")
    for start in range(5):
        part = whole.slice(start, 3)
        own = texts_of(*part.to_pylist())
        assert minhash.shingle_hashes(part, 2).equals(minhash.shingle_hashes(own, 2))
    assert minhash.shingle_hashes(texts_of(), 3).to_pylist() == []
    assert minhash.shingle_hashes(pa.array([None, "a"], pa.large_string()), 3).equals(
        minhash.shingle_hashes(texts_of("", "a"), 3)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, U64), min_size=1, max_size=300), st.sampled_from([16, 100, 128]))
def test_signatures_are_datasketch_s_own(values: list[int], num_permutations: int) -> None:
    peer = MinHash(num_permutations, seed=7, hashfunc=lambda value: value & 0xFFFFFFFF)
    a, b = peer.permutations
    own = np.empty(num_permutations, np.uint32)
    hashes, low = np.array(values, np.uint64), np.empty(len(values) + minhash.STRIDE, np.uint32)
    minhash.sign(hashes, len(hashes), a, b, low, own)
    peer.update_batch(values)
    np.testing.assert_array_equal(own, peer.hashvalues)


def test_band_keys_are_equal_where_the_bands_of_the_signatures_are() -> None:
    words = [f"w{n}" for n in range(30)]
    texts = texts_of(*(" ".join(words[: 10 + n]) for n in range(20)), "alone")
    data, offsets = minhash.normalised_bytes(texts)
    rows = minhash.Texts(data, offsets[:-1], offsets[1:])
    a, b = MinHash(12).permutations
    keys, sizes = np.empty((4, len(texts)), np.uint64), np.empty(len(texts), np.int32)
    room = minhash.scratch(1000, 0)
    minhash.band_keys(rows, 0, len(texts), 2, a, b, 3, room, keys, sizes)
    hashes = [np.array(h, np.uint64) for h in minhash.shingle_hashes(texts, 2).to_pylist()]
    assert sizes.tolist() == [len(h) for h in hashes]
    signatures = np.empty((len(texts), 12), np.uint32)
    for own, signature in zip(hashes, signatures, strict=True):
        minhash.sign(own, len(own), a, b, np.empty(len(own) + minhash.STRIDE, np.uint32), signature)
    bands = signatures.reshape(len(texts), 4, 3)
    same = (bands[:, None] == bands[None]).all(axis=3)
    np.testing.assert_array_equal(keys.T[:, None] == keys.T[None], same)
    assert 0 < same[:20, :20].mean() < 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 4))
def test_groups_are_the_rows_with_equal_keys(values: list[int], crowd: int) -> None:
    keys = np.array([mix(value) for value in values], np.uint64)
    buckets = np.full((len(values), 1), minhash.NONE, np.int32)
    minhash.group(keys, 0, crowd, buckets)
    for bucket, value in zip(buckets[:, 0].tolist(), values, strict=True):
        count, first = values.count(value), values.index(value)
        assert bucket == (minhash.NONE if count == 1 else first if count <= crowd else -2 - first)


@given(
    st.frozensets(st.integers(0, 30), min_size=1, max_size=20),
    st.frozensets(st.integers(0, 30), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0]),
)
def test_similar_sets_share_one_of_their_first_members(
    left: frozenset[int], right: frozenset[int], threshold: float
) -> None:
    lengths = minhash.prefix_lengths(np.array([len(left), len(right)], np.int32), threshold)
    assert all(1 <= n <= size for n, size in zip(lengths, (len(left), len(right)), strict=True))
    if len(left & right) / len(left | right) >= threshold:
        assert {*sorted(left)[: lengths[0]]} & {*sorted(right)[: lengths[1]]}


def test_two_threads_at_once() -> None:
    texts = texts_of(*(f"some words and the number {n} of many" for n in range(2000)))
    expected = minhash.shingle_hashes(texts, 3)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            found.equals(expected)
            for found in pool.map(lambda _: minhash.shingle_hashes(texts, 3), range(16))
        )


@pytest.mark.parametrize("writable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME", ""])
def test_kernels_compile_where_the_package_cannot_be_written(writable: str, tmp_path: Path) -> None:
    """The machine code goes to NUMBA_CACHE_DIR, else to the user's cache, else nowhere."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "kernels.py").write_text(
        "from tasks.clean.minhash import kernel\n"
        "@kernel\n"
        "def double(x: int) -> int:\n"
        "    return 2 * x\n"
    )
    (package / "__pycache__").touch()  # no folder, and none can be made: even for root
    cache = tmp_path / "cache"
    root = Path(tasks.__file__).parents[1]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"},
        "XDG_CACHE_HOME": os.devnull,
        "PYTHONPATH": f"{package}{os.pathsep}{root}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({writable: str(cache)} if writable else {}),
    }
    printed = subprocess.run(
        [sys.executable, "-c", "import kernels; print(kernels.double(21))"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert printed.stdout == "42\n"
    assert any(cache.rglob("kernels.double*.nbc")) == bool(writable)
