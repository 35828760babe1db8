"""What was forgotten is recognised however it is written, and nothing else is."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, StorageError
from tasks.example import Example, Message, to_table
from tasks.objects import LocalStore
from tasks.tombstones import PREFIX, Tombstones, bury, links_of, salt_of

SALT = bytes(range(32))
# What people put between and around words. No backslash, which begins an escape.
_BETWEEN = (
    string.punctuation.replace("\\", "") + string.whitespace + "\u2026\u201e\u2019\u2013\u00a0"
)
between = st.text(_BETWEEN, min_size=1, max_size=4)
letters = st.text("abcdefghxyz\u00e4\u00f6\u00df\u00e9\u0142\u0436\u03c3", min_size=1, max_size=8)
identifiers = st.lists(letters, min_size=1, max_size=6)
prose = st.lists(letters, max_size=12).map(" ".join)
cases = st.sampled_from([str.lower, str.upper, str.title, str.swapcase])


def forgets(*texts: str, ids: tuple[str, ...] = ()) -> Tombstones:
    return Tombstones.of(SALT, texts, ids)


def row(text: str = "hello", **fields: object) -> Example:
    values: dict[str, object] = {
        "id": "0" * 64,
        "messages": (Message("user", text), Message("assistant", "yes")),
        "source": "human",
        "group": "g",
    }
    return Example(**(values | fields))  # type: ignore[arg-type]


@settings(deadline=None)  # the first call compiles
@given(identifiers, prose, prose, between, between, st.data())
def test_it_is_matched_in_any_position_case_punctuation_and_white_space(
    words: list[str], before: str, after: str, left: str, right: str, data: st.DataObject
) -> None:
    written = "".join(word + data.draw(between) for word in words[:-1]) + words[-1]
    text = before + left + data.draw(cases)(written) + right + after
    assert forgets(" ".join(words)).matches_text(text)


@settings(deadline=None)
@given(letters, letters, between)
def test_a_longer_word_is_not_matched(word: str, more: str, between: str) -> None:
    longer = [word + more, more + word, more + word + more]
    text = between.join(["", *longer, ""])
    assume("%" not in between)  # %aa is read as a web address would be
    if word.casefold() not in {other.casefold() for other in longer}:
        assert not forgets(word).matches_text(text)


@settings(deadline=None)
@given(st.lists(letters, min_size=2, max_size=9))
def test_part_of_a_phrase_is_not_matched(words: list[str]) -> None:
    if words[0] not in words[1:]:
        assert not forgets(" ".join(words)).matches_text(" ".join(words[1:]))


@pytest.mark.parametrize(
    ("sought", "text"),
    [
        ("anna@example.org", '{"email":"anna@example.org","n":1}'),
        ("anna@example.org", "<mailto:Anna@Example.ORG>, thanks"),
        ("anna@example.org", "GET /?mail=anna%40example.org HTTP/1.1"),
        ("Jörg Müller", r'"J\u00f6rg\nM\u00fcller"'),
        ("Jörg Müller", "Jo\u0308rg Mu\u0308ller"),
        ("Jörg Müller", "J&ouml;rg M&uuml;ller"),
        ("Anna", "said\\nAnna"),
        ("Anna", "An\u00adna"),
        ("Anna", "Anna's"),
        ("Straße 5", "STRASSE 5"),
        ("王小明", "我叫王小明。"),
        ("สมชาย", "คุณสมชายครับ"),
        ("customer 17", "customer_17"),
    ],
)
def test_it_is_recognised_as_people_and_programs_write_it(sought: str, text: str) -> None:
    assert forgets(sought).matches_text(text)


@pytest.mark.parametrize(
    ("sought", "text"),
    [
        ("anna", "annabel"),
        ("anna", "joanna"),
        ("17", "1717"),
        ("王小明", "王小月明"),
        ("राम", "रामायण"),
    ],
)
def test_others_are_left_alone(sought: str, text: str) -> None:
    assert not forgets(sought).matches_text(text)


def test_every_place_of_a_row_is_looked_at() -> None:
    rows = [
        row("I am Anna"),
        row(messages=(Message("system", "anna"), Message("user", "a"), Message("assistant", "b"))),
        row(messages=(Message("user", "a"), Message("assistant", "b, Anna"))),
        row(group="anna"),
        row(label="Anna"),
        row(meta={"who": "a\nAnna"}),
        row("annabel"),
        row(messages=()),
    ]
    assert forgets("anna").matches(to_table(rows)).tolist() == [True] * 6 + [False] * 2


def test_rows_are_told_apart_over_many_chunks_in_ascii_and_beyond() -> None:
    rows = [row(f"row {i} é" if i % 3 else f"row {i}") for i in range(10_000)]
    table = pa.concat_tables([to_table(rows[:777]), to_table(rows[777:])])
    sought = forgets("row 4095", "row 4096", "Row 9999")
    assert np.flatnonzero(sought.matches(table)).tolist() == [4095, 4096, 9999]
    assert np.flatnonzero(sought.matches(table.slice(4096))).tolist() == [0, 5903]


def test_an_id_names_its_row_and_not_those_that_mention_it() -> None:
    mine, other = "a" * 64, "b" * 64
    table = to_table([row(id=mine), row(id=other, meta={"like": mine})])
    sought = forgets(ids=(mine,))
    assert sought.matches(table).tolist() == [True, False]
    assert sought.matches_text(f'{{"custom_id": "{mine}"}}'), "without a column for ids"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
def test_quarantined_bytes_are_read_in_the_encodings_they_may_have(encoding: str) -> None:
    raw = "id;1\nname;Jörg Müller".encode(encoding)
    table = pa.table({"file": ["a.csv"], "raw": pa.array([raw], pa.binary())})
    assert forgets("Jörg Müller").matches(table).tolist() == [True]
    assert not forgets("Jörg Mülle").matches_text(raw)
    assert not forgets("x").matches_text(b"\xff\x00\xfe")


def test_texts_with_zero_bytes_do_not_shift_the_rows() -> None:
    rows = [row("é \0 anna"), row("é"), row("anna é")]
    assert forgets("anna").matches(to_table(rows)).tolist() == [True, False, True]


def test_many_at_once() -> None:
    names = [f"name{i} of many words in a row {i}" for i in range(3000)]
    sought = forgets(*names)
    table = to_table([row(f"so {name.upper()}!") for name in names] + [row("name1 of many")])
    assert sought.matches(table).tolist() == [True] * 3000 + [False]


def test_nothing_forgotten_matches_nothing(tmp_path: Path) -> None:
    none = Tombstones.load(LocalStore(tmp_path))
    assert not none.matches(to_table([row()])).any()
    assert none.digest == Tombstones(b"another salt").digest


def test_what_has_no_word_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError, match="Number 2 ") as refused:
        forgets("Anna", "?!#")
    assert "?!#" not in str(refused.value)


def test_a_tombstone_comes_back_and_does_not_tell(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    sought = Tombstones.of(salt_of(store, create=True), ["Anna Smith"], ["a" * 64])
    key = bury(store, sought, ["c" * 64])
    assert bury(store, sought, ["c" * 64]) == key
    loaded = Tombstones.load(store)
    assert loaded.digest == sought.digest
    assert loaded.matches_text("by anna smith")
    assert not loaded.matches_text("c" * 64), "a link forbids nothing"
    assert links_of(store, sought.digest) == {"c" * 64}
    kept = b"".join(store.get_bytes(k) for k in store.keys_under(PREFIX)).lower()
    assert b"anna" not in kept
    assert b"smith" not in kept


def test_requests_add_up_and_the_digest_tells(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    salt = salt_of(store, create=True)
    digests = [Tombstones.load(store).digest]
    for name in ("anna", "bob"):
        bury(store, Tombstones.of(salt, [name]), [])
        digests.append(Tombstones.load(store).digest)
    assert len(set(digests)) == 3
    both = Tombstones.load(store)
    assert both.matches(to_table([row("anna"), row("bob"), row("eve")])).tolist() == [1, 1, 0]


def test_another_store_keeps_another_form(tmp_path: Path) -> None:
    salts = [salt_of(LocalStore(tmp_path / name), create=True) for name in ("a", "b")]
    assert len(set(salts)) == 2
    first, second = (Tombstones.of(salt, ["anna"]).phrases for salt in salts)
    assert not first & second


def test_a_dry_run_leaves_no_salt(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert len(salt_of(store, create=False)) == 32
    assert list(store.keys_under("")) == []


def test_an_altered_tombstone_is_an_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = bury(store, Tombstones.of(salt_of(store, create=True), ["anna"]), [])
    record = json.loads(store.get_bytes(key))
    store.put_bytes(key, json.dumps(record | {"phrases": []}).encode())
    with pytest.raises(StorageError, match="corrupt"):
        Tombstones.load(store)
