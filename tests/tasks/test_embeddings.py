"""Sentence embeddings: unit vectors, one a text, the same whatever stands beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.embeddings import TOLERANCE, EmbeddingConfig, embed, locate
from tasks.errors import ConfigError, MissingFileError

CONFIG = EmbeddingConfig()
TEXTS = ["My card was stolen.", "", "Where is my parcel?", "My card was stolen.", "好", "a " * 900]


def test_unit_vectors_in_the_order_of_the_texts() -> None:
    vectors = embed(TEXTS, CONFIG)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[0] == vectors[3]).all()
    assert embed([], CONFIG).shape == (0, 384)


def test_a_vector_does_not_depend_on_what_it_is_embedded_with() -> None:
    together = embed(TEXTS, CONFIG)
    for text, vector in zip(TEXTS, together, strict=True):
        alone = embed([text], EmbeddingConfig(batch_size=1))[0]
        assert np.abs(alone - vector).max() <= TOLERANCE
    backwards = embed(TEXTS[::-1], EmbeddingConfig(batch_size=2))[::-1]
    assert np.abs(backwards - together).max() <= TOLERANCE


def test_what_means_the_same_is_near() -> None:
    question, paraphrase, other = embed(
        ["Where is my parcel?", "Where's my package?", "How do I change my PIN?"], CONFIG
    )
    assert question @ paraphrase > 0.6
    assert question @ other < 0.4


def test_the_vectors_are_those_of_the_model_card() -> None:
    """The first components and a cosine, as sentence-transformers gives them for this model."""
    one, two = embed(["This is an example sentence", "Each sentence is converted"], CONFIG)
    assert np.allclose(one[:3], [0.0676570, 0.0634960, 0.0487130], atol=2e-5)
    assert np.allclose(two[:3], [0.0864380, 0.1027626, 0.0053946], atol=2e-5)


def test_a_local_folder_and_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(locate(CONFIG), folder)
    config = EmbeddingConfig(model=str(folder))
    assert locate(config) == folder
    assert config.fingerprint() == CONFIG.fingerprint()
    assert EmbeddingConfig(batch_size=7).fingerprint() == CONFIG.fingerprint()
    assert EmbeddingConfig(max_length=16).fingerprint() != CONFIG.fingerprint()
    changed = json.loads((folder / "config.json").read_text()) | {"hidden_act": "relu"}
    (folder / "config.json").write_text(json.dumps(changed))
    assert config.fingerprint() != CONFIG.fingerprint()


def test_the_prepared_models_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(locate(CONFIG), tmp_path / "someone--small")
    monkeypatch.setenv("RETUNE_MODELS", str(tmp_path))
    assert locate(EmbeddingConfig(model="someone/small")) == tmp_path / "someone--small"


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingFileError, match=r"someone/small.*make setup"):
        locate(EmbeddingConfig(model="someone/small"))


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytest_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="safetensors"):
        embed(["x"], EmbeddingConfig(model=str(tmp_path)))
