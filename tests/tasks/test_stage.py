"""What belongs in a stage's cache key, and what does not."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from prefect.states import exception_to_failed_state

from tasks import stage as stages
from tasks.artifacts import Adapter, BaseModelRef, Contestant, RawSnapshot, Record, fingerprint
from tasks.errors import DataError
from tasks.stage import stage

BASE = BaseModelRef(id="base", digest="b" * 64)


class Knob(Record):
    turn: int = 1


@stage("demo", timeout_seconds=5, libraries=("pydantic",))
def demo(raw: RawSnapshot, knob: Knob) -> RawSnapshot:
    """A stage for these tests."""
    return raw


def snapshot(digest: str = "d", uri: str = "s3://bucket/x") -> RawSnapshot:
    return RawSnapshot(uri=uri, digest=digest, num_quarantined=0, num_by_source={})


def key(raw: RawSnapshot, turn: int = 1) -> str:
    return demo.cache_key({"raw": raw, "knob": Knob(turn=turn)})


def test_the_key_follows_digest_and_config_and_nothing_else() -> None:
    assert key(snapshot()) == key(snapshot(uri="s3://elsewhere/y"))
    assert key(snapshot()) != key(snapshot(digest="e"))
    assert key(snapshot()) != key(snapshot(), turn=2)
    assert key(snapshot()).startswith("demo-")


def test_its_runs_bear_what_they_are_worth_giving() -> None:
    from tasks.evaluate.task import generate_answers
    from tasks.gate.task import gate
    from tasks.train.task import train_one

    tags = {s.name: s._task.tags for s in (train_one, generate_answers, gate)}
    assert tags == {"train": {"gpu"}, "generate": {"gpu"}, "gate": {"cpu"}}


def test_a_contestant_is_its_weights_whatever_its_role() -> None:
    champion, candidate = (
        Contestant(role=role, base_model=BASE, adapter_digest="a")
        for role in ("champion", "candidate")
    )
    assert fingerprint(champion) == fingerprint(candidate)
    assert fingerprint(champion) != fingerprint(Contestant(role="base", base_model=BASE))


def test_an_adapter_is_its_weights_whatever_its_log() -> None:
    common = {"base_model": BASE, "adapter_digest": "a", "num_steps": 1, "best_step": 1}
    common |= {"training_run_id": "r", "train_loss": 1.0, "validation_loss": 1.0}
    fast, slow = (
        Adapter(uri=f"s3://b/{seconds}", digest=seconds, seconds=1, tokens_per_second=1, **common)
        for seconds in ("1", "2")
    )
    assert fingerprint(fast) == fingerprint(slow)


def source_digest(folder: Path, body: str, **floor: str) -> str:
    package = folder / "demo"
    package.mkdir(parents=True)
    (package / "task.py").write_text(body)
    for name, source in floor.items():
        (folder / f"{name}.py").write_text(source)
    return stages._source_digest(package, folder)


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ("def f() -> int:\n    return 1\n", True),
        ("# a comment\ndef f() -> int:\n    return 1  # why\n", True),
        ('"""A module."""\n\n\ndef f() -> int:\n    """Docs."""\n    return 1\n', True),
        ("def f() -> int:\n    return 2\n", False),
        ("def f() -> int:\n    y = 0\n    return 1\n", False),
    ],
)
def test_comments_cost_nothing_and_code_does(tmp_path: Path, body: str, same: bool) -> None:
    before = source_digest(tmp_path / "a", "def f() -> int:\n    return 1\n")
    assert (source_digest(tmp_path / "b", body) == before) is same


IMPORTING = "def f() -> int:\n    from tasks.words import count\n    return count()\n"


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"words": "from tasks import errors\nx = 2\n"}, False),
        ({"errors": "x = 2\n"}, False),
        ({"scores": "x = 2\n"}, True),
        ({"stage": "x = 2\n"}, True),
    ],
    ids=["imported", "imported by it", "not imported", "only when it runs"],
)
def test_of_the_shared_floor_what_a_stage_imports_belongs_to_it(
    tmp_path: Path, changed: dict[str, str], same: bool
) -> None:
    floor = {"words": "from tasks import errors\nfrom tasks.stage import stage\nx = 1\n"}
    floor |= dict.fromkeys(("errors", "scores", "stage"), "x = 1\n")
    before = source_digest(tmp_path / "a", IMPORTING, **floor)
    assert (source_digest(tmp_path / "b", IMPORTING, **(floor | changed)) == before) is same


def test_files_of_one_name_in_several_folders_all_count(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        package = tmp_path / str(number) / "demo"
        for folder in ("a", "b"):
            (package / folder).mkdir(parents=True)
            (package / folder / "job.py").write_text(f"x = {number if folder == 'a' else 0}\n")
        digests.add(stages._source_digest(package, package.parent))
    assert len(digests) == 2


def test_a_parser_that_miscounts_among_threads_costs_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect runs a task without a key uncached: a training of hours would be lost for nothing."""
    before = source_digest(tmp_path / "a", "x = 1\n")
    parse, failing = ast.parse, [True, True]

    def miscounting(source: str) -> ast.Module:
        if failing and failing.pop():
            raise SystemError("AST constructor recursion depth mismatch (before=78, after=92)")
        return parse(source)

    monkeypatch.setattr(ast, "parse", miscounting)
    assert source_digest(tmp_path / "b", "x = 1\n") == before
    failing[:] = [True] * 100
    with pytest.raises(SystemError, match="recursion depth mismatch"):
        source_digest(tmp_path / "c", "x = 1\n")


def test_only_what_passes_is_retried() -> None:
    def worth(error: Exception, name: str | None = None) -> bool:
        state = asyncio.run(exception_to_failed_state(error, name=name or "Failed"))
        return stages._is_worth_retrying(demo._task, None, state)  # type: ignore[arg-type]

    assert worth(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    assert worth(TimeoutError("read"))
    assert not worth(DataError("row 3"))
    assert not worth(TimeoutError("the stage's own"), "TimedOut")


def test_the_code_digest_covers_all_stages() -> None:
    assert len(stages.code_digest()) == 64
