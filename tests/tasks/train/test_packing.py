"""Packed rows: loss and gradients are those of the rows apart, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.train.attention import PACKED, why_not_packed
from tasks.train.batches import IGNORED, Row
from tasks.train.packing import num_shared, pack

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # which has attention of its own
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "phi3": {"sliding_window": None},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": {},
    "granite": {"logits_scaling": 4.0},
}


def make_model(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **FAMILIES.get(kind, {}), **changes})
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config).float().to(DEVICE)


def make_rows(shared: int = 6, lengths: tuple[int, ...] = (20, 7, 13, 1)) -> list[Row]:
    """Rows that begin with ``shared`` equal tokens, and end with three trained ones."""
    generator = torch.Generator().manual_seed(shared)
    common = torch.randint(3, 128, (shared,), generator=generator).tolist()
    rows: list[Row] = []
    for number, length in enumerate(lengths):
        # The first own token sets the rows apart, so that no more than asked is shared.
        own = torch.randint(3, 128, (length + 3,), generator=generator).tolist()
        ids = [*common, 3 + number, *own]
        rows.append(
            Row(
                row=number,
                id=str(number),
                input_ids=ids,
                labels=[IGNORED] * (len(ids) - 3) + ids[-3:],
            )
        )
    return rows


def apart(model: Any, rows: list[Row]) -> torch.Tensor:
    """The summed loss of each row by itself, by the model's own plain attention."""
    model.set_attn_implementation("eager")
    total = torch.zeros((), device=DEVICE)
    for row in rows:
        ids = torch.tensor([row["input_ids"]], device=DEVICE)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:], device=DEVICE)
        total = total + functional.cross_entropy(
            logits.float(), labels, ignore_index=IGNORED, reduction="sum"
        )
    return total


def together(model: Any, rows: list[Row], multiple: int = 1) -> torch.Tensor:
    """The same, packed."""
    model.set_attn_implementation(PACKED)
    batch = {name: value.to(DEVICE) for name, value in pack(rows, multiple).items()}
    labels = batch.pop("labels")[0, 1:]
    trained = torch.nonzero(labels != IGNORED).flatten()
    logits = model(**batch, use_cache=False, logits_to_keep=trained).logits[0]
    return functional.cross_entropy(logits.float(), labels[trained], reduction="sum")


def gradients(model: Any) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", sorted(FAMILIES))
@pytest.mark.parametrize(("shared", "multiple"), [(0, 1), (1, 16), (6, 1), (6, 16)])
def test_loss_and_gradients_are_those_of_the_rows_apart(
    kind: str, shared: int, multiple: int
) -> None:
    model, rows = make_model(kind), make_rows(shared)
    assert why_not_packed(model) is None
    expected = apart(model, rows)
    expected.backward()
    by_rows = gradients(model)
    found = together(model, rows, multiple)
    found.backward()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(gradients(model), by_rows, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_row_sees_no_other_row() -> None:
    """Another row beside it changes nothing, to the bit that batching itself costs."""
    model, rows = make_model("llama"), make_rows()
    other: Row = {**rows[1], "input_ids": [*rows[1]["input_ids"][:-1], 99]}
    alone = [together(model, [rows[0], one]) - together(model, [one]) for one in (rows[1], other)]
    assert float(alone[0]) == pytest.approx(float(alone[1]), abs=1e-4)


def test_an_equal_row_twice_counts_twice() -> None:
    model, [row] = make_model("llama"), make_rows(lengths=(9,))
    assert float(together(model, [row, row])) == pytest.approx(
        2 * float(apart(model, [row])), rel=1e-5
    )


rows_of_tokens = st.lists(
    st.lists(st.integers(3, 9), min_size=1, max_size=12), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(
    rows_of_tokens,
    st.lists(st.integers(3, 9), max_size=6),
    st.integers(1, 3),
    st.sampled_from([1, 16]),
)
def test_any_rows(own: list[list[int]], common: list[int], num_trained: int, multiple: int) -> None:
    rows: list[Row] = []
    for number, tokens in enumerate(own):
        ids = [1, *common, *tokens]
        trained = min(num_trained, len(ids) - 1)
        labels = [IGNORED] * (len(ids) - trained) + ids[-trained:]
        rows.append(Row(row=number, id=str(number), input_ids=ids, labels=labels))
    shared = num_shared(rows)
    batch = pack(rows, multiple)
    assert all(row["input_ids"][:shared] == rows[0]["input_ids"][:shared] for row in rows)
    assert all(label == IGNORED for row in rows for label in row["labels"][: shared + 1])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    num_tokens = shared + sum(len(row["input_ids"]) - shared for row in rows)
    assert len(ids) == -(-num_tokens // multiple) * multiple
    longest = max(len(row["input_ids"]) for row in rows)
    assert int(batch["position_ids"].max()) < longest, "a position that no row has"
    layout = batch["layout"]
    rests = layout.gather.flatten()[layout.scatter]
    assert rests.tolist() == list(range(shared, len(ids))), "tokens are lost or out of order"
    kept = [label for label in labels if label != IGNORED]
    assert kept == [label for row in rows for label in row["labels"] if label != IGNORED]


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gemma2", {}, "attn_logit_softcapping"),
        ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1}, "attention sinks"),
        ("qwen3_next", {"num_experts": 2, "num_experts_per_tok": 1}, "layers of the kind"),
        ("bloom", {"n_head": 4}, "attention of its own"),
    ],
)
def test_other_attention_is_padded_instead(kind: str, changes: dict[str, Any], reason: str) -> None:
    why = why_not_packed(make_model(kind, **changes))
    assert why is not None
    assert reason in why
