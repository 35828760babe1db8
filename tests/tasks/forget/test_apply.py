"""What is applied holds: rows are matched, models marked, artifacts gone, wherever it stops."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.errors import ConfigError, StorageError
from tasks.example import to_table
from tasks.forget.apply import check_share, erase, keep_out, left_to_do, mark
from tasks.forget.records import Traces
from tasks.forget.trace import MARK, trace
from tasks.objects import LocalStore
from tasks.storage import MANIFEST, fetch, local_folder
from tasks.tombstones import PREFIX, Tombstones, links_of, salt_of
from tests.forgetting import ANNA, Build, World

DATE = "2026-01-05"


class Breaking(LocalStore):
    """A store whose process dies before the n-th change."""

    def __init__(self, root: str, break_at: int) -> None:
        super().__init__(Path(root))
        self.num_changes, self._break_at = 0, break_at

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._change()
        return super().put_bytes(key, body, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)

    def _change(self) -> None:
        if self.num_changes == self._break_at:
            raise StorageError("killed")
        self.num_changes += 1


def forget(client: MlflowClient, store: LocalStore, name: str, *, erased: bool = True) -> Traces:
    sought = Tombstones.of(salt_of(store, create=True), [ANNA])
    known = links_of(store, sought.digest)
    traces = trace(store, client, sought, known, name)
    keep_out(store, sought, traces, known)
    mark(client, traces.models, sought.digest[:12], DATE)
    if erased:
        erase(store, traces.places)
    return traces


def stages(keys: Iterable[str]) -> set[str]:
    return {key.partition("/")[0] for key in keys}


def test_her_rows_would_be_recognised_and_others_not(client: MlflowClient, world: World) -> None:
    forget(client, world.store, world.name)
    matched = Tombstones.load(world.store).matches(to_table(world.rows))
    assert matched.nonzero()[0].tolist() == [0, 3, 4]


def test_without_erase_only_tombstones_are_new(client: MlflowClient, world: World) -> None:
    before = world.listing()
    forget(client, world.store, world.name, erased=False)
    after = world.listing()
    assert before.items() <= after.items()
    assert stages(after.keys() - before.keys()) == {PREFIX.rstrip("/")}
    assert ANNA.encode() not in b"".join(after[key] for key in after.keys() - before.keys())


def test_with_erase_what_holds_her_is_gone_but_golden_rows_and_models(
    client: MlflowClient, world: World
) -> None:
    fetch(world.store, world.uris["ingest"], world.digests["ingest"])
    forget(client, world.store, world.name)
    left = set(world.store.keys_under(""))
    assert stages(left) == {"answers", "clean", "golden", "train", "runs", "tombstones"}
    assert f"clean/{world.digests['clean without']}/{MANIFEST}" in left
    assert "runs/r1/report.html" not in left
    assert "runs/r1/summary.json" in left
    assert not list((local_folder() / "cache").iterdir())
    again = trace(world.store, client, Tombstones.of(bytes(32), [ANNA]), (), world.name)
    assert {place.stage for place in again.places} == {"golden", "train"}


def test_what_only_a_person_can_do_is_said(
    client: MlflowClient, world: World, versions: dict[str, Any]
) -> None:
    traces = forget(client, world.store, world.name)
    lines = left_to_do(traces, in_clear=True, erased=True)
    assert lines[0].startswith(f"{world.name} version 1 (champion) was trained on it")
    assert "raise golden.version" in lines[1]
    assert lines[2].startswith("Source file rows.jsonl: 3 rows")
    assert f"{world.name} version {versions['lost'].version}" in lines[3]
    assert "delete the run in Prefect" in lines[4]


def test_versions_trained_on_her_are_marked_once_a_request(
    client: MlflowClient, world: World, versions: dict[str, Any]
) -> None:
    traces = forget(client, world.store, world.name, erased=False)
    for date, request in ((DATE, traces.request[:12]), ("2026-02-02", traces.request[:12])):
        assert mark(client, traces.models, request, date) == (f"{world.name} version 1",)
    tags = client.get_model_version(world.name, "1").tags
    assert tags[MARK] == f"{DATE} {traces.request[:12]}"
    mark(client, traces.models, "another", "2026-03-03")
    tags = client.get_model_version(world.name, "1").tags
    assert tags[MARK] == f"{DATE} {traces.request[:12]}; 2026-03-03 another"
    for name in ("new", "lost"):
        assert MARK not in client.get_model_version(world.name, versions[name].version).tags


def test_wherever_it_is_killed_a_repeat_comes_to_the_same_end(
    client: MlflowClient, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    whole = build(tmp_path / "whole")
    counting = Breaking(whole.store.root, break_at=-1)
    forget(client, counting, "none")
    assert counting.num_changes > 10
    for k in range(counting.num_changes):
        world = build(tmp_path / f"killed-{k}")
        with pytest.raises(StorageError, match="killed"):
            forget(client, Breaking(world.store.root, break_at=k), "none")
        forget(client, world.store, "none")
        assert world.listing() == whole.listing(), f"killed before change {k}"


def test_a_marked_version_is_still_named_when_its_data_is_erased(
    client: MlflowClient, world: World, versions: dict[str, Any]
) -> None:
    forget(client, world.store, world.name)
    again = forget(client, world.store, world.name)
    assert [(hit.version, hit.num_by_split) for hit in again.models] == [("1", {})]
    assert left_to_do(again, in_clear=False, erased=True)[0].startswith(f"{world.name} version 1")
    assert again.untraceable == [f"{world.name} version {versions['lost'].version}"]


def test_new_rows_of_the_same_person_are_added_to_the_links(
    client: MlflowClient, world: World
) -> None:
    first = forget(client, world.store, world.name)
    world.store.put_bytes("ingest/late.jsonl", ANNA.encode())
    forget(client, world.store, world.name)
    assert links_of(world.store, first.request) == first.links
    assert not world.store.size("ingest/late.jsonl")


def test_a_word_of_everybody_is_refused(client: MlflowClient, world: World) -> None:
    traces = trace(world.store, client, Tombstones.of(bytes(32), ["yes"]), (), world.name)
    with pytest.raises(ConfigError, match=r"10 of 10 rows of .* raise max_share"):
        check_share(traces, 0.5)
    check_share(traces, 1.0)
