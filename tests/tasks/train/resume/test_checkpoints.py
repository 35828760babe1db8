"""Checkpoints are stored without pickle, and the newest whole one is what comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from botocore.exceptions import ClientError
from transformers.trainer_pt_utils import safe_globals

from tasks.errors import StorageError
from tasks.objects import LocalStore
from tasks.storage import MANIFEST
from tasks.train.resume.checkpoints import CheckpointStore, Restored
from tasks.train.resume.codec import decode, encode
from tests.checkpoints import is_pickle, weight_of, write_checkpoint

KEY = "0123abcd"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def save(
    store: LocalStore, tmp_path: Path, step: int, best: int | None = None, mark: float = 0.0
) -> Path:
    """Store a checkpoint; answers its folder in the store."""
    made = tmp_path / "made"
    shutil.rmtree(made, ignore_errors=True)
    encode(write_checkpoint(made, step, best, mark), made / "safe")
    digest = CheckpointStore(store, KEY).save(made / "safe", step)
    return Path(store.root) / "checkpoints" / KEY / f"step-{step:08d}" / digest


def restored(store: LocalStore, into: Path) -> tuple[Restored | None, list[str]]:
    checkpoints = CheckpointStore(store, KEY)
    return checkpoints.restore(into), checkpoints.notes


def flip_byte(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def load(path: Path) -> object:
    with safe_globals():
        return torch.load(path, weights_only=True)


# The folder's safe form


def test_a_decoded_folder_holds_the_same_values(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path / "made", 20, 20)
    encode(made, tmp_path / "safe")
    decode(tmp_path / "safe", tmp_path / "back")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert str(load(tmp_path / "back" / name)) == str(load(made / name))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (made / name).read_bytes()


def test_the_safe_form_holds_no_pickle_no_tokenizer_and_no_path(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path / "made", 20, 10)
    assert is_pickle(made / "optimizer.pt")
    encode(made, tmp_path / "safe")
    files = [path for path in (tmp_path / "safe").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.json",
        *(f"{n}.{s}" for n in ("optimizer.pt", "scheduler.pt") for s in ("json", "safetensors")),
        *(f"rng_state.pth.{s}" for s in ("json", "safetensors")),
    }
    for path in files:
        assert not is_pickle(path)
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_states_of_several_processes_are_kept(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path / "made", 20)
    for rank in (0, 1):
        torch.save({"cpu": torch.tensor([rank])}, made / f"rng_state_{rank}.pth")
    encode(made, tmp_path / "safe")
    decode(tmp_path / "safe", tmp_path / "back")
    assert load(tmp_path / "back" / "rng_state_1.pth") == {"cpu": torch.tensor([1])}


@pytest.mark.parametrize(
    "name", ["optimizer.bin", "pytorch_model_fsdp_0/__0_0.distcp", "global_step3/zero.ckpt"]
)
def test_what_may_be_a_pickle_is_refused_by_name(name: str, tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path / "made", 20)
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).write_bytes(b"\x80\x04.")
    with pytest.raises(StorageError, match=f"{name} of checkpoint-20.*FSDP and DeepSpeed"):
        encode(made, tmp_path / "safe")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.unlink, ("x",)  # type: ignore[return-value]


@pytest.mark.parametrize("value", [Evil(), {1, 2}], ids=["code", "set"])
def test_a_value_that_torch_or_the_codec_will_not_take_is_refused(
    value: object, tmp_path: Path
) -> None:
    made = write_checkpoint(tmp_path / "made", 20)
    torch.save({"state": value}, made / "scheduler.pt")
    with pytest.raises(StorageError, match=r"scheduler\.pt"):
        encode(made, tmp_path / "safe")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path / "made", 20)
    cut(made / "optimizer.pt")
    with pytest.raises(StorageError, match=r"optimizer.pt cannot be loaded"):
        encode(made, tmp_path / "safe")


# Storing and restoring


def test_nothing_stored_is_nothing_to_resume_from(store: LocalStore, tmp_path: Path) -> None:
    assert restored(store, tmp_path / "out") == (None, [])


def test_the_newest_comes_back_with_its_best(store: LocalStore, tmp_path: Path) -> None:
    for step, best in ((10, 10), (20, 20), (30, 20), (100, 20)):
        save(store, tmp_path, step, best)
    out = tmp_path / "out"
    found, notes = restored(store, out)
    assert found == Restored(step=100, folder=out / "checkpoint-100", best_step=20)
    assert notes == []
    assert weight_of(out / "checkpoint-100") == 100
    assert weight_of(out / "checkpoint-20") == 20
    state = json.loads((out / "checkpoint-100" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(out / "checkpoint-20")
    assert state["best_global_step"] == 20
    assert load(out / "checkpoint-100" / "scheduler.pt") == {"last_epoch": 100, "_last_lr": [0.1]}
    assert not (out / "checkpoint-20" / "optimizer.pt").exists()
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-100", "checkpoint-20"]


def test_one_that_is_the_best_itself_points_to_itself(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 20, 20)
    restored(store, tmp_path / "out")
    state = json.loads((tmp_path / "out" / "checkpoint-20" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "out" / "checkpoint-20")


def test_one_before_any_validation_comes_back(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 5)
    found, _ = restored(store, tmp_path / "out")
    assert found is not None
    assert found.best_step is None


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped weights": (lambda f: flip_byte(f / "adapter_model.safetensors"), "is damaged: SHA"),
    "flipped optimizer": (lambda f: flip_byte(f / "optimizer.pt.safetensors"), "is damaged: SHA"),
    "cut": (lambda f: cut(f / "rng_state.pth.json"), "is damaged: SHA"),
    "file gone": (lambda f: (f / "scheduler.pt.json").unlink(), "does not exist"),
    "flipped manifest": (lambda f: flip_byte(f / MANIFEST), "manifest.json is damaged"),
    "empty manifest": (lambda f: (f / MANIFEST).write_text(""), "manifest.json is damaged"),
    "manifest gone": (lambda f: (f / MANIFEST).unlink(), "never completed"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    damage: Callable[[Path], None], why: str, store: LocalStore, tmp_path: Path
) -> None:
    save(store, tmp_path, 10, 10)
    damage(save(store, tmp_path, 20, 10))
    found, notes = restored(store, tmp_path / "out")
    assert found is not None
    assert found.step == 10
    assert len(notes) == 1
    assert notes[0].startswith("The checkpoint of step 20 was passed over: ")
    assert why in notes[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-10"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("optimizer.pt.json", '["pickle", "x"]'),
        ("trainer_state.json", "[]"),
        ("trainer_state.json", "{"),
        ("trainer_state.json", None),
        ("optimizer.pt.safetensors", None),
    ],
)
def test_one_whose_content_cannot_be_read_falls_back(
    name: str, body: str | None, store: LocalStore, tmp_path: Path
) -> None:
    save(store, tmp_path, 10)
    encode(write_checkpoint(tmp_path / "bad", 20), tmp_path / "safe")
    (tmp_path / "safe" / name).unlink()
    if body is not None:
        (tmp_path / "safe" / name).write_text(body)
    CheckpointStore(store, KEY).save(tmp_path / "safe", 20)
    found, notes = restored(store, tmp_path / "out")
    assert found is not None
    assert found.step == 10
    assert name.removesuffix(".safetensors").removesuffix(".pt.json") in notes[0]


def test_all_damaged_is_nothing_to_resume_from(store: LocalStore, tmp_path: Path) -> None:
    for step in (10, 20):
        flip_byte(save(store, tmp_path, step) / "adapter_model.safetensors")
    found, notes = restored(store, tmp_path / "out")
    assert found is None
    assert [note.split(" was ")[0] for note in notes] == [
        "The checkpoint of step 20",
        "The checkpoint of step 10",
    ]


def test_a_damaged_one_that_is_made_again_is_whole_again(store: LocalStore, tmp_path: Path) -> None:
    flip_byte(save(store, tmp_path, 20) / "adapter_model.safetensors")
    assert restored(store, tmp_path / "a")[0] is None
    save(store, tmp_path, 20)
    assert restored(store, tmp_path / "b")[0] is not None


def test_one_without_its_best_falls_back_further(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10, 10)
    flip_byte(save(store, tmp_path, 20, 20) / "adapter_model.safetensors")
    save(store, tmp_path, 30, 20)
    found, notes = restored(store, tmp_path / "out")
    assert found is not None
    assert found.step == 10
    assert "step 30 was passed over: its best checkpoint, of step 20" in notes[0]
    assert "step 20 was passed over" in notes[1]


def test_the_best_is_that_of_the_same_attempt(store: LocalStore, tmp_path: Path) -> None:
    """Two attempts stored step 20; only one of them went on to step 30."""
    save(store, tmp_path, 10, 10, mark=1)
    save(store, tmp_path, 20, 20, mark=2)
    kept = save(store, tmp_path, 20, 20, mark=1)
    save(store, tmp_path, 30, 20, mark=1)
    found, notes = restored(store, tmp_path / "a")
    assert found is not None
    assert (found.step, notes) == (30, [])
    shutil.rmtree(kept)
    found, notes = restored(store, tmp_path / "b")
    assert found is not None
    assert (found.step, found.best_step) == (20, 20)
    assert "of another attempt" in notes[0]


def test_other_keys_are_other_trainings(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10)
    for key in ("0123", "0123abcde"):
        assert CheckpointStore(store, key).restore(tmp_path / "out") is None
        CheckpointStore(store, key).delete_all()
    assert restored(store, tmp_path / "out")[0] is not None


# What fails and passes


def client_error(code: str, status: int) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


class Failing(LocalStore):
    """A store whose reads, writes and deletions fail from the n-th on."""

    def __init__(self, root: Path, error: Exception, healthy: int = 0) -> None:
        super().__init__(root)
        self._error = error
        self._healthy = healthy

    def _count(self) -> None:
        if self._healthy == 0:
            raise self._error
        self._healthy -= 1

    def put(self, key: str, source: Path) -> None:
        self._count()
        super().put(key, source)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._count()
        return super().put_bytes(key, body, if_absent=if_absent)

    def get(self, key: str, target: Path) -> None:
        self._count()
        super().get(key, target)

    def get_bytes(self, key: str) -> bytes:
        self._count()
        return super().get_bytes(key)

    def keys_under(self, prefix: str) -> Iterator[str]:
        self._count()
        return super().keys_under(prefix)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


@pytest.mark.parametrize(
    "error",
    [
        client_error("InternalError", 500),
        client_error("SlowDown", 503),
        StorageError("Could not read: AccessDenied."),
        StorageError("Could not write: No space left on device."),
    ],
    ids=["500", "slow", "denied", "full"],
)
@pytest.mark.parametrize("healthy", [0, 1, 2, 5])
def test_a_store_that_fails_is_not_taken_for_a_damaged_checkpoint(
    error: Exception, healthy: int, store: LocalStore, tmp_path: Path
) -> None:
    save(store, tmp_path, 10, 10)
    save(store, tmp_path, 20, 10)
    with pytest.raises(type(error)):
        restored(Failing(Path(store.root), error, healthy), tmp_path / "out")
    found, _ = restored(store, tmp_path / "out")
    assert found is not None
    assert found.step == 20


def test_a_kill_at_any_write_leaves_the_one_before_or_the_new_one(tmp_path: Path) -> None:
    outcomes = set()
    for healthy in range(40):
        root = tmp_path / str(healthy)
        save(LocalStore(root), tmp_path, 10, 10)
        encode(write_checkpoint(root / "new", 20, 10), root / "safe")
        breaking = Failing(root, StorageError("killed"), healthy)
        try:
            CheckpointStore(breaking, KEY).save(root / "safe", 20)
            CheckpointStore(breaking, KEY).prune()
            completed = True
        except StorageError:
            completed = False
        found, _ = restored(LocalStore(root), tmp_path / f"out-{healthy}")
        assert found is not None
        assert weight_of(found.folder) == found.step
        assert weight_of(tmp_path / f"out-{healthy}" / "checkpoint-10") == 10
        outcomes.add((found.step, completed))
        if completed:
            break
    assert outcomes == {(10, False), (20, False), (20, True)}


def test_a_kill_while_old_ones_are_deleted_leaves_what_is_kept(tmp_path: Path) -> None:
    for healthy in range(1, 60):
        root = tmp_path / str(healthy)
        for step in (10, 20, 30, 40):
            save(LocalStore(root), tmp_path, step, 20)
        try:
            CheckpointStore(Failing(root, StorageError("killed"), healthy), KEY).prune()
            completed = True
        except StorageError:
            completed = False
        found, notes = restored(LocalStore(root), tmp_path / f"out-{healthy}")
        assert found is not None
        assert (found.step, found.best_step, notes) == (40, 20, [])
        if completed:
            return
    pytest.fail("never completed")


# Deleting


def steps(store: LocalStore) -> list[int]:
    return sorted({int(key.split("/")[2].removeprefix("step-")) for key in store.keys_under("")})


def test_the_newest_two_and_the_best_of_each_are_kept(store: LocalStore, tmp_path: Path) -> None:
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 40), (50, 20), (60, 40), (70, 40)):
        save(store, tmp_path, step, best)
    CheckpointStore(store, KEY).prune(keep_steps=[30])
    assert steps(store) == [30, 40, 60, 70]
    save(store, tmp_path, 80, 70)
    CheckpointStore(store, KEY).prune()
    assert steps(store) == [40, 70, 80]


def test_one_that_is_not_complete_does_not_count(store: LocalStore, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(store, tmp_path, step)
    (save(store, tmp_path, 40) / MANIFEST).unlink()
    (save(store, tmp_path, 15) / MANIFEST).unlink()
    CheckpointStore(store, KEY).prune()
    assert steps(store) == [20, 30, 40]  # that of step 40 may be on its way


def test_a_single_one_is_never_deleted(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10)
    CheckpointStore(store, KEY).prune()
    assert steps(store) == [10]


def test_after_success_nothing_is_left(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10)
    (save(store, tmp_path, 20) / MANIFEST).unlink()
    CheckpointStore(store, KEY).delete_all()
    assert list(store.keys_under("")) == []


def test_what_cannot_be_deleted_is_noted(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10)
    checkpoints = CheckpointStore(Failing(Path(store.root), client_error("SlowDown", 503)), KEY)
    checkpoints.delete_all()
    assert "could not be deleted" in checkpoints.notes[0]


# Two at once


def test_two_trainings_at_once_leave_each_other_whole(store: LocalStore, tmp_path: Path) -> None:
    def train(attempt: int) -> None:
        checkpoints = CheckpointStore(store, KEY)
        for step in range(10, 80, 10):
            folder = tmp_path / f"attempt-{attempt}"
            best = step if step < 40 else 30
            encode(write_checkpoint(folder, step, best, mark=attempt), folder / f"safe-{step}")
            checkpoints.save(folder / f"safe-{step}", step)
            checkpoints.prune()
            found = checkpoints.restore(folder / "out")
            assert found is None or weight_of(found.folder) == found.step

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(train, attempt) for attempt in (1, 2)]:
            future.result()
    found, _ = restored(store, tmp_path / "out")
    assert found is not None
    assert (found.step, weight_of(tmp_path / "out" / "checkpoint-30")) == (70, 30)


def test_one_training_succeeds_while_another_goes_on(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path, 10)
    CheckpointStore(store, KEY).delete_all()
    save(store, tmp_path, 20, 10)
    found, notes = restored(store, tmp_path / "out")
    assert found is None
    assert "step 10, is of no use: it is not in the store" in notes[0]
