"""The compiled parts of the name recogniser: its convolutions and its greedy decisions.

They follow spaCy's MaxoutWindowEncoder and its transition system for entities, whose order of
operations decides what comes out: the tests hold the result equal to spaCy's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Rows of one matrix product. Always as many, so that no row's result depends on how many there
# are; few enough that what a layer reads and writes stays in the cache.
_TILE = 256
_PIECES = 3  # of a maxout in the encoder; two in the decoder


def product(rows: Floats, weights: Floats) -> Floats:
    """A matrix product in tiles of the same size."""
    out = np.empty((len(rows), weights.shape[1]), dtype=np.float32)
    tile = np.zeros((_TILE, rows.shape[1]), dtype=np.float32)
    for at in range(0, len(rows), _TILE):
        part = rows[at : at + _TILE]
        tile[: len(part)] = part
        out[at : at + _TILE] = (tile @ weights)[: len(part)]
    return out


def activate(products: Floats, bias: Floats, scale: Floats, shift: Floats) -> Floats:
    """Maxout, then layer normalisation."""
    out = np.zeros((len(products), scale.size), dtype=np.float32)
    _activate(products, bias, scale, shift, out)
    return out


def convolve(
    vectors: Floats, weights: Floats, bias: Floats, scale: Floats, shift: Floats
) -> Floats:
    """One residual layer: each row becomes itself plus what it makes of itself and its neighbours.

    The rows of ``weights`` are the inputs of the place before, of the place itself and of the one
    after; its columns are all first pieces, then all second, then all third.
    """
    out = vectors.copy()
    window = np.zeros((_TILE, weights.shape[0]), dtype=np.float32)
    products = np.empty((_TILE, weights.shape[1]), dtype=np.float32)
    for at in range(0, len(vectors), _TILE):
        _gather(vectors, at, window)
        np.dot(window, weights, out=products)
        _activate(products, bias, scale, shift, out[at : at + _TILE])
    return out


def decode(
    vectors: Floats,
    is_last: Flags,
    is_space: Flags,
    lower: Floats,
    bias: Floats,
    padding: Floats,
    upper: Floats,
    upper_bias: Floats,
    moves: Ints,
    out_move: int,
) -> tuple[Ints, Ints, Ints]:
    """(first token, last token, label) of each entity: spaCy's greedy transitions.

    ``moves`` has the classes of Begin, In, Last and Unit of each label. Outside an entity the state
    is the token alone, so that all these decisions are taken at once, before the walk.
    """
    outside = product(vectors, np.ascontiguousarray(lower[0].T))
    outside += bias + padding[1] + padding[2]
    hidden = np.maximum(outside[:, 0::2], outside[:, 1::2])
    scores = product(hidden, np.ascontiguousarray(upper.T)) + upper_bias
    choice = _outside_choice(scores, is_last, is_space, moves, out_move)
    found: tuple[Ints, Ints, Ints] = _walk(
        choice, is_last, vectors, lower, bias, upper, upper_bias, moves
    )
    return found


@njit(cache=True, nogil=True)
def _gather(vectors, at, window):  # type: ignore[no-untyped-def]
    """Fill each row of ``window`` with the vectors before, at and after its place."""
    count, width = vectors.shape
    for i in range(len(window)):
        for place in range(3):
            source = at + i + place - 1
            for j in range(width):
                inside = 0 <= source < count
                window[i, place * width + j] = vectors[source, j] if inside else np.float32(0)


@njit(cache=True, nogil=True, fastmath=True)
def _activate(products, bias, scale, shift, out):  # type: ignore[no-untyped-def]
    """Add to each row of ``out`` the normalised maxout of its products."""
    width = scale.size
    best = np.empty(width, dtype=np.float32)
    for i in range(len(out)):
        total = np.float32(0)
        for j in range(width):
            first = products[i, j] + bias[j]
            second = products[i, width + j] + bias[width + j]
            third = products[i, 2 * width + j] + bias[2 * width + j]
            best[j] = max(first, second, third)
            total += best[j]
        mean = total / np.float32(width)
        total = np.float32(0)
        for j in range(width):
            total += (best[j] - mean) ** 2
        factor = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(1e-8))
        for j in range(width):
            out[i, j] += (best[j] - mean) * factor * scale[j] + shift[j]


@njit(cache=True, nogil=True)
def _outside_choice(scores, is_last, is_space, moves, out_move):  # type: ignore[no-untyped-def]
    """For each token, were no entity open: -1 for none, 2 x label to begin, + 1 for a unit."""
    choice = np.full(len(scores), -1)
    for i in range(len(scores)):
        if is_space[i]:
            continue
        best = scores[i, out_move]
        for label in range(len(moves)):
            begin, unit = moves[label, 0], moves[label, 3]
            if not is_last[i] and scores[i, begin] > best:
                best, choice[i] = scores[i, begin], 2 * label
            if scores[i, unit] > best:
                best, choice[i] = scores[i, unit], 2 * label + 1
    return choice


@njit(cache=True, nogil=True)
def _walk(choice, is_last, vectors, lower, bias, upper, upper_bias, moves):  # type: ignore[no-untyped-def]
    firsts, lasts, labels = [0], [0], [0]  # one of each, for numba to know the type; cut off below
    i = 0
    while i < len(choice):
        if choice[i] >= 0:
            first, label = i, choice[i] // 2
            if choice[i] % 2 == 0:
                i += 1
                while not is_last[i] and _goes_on(
                    vectors, i, first, lower, bias, upper, upper_bias, moves[label]
                ):
                    i += 1
            firsts.append(first)
            lasts.append(i)
            labels.append(label)
        i += 1
    return np.array(firsts[1:]), np.array(lasts[1:]), np.array(labels[1:])


@njit(cache=True, nogil=True)
def _goes_on(vectors, i, first, lower, bias, upper, upper_bias, moves):  # type: ignore[no-untyped-def]
    """Inside an entity there are two moves: In, and Last, which closes it."""
    goes_on, ends = upper_bias[moves[1]], upper_bias[moves[2]]
    for h in range(upper.shape[1]):
        best = np.float32(-np.inf)
        for piece in range(2):
            j = 2 * h + piece
            value = bias[j]
            for k in range(vectors.shape[1]):
                value += lower[0, j, k] * vectors[i, k]
                value += lower[1, j, k] * vectors[first, k]
                value += lower[2, j, k] * vectors[i - 1, k]
            best = max(best, value)
        goes_on += upper[moves[1], h] * best
        ends += upper[moves[2], h] * best
    return goes_on > ends
