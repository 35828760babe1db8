"""Compiled kernels for near-duplicates: shingles, MinHash signatures, LSH buckets, exact Jaccard.

They read the bytes of an Arrow array of normalised texts and write numpy arrays that the caller
owns. They release the interpreter's lock and share nothing but what they are handed, so plain
threads run them side by side: numba's own threading layers crash when two threads enter one
(workqueue) or when a process forks after it (GNU OpenMP).

All kernels stand in one file because numba's cache looks only at the file of the outermost one: a
kernel inlined from another file would stay as it was before an upgrade.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.example import normalise

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Words32 = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

PUNCTUATION = ".,;:!?()\"'"  # stripped from both ends of a word
WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f "  # all that str.split knows in ASCII
NONE = -1  # no row; as a bucket: no other row shares it
# A bucket of more rows than this is not walked; its rows are found by their rarest shingles.
CROWD = 16
STRIDE = 64  # numbers that one turn of a vector loop takes
_PART = 50_000  # rows normalised at a time

_WORD, _SPACE, _MARK = 0, 1, 2
_KIND = np.zeros(256, np.uint8)
_KIND[[ord(c) for c in WHITE_SPACE]] = _SPACE
_KIND[[ord(c) for c in PUNCTUATION]] = _MARK
_LOWER = np.arange(256, dtype=np.uint64)
_LOWER[ord("A") : ord("Z") + 1] += np.uint64(32)

_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0x100000001B3)  # FNV's prime
_BASE = np.uint64(0xD6E8FEB86659FD93)  # of the rolling polynomial over the words of a shingle
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_MIX32_1, _MIX32_2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_ZERO, _ONE, _S33 = np.uint64(0), np.uint64(1), np.uint64(33)
_RARITY = np.uint64(40)  # bits of a shingle's hash that break ties between equally rare ones
_MOST = np.uint32((1 << 24) - 1)
_SURE = 1 - 1e-12  # bounds are lowered by more than rounding can raise them

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile at the first call; keep the machine code where a folder for it can be written."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither beside this file nor in NUMBA_CACHE_DIR nor in the user's cache
        return cast(F, numba.njit(nogil=True)(function))


class Texts(NamedTuple):
    """Text ``p`` is ``data[starts[p]:ends[p]]``; places are in the order in which rows are kept."""

    data: Bytes
    starts: Longs
    ends: Longs


class Scratch(NamedTuple):
    """What one thread writes on. Marks are numbers that only grow, so nothing is ever cleared."""

    mine: Hashes
    other: Hashes
    keys: Hashes  # a hash set: a slot is taken when ``taken`` holds the number of this set
    taken: Longs
    hit: Longs
    seen: Places
    last: Longs


class Index(NamedTuple):
    """Which rows share a band. Bucket ``f`` of band ``b`` is named by its first place.

    ``buckets[p, b]`` is that place, NONE when no other row is in it, ``-2 - f`` when it is crowded.
    The rows kept so far are linked lists, the latest first: ``heads[f, b]``, ``nexts[p, b]``.
    Rows in a crowded bucket stand in postings by each of their rarest shingles instead.
    """

    buckets: Places
    heads: Places
    nexts: Places
    sizes: Places  # distinct shingles of each text
    frequency: Words32
    posting_heads: Longs
    posting_rows: Places
    posting_nexts: Longs
    num_postings: Longs


def normalised_bytes(texts: pa.LargeStringArray) -> tuple[Bytes, Longs]:
    """The UTF-8 of the texts, ready for ``hash_shingles``, and where each begins and ends.

    ASCII is read in place: the kernel lowers it and splits it. Other texts are normalised by
    ``tasks.example.normalise``; Arrow's own ``utf8_normalize`` leaves NFKC decomposed (25.0), knows
    another version of Unicode, and is slower.
    """
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    if pc.all(pc.string_is_ascii(texts), min_count=0).as_py():
        return _buffers(texts)
    parts = [_normalised(texts.slice(at, _PART)) for at in range(0, len(texts), _PART)]
    views = [_buffers(part) for part in parts]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in views])
    del views
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    data = np.empty(ends[-1], np.uint8)
    at = 0
    while parts:  # each is given back as soon as it is copied
        part, offsets = _buffers(parts.pop(0))
        size = offsets[-1] - offsets[0]
        data[at : at + size] = part[offsets[0] : offsets[-1]]
        at += size
    return data, ends


def _normalised(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    other = pc.invert(pc.string_is_ascii(texts))
    normal = [normalise(text) for text in texts.filter(other).to_pylist()]
    return pc.replace_with_mask(texts, other, pa.array(normal, pa.large_string()))


def _buffers(texts: pa.LargeStringArray) -> tuple[Bytes, Longs]:
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), ends


def shingle_hashes(texts: pa.LargeStringArray, words: int) -> pa.LargeListArray:
    """The hashes of each text's distinct shingles, in the order of the text."""
    data, offsets = normalised_bytes(texts)
    lengths = np.diff(offsets)
    room = scratch(int(lengths.max(initial=0)), 0)
    out = np.empty(int((lengths // 2 + 2).sum()), np.uint64)
    ends = np.zeros(len(texts) + 1, np.int64)
    collect(Texts(data, offsets[:-1], offsets[1:]), words, room, out, ends)
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(out[: ends[-1]]))


def prefix_lengths(sizes: Places, threshold: float) -> Longs:
    """``prefix_length`` of many sets."""
    lengths: Longs = (sizes - np.ceil(threshold * sizes * _SURE) + 1).astype(np.int64)
    return lengths


def scratch(max_bytes: int, num_rows: int) -> Scratch:
    """Room for texts of up to ``max_bytes``; pages that no text needs are never touched."""
    words = max_bytes // 2 + STRIDE
    slots = _slots(words)
    return Scratch(
        np.empty(words, np.uint64),
        np.empty(words, np.uint64),
        np.zeros(slots, np.uint64),
        np.zeros(slots, np.int64),
        np.zeros(slots, np.int64),
        np.full(num_rows, NONE, np.int32),
        np.zeros(1, np.int64),
    )


@kernel
def _slots(count: int) -> int:
    slots = 16
    while slots < 2 * count:
        slots *= 2
    return slots


@kernel
def _mix(value: np.uint64) -> np.uint64:
    """MurmurHash3's 64-bit finaliser: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> _S33)) * _MIX_1
    value = (value ^ (value >> _S33)) * _MIX_2
    return value ^ (value >> _S33)


@kernel
def hash_shingles(data: Bytes, start: int, end: int, words: int, out: Hashes) -> int:
    """Write the hash of each run of ``words`` words of a text, repeats included; return how many.

    A word's hash rolls over its bytes, a shingle's over its words. Fewer words are one shingle.
    """
    num_words = 0
    inside = False
    rolled = kept = _SEED
    for place in range(start, end):
        byte = data[place]
        kind = _KIND[byte]
        if kind == _WORD:
            rolled = (rolled ^ _LOWER[byte]) * _STEP
            kept = rolled
            inside = True
        elif inside:
            if kind == _MARK:  # inside a word it counts, at its end it does not
                rolled = (rolled ^ _LOWER[byte]) * _STEP
            else:
                out[num_words] = _mix(kept)
                num_words += 1
                inside = False
                rolled = _SEED
    if inside:
        out[num_words] = _mix(kept)
        num_words += 1

    length = min(words, num_words)
    rolled, power = _ZERO, _ONE
    for place in range(length):
        rolled = rolled * _BASE + out[place]
        power = power * _BASE
    count = num_words - length + 1
    for place in range(count):
        leaving = out[place]
        out[place] = _mix(rolled)
        if place + 1 < count:
            rolled = rolled * _BASE + out[place + length] - leaving * power
    return count


@kernel
def _remember(room: Scratch, hashes: Hashes, count: int) -> tuple[int, int, int]:
    """Make the set of these hashes; return its number, its mask and its size."""
    room.last[0] += 1
    number = room.last[0]
    mask = _slots(count) - 1
    size = 0
    for place in range(count):
        value = hashes[place]
        slot = np.int64(value) & mask
        while room.taken[slot] == number and room.keys[slot] != value:
            slot = (slot + 1) & mask
        if room.taken[slot] != number:
            room.taken[slot] = number
            room.keys[slot] = value
            hashes[size] = value  # the distinct ones move to the front
            size += 1
    return number, mask, size


@kernel
def _own_set(texts: Texts, p: int, words: int, room: Scratch) -> tuple[int, int, int]:
    count = hash_shingles(texts.data, texts.starts[p], texts.ends[p], words, room.mine)
    return _remember(room, room.mine, count)


@kernel
def collect(texts: Texts, words: int, room: Scratch, out: Hashes, ends: Longs) -> None:
    """Write the distinct shingles of all texts one after the other, and where each text ends."""
    at = 0
    for p in range(len(texts.starts)):
        _, _, size = _own_set(texts, p, words, room)
        out[at : at + size] = room.mine[:size]
        at += size
        ends[p + 1] = at


@kernel
def sign(hashes: Hashes, count: int, a: Words32, b: Words32, low: Words32, out: Words32) -> None:
    """The MinHash of a set, bit-identical to datasketch's ``affine32`` on the hashes' low halves.

    ``low`` is room for ``count`` numbers and a stride more. It is filled up by repeating one, which
    changes no minimum and leaves nothing over to be done one by one after the vector instructions.
    """
    for place in range(count):
        value = np.uint32(hashes[place])
        value = np.uint32((value ^ (value >> np.uint32(16))) * _MIX32_1)
        value = np.uint32((value ^ (value >> np.uint32(13))) * _MIX32_2)
        low[place] = value ^ (value >> np.uint32(16))
    padded = (count + STRIDE - 1) // STRIDE * STRIDE
    low[count:padded] = low[0]
    for permutation in range(len(a)):
        factor, term = a[permutation], b[permutation]
        least = np.uint32(0xFFFFFFFF)
        for place in range(padded):
            least = min(least, np.uint32(factor * low[place] + term))
        out[permutation] = least


@kernel
def band_keys(
    texts: Texts,
    first: int,
    last: int,
    words: int,
    a: Words32,
    b: Words32,
    rows: int,
    room: Scratch,
    keys: Hashes,
    sizes: Places,
) -> None:
    """For the places ``first`` to ``last``: a key a band of ``rows`` numbers, and the set's size.

    The signatures themselves are dropped at once.
    """
    signature = np.empty(len(a), np.uint32)
    low = room.other.view(np.uint32)
    for p in range(first, last):
        _, _, size = _own_set(texts, p, words, room)
        sizes[p] = size
        sign(room.mine, size, a, b, low, signature)
        for band in range(len(keys)):
            key = _SEED
            for row in range(band * rows, (band + 1) * rows):
                key = (key ^ np.uint64(signature[row])) * _MIX_1
                key = key ^ (key >> _S33)
            keys[band, p] = _mix(key)


@kernel
def group(keys: Hashes, band: int, crowd: int, buckets: Places) -> None:
    """Find the rows with the same key in one band; ``buckets`` holds NONE before.

    Most keys are alone, and most of those are found by counting in an array that fits the
    processor's cache; only the others go through a hash table of their first places.
    """
    num_rows = len(keys)
    mask = np.uint64(_slots(2 * num_rows) - 1)
    times = np.zeros(mask + _ONE, np.uint8)
    for p in range(num_rows):
        slot = keys[p] & mask
        times[slot] = min(times[slot] + 1, 2)
    left = np.empty(num_rows, np.int32)
    num_left = 0
    for p in range(num_rows):
        left[num_left] = p
        num_left += times[keys[p] & mask] > 1

    mask = np.uint64(_slots(num_left) - 1)
    table = np.full(mask + _ONE, NONE, np.int32)  # of places in ``left``
    counts = np.zeros(num_left, np.int32)
    named = np.empty(num_left, np.int32)
    for place in range(num_left):
        key = keys[left[place]]
        slot = (key >> _S33) & mask
        while table[slot] != NONE and keys[left[table[slot]]] != key:
            slot = (slot + _ONE) & mask
        if table[slot] == NONE:
            table[slot] = place
        named[place] = table[slot]
        counts[table[slot]] += 1
    for place in range(num_left):
        count, first = counts[named[place]], left[named[place]]
        if count > 1:
            buckets[left[place], band] = first if count <= crowd else -2 - first


@kernel
def count_shingles(
    texts: Texts, places: Longs, words: int, room: Scratch, frequency: Words32
) -> None:
    """Count the shingles of these rows, by the low bits of their hashes."""
    mask = len(frequency) - 1
    for p in places:
        count = hash_shingles(texts.data, texts.starts[p], texts.ends[p], words, room.mine)
        for place in range(count):
            slot = np.int64(room.mine[place]) & mask
            frequency[slot] = min(frequency[slot] + np.uint32(1), _MOST)


@kernel
def prefix_length(size: int, threshold: float) -> int:
    """How many of a set's rarest members any set that is similar enough must share one of.

    All but ``threshold * size - 1`` members: of the others alone there are too few (Chaudhuri et
    al., A primitive operator for similarity joins, 2006).
    """
    return int(size - np.ceil(threshold * size * _SURE) + 1)


@kernel
def _rarest(index: Index, room: Scratch, size: int, threshold: float) -> int:
    """Move the rarest of the set in ``room.mine`` to the front of ``room.other``; how many."""
    mask = len(index.frequency) - 1
    for place in range(size):
        value = room.mine[place]
        rarity = np.uint64(index.frequency[np.int64(value) & mask])
        room.other[place] = (rarity << _RARITY) | (value >> (np.uint64(64) - _RARITY))
    room.other[:size].sort()
    return prefix_length(size, threshold)


@kernel
def _shares_crowd(buckets: Places, p: int, q: int) -> bool:
    for band in range(buckets.shape[1]):
        if buckets[p, band] < NONE and buckets[p, band] == buckets[q, band]:
            return True
    return False


@kernel
def _jaccard(
    texts: Texts,
    q: int,
    words: int,
    room: Scratch,
    own: tuple[int, int, int],
    size: int,
    least: float,
) -> float:
    """The exact similarity of the set in ``room`` and text ``q``; 0 when it is under ``least``."""
    number, mask, own_size = own
    together = own_size + size
    needed = int(least / (1 + least) * together * _SURE)
    if min(own_size, size) < needed:
        return 0.0
    room.last[0] += 1
    mark = room.last[0]
    count = hash_shingles(texts.data, texts.starts[q], texts.ends[q], words, room.other)
    shared = 0
    for place in range(count):
        value = room.other[place]
        slot = np.int64(value) & mask
        while room.taken[slot] == number and room.keys[slot] != value:
            slot = (slot + 1) & mask
        if room.taken[slot] == number and room.hit[slot] != mark:
            room.hit[slot] = mark
            shared += 1
        elif shared + count - place - 1 < needed:
            return 0.0
    return shared / (together - shared)


@kernel
def _better(
    texts: Texts,
    index: Index,
    q: int,
    words: int,
    threshold: float,
    room: Scratch,
    own: tuple[int, int, int],
    best: int,
    similarity: float,
) -> tuple[int, float]:
    """The more similar of ``best`` and ``q``, the earlier of equals."""
    least = max(threshold, similarity)
    found = _jaccard(texts, q, words, room, own, index.sizes[q], least)
    if found >= threshold and (found > similarity or (found == similarity and q < best)):
        return q, found
    return best, similarity


@kernel
def _search(
    texts: Texts,
    index: Index,
    p: int,
    since: int,
    words: int,
    threshold: float,
    room: Scratch,
    best: int,
    similarity: float,
) -> tuple[int, float]:
    """The kept row from place ``since`` on that is most like row ``p``, if any is better."""
    own = (0, 0, 0)  # the set is made once there is something to compare it with
    crowded = False
    for band in range(index.buckets.shape[1]):
        bucket = index.buckets[p, band]
        crowded |= bucket < NONE
        q = int(index.heads[bucket, band]) if bucket >= 0 else NONE
        while q >= since:
            if room.seen[q] != p:
                room.seen[q] = p
                if own[2] == 0:
                    own = _own_set(texts, p, words, room)
                best, similarity = _better(
                    texts, index, q, words, threshold, room, own, best, similarity
                )
            q = int(index.nexts[q, band])
    if not crowded:
        return best, similarity
    if own[2] == 0:
        own = _own_set(texts, p, words, room)
    rarest = room.other[: _rarest(index, room, own[2], threshold)].copy()
    for shingle in rarest:
        node = index.posting_heads[_posting(index, shingle)]
        while node != NONE and index.posting_rows[node] >= since:
            q = int(index.posting_rows[node])
            if room.seen[q] != p:
                room.seen[q] = p
                if _shares_crowd(index.buckets, p, q):
                    best, similarity = _better(
                        texts, index, q, words, threshold, room, own, best, similarity
                    )
            node = index.posting_nexts[node]
    return best, similarity


@kernel
def _posting(index: Index, shingle: np.uint64) -> int:
    return int(_mix(shingle) & np.uint64(len(index.posting_heads) - 1))


@kernel
def _keep(texts: Texts, index: Index, p: int, words: int, threshold: float, room: Scratch) -> None:
    """Let later rows find row ``p``."""
    crowded = False
    for band in range(index.buckets.shape[1]):
        bucket = index.buckets[p, band]
        crowded |= bucket < NONE
        if bucket >= 0:
            index.nexts[p, band] = index.heads[bucket, band]
            index.heads[bucket, band] = p
    if crowded:
        _, _, size = _own_set(texts, p, words, room)
        length = _rarest(index, room, size, threshold)
        for place in range(length):
            slot = _posting(index, room.other[place])
            node = index.num_postings[0]
            index.posting_rows[node] = p
            index.posting_nexts[node] = index.posting_heads[slot]
            index.posting_heads[slot] = node
            index.num_postings[0] += 1


@kernel
def seek(
    texts: Texts,
    index: Index,
    first: int,
    last: int,
    words: int,
    threshold: float,
    room: Scratch,
    kept_of: Longs,
    similarity: npt.NDArray[np.float64],
) -> None:
    """Compare the rows ``first`` to ``last`` with all that are kept so far; nothing is kept."""
    for p in range(first, last):
        kept_of[p], similarity[p] = _search(texts, index, p, 0, words, threshold, room, NONE, 0.0)


@kernel
def settle(
    texts: Texts,
    index: Index,
    first: int,
    last: int,
    words: int,
    threshold: float,
    room: Scratch,
    kept_of: Longs,
    similarity: npt.NDArray[np.float64],
) -> None:
    """One after the other, compare the rows ``first`` to ``last`` with those kept among them.

    What ``seek`` found among the earlier ones stands in ``kept_of`` and ``similarity``.
    """
    for p in range(first, last):
        best, found = int(kept_of[p]), float(similarity[p])
        if found < 1:
            best, found = _search(texts, index, p, first, words, threshold, room, best, found)
        if best == NONE:
            best, found = p, 1.0
            _keep(texts, index, p, words, threshold, room)
        kept_of[p], similarity[p] = best, found
