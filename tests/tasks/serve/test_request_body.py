"""What is passed on is what came, but for the model's name and the wish for a count of tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.serve.request_body import BodyError, read_body

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = st.dictionaries(st.text(), VALUES, max_size=5)


@given(FIELDS, st.text(min_size=1), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_field_but_the_models_name_stays(
    fields: dict[str, Any], model: str, indent: int | str | None, ascii_only: bool
) -> None:
    fields = {k: v for k, v in fields.items() if k not in ("stream", "stream_options")}
    fields["model"] = model
    text = json.dumps(fields, indent=indent, ensure_ascii=ascii_only)
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # half a character cannot be written as it is
        return
    body = read_body(raw)
    assert body.fields == fields
    assert json.loads(body.for_replica("tickets@aaa")) == {**fields, "model": "tickets@aaa"}
    assert (
        body.for_replica(model).decode()
        == text[: body.model_at[0]] + json.dumps(model) + text[body.model_at[1] :]
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"include_usage": True}),
        (', "stream_options": null', {"include_usage": True}),
        (', "stream_options": {}', {"include_usage": True}),
        (', "stream_options": {"include_usage": false}', {"include_usage": True}),
        (', "stream_options": {"x": 1}', {"x": 1, "include_usage": True}),
    ],
)
def test_a_stream_is_asked_to_count_its_tokens(options: str, expected: dict[str, Any]) -> None:
    body = read_body(f'{{"stream": true{options}, "model": "m"}}'.encode())
    assert json.loads(body.for_replica("m")) == {
        "stream": True,
        "stream_options": expected,
        "model": "m",
    }
    assert not body.counts_tokens


def test_a_client_that_counts_itself_is_left_alone() -> None:
    raw = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    body = read_body(raw)
    assert body.counts_tokens
    assert body.for_replica("m") == raw


@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        body = read_body(raw)
    except BodyError:
        return
    assert body.model


@given(FIELDS, st.integers(0, 200), st.characters())
def test_a_body_that_was_cut_or_changed_is_read_as_json_reads_it_or_refused(
    fields: dict[str, Any], at: int, sign: str
) -> None:
    text = json.dumps({"model": "m", **fields})
    for changed in (text[:at], text[:at] + sign + text[at:]):
        raw = changed.encode("utf-8", "replace")
        try:
            body = read_body(raw)
        except BodyError:
            continue
        assert body.fields == json.loads(raw)
