"""The retrain flow on the real S3, Prefect and MLflow, with a model that trains in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from flows.retrain import retrain
from tasks import stage as stage_module
from tasks.errors import DataError, GoldenSetChangedError
from tasks.evidence import RunSummary
from tasks.looks import looks
from tasks.objects import S3Store, open_store
from tasks.storage import MANIFEST
from tests.flows.conftest import Tiny, write_rows
from tests.messages_api import StubApi, error

pytestmark = pytest.mark.integration

UPTO_GATE = [
    *("ingest", "lock_golden", "clean", "drift", "format", "train"),
    *("choose_shots", "collect_general", "generate", "measure_general", "evaluate"),
]


def states(summary: RunSummary) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in summary.stages}


def champion(name: str) -> Any:
    return MlflowClient().get_model_version_by_alias(name, "champion")


@pytest.fixture
def first(tiny: Tiny) -> RunSummary:
    """A first run, which promotes: the base model knows nothing of the answer."""
    summary = retrain(tiny())
    assert summary.decision == "promoted", summary.reasons
    return summary


def test_a_better_candidate_is_promoted_with_its_lineage(first: RunSummary, stack: Path) -> None:
    registry = {"find_champion", "heed_withdrawals", "record_parity", "promote"}
    assert set(states(first)) == {"find_sources", *UPTO_GATE, "compare", "gate", *registry}
    assert set(states(first).values()) == {"completed"}
    assert first.metrics["candidate"]["exact_match"].value == 1.0
    assert first.metrics["base"]["exact_match"].value == 0.0
    assert first.metrics["base_few_shot"]["exact_match"].n == first.metrics["base"]["exact_match"].n
    compared = {(d.metric, d.baseline) for d in first.differences if d.rule == "superiority"}
    assert compared == {("exact_match", "base"), ("exact_match", "base_few_shot")}
    version = champion(first.name)
    expected = {
        "data_digest": first.data["digest"],
        "adapter_digest": first.model["adapter_digest"],
        "flow_run_id": first.flow_run_id,
        "decision": "promoted",
    }
    assert {key: version.tags[key] for key in expected} == expected
    assert {"base_model", "config_digest", "code_digest"} <= set(version.tags)
    assert version.source == first.lineage["adapter_uri"]


def test_sealed_rows_are_opened_for_a_promotion_alone_and_must_confirm_it(tiny: Tiny) -> None:
    sealed = {"golden": {"sealed_share": 0.4}, "gate": {"min_n": 8}}
    config = tiny(**sealed)
    found = retrain(config)
    assert found.decision == "promoted", found.reasons
    num_sealed = found.data["num_sealed"]
    assert 8 <= num_sealed < 32
    assert found.metrics["candidate"]["exact_match"].n == 40 - num_sealed
    assert found.sentence.endswith(f"The {num_sealed} sealed rows confirm it.")
    confirmed = {(d.baseline, d.n) for d in found.differences if d.rows == "sealed"}
    assert confirmed == {("base", num_sealed), ("base_few_shot", num_sealed)}
    assert states(found)["confirm"] == "completed"
    store = open_store()
    opened = [look.role for look in looks(store, config.name, "golden", 1, "sealed")]
    assert sorted(opened) == ["base", "base_few_shot", "candidate"]

    # The same model again changes nothing, and looks at nothing.
    again = retrain(config)
    assert again.decision == "no_change"
    assert len(list(looks(store, config.name, "golden", 1, "sealed"))) == len(opened)

    # A candidate that is no better never sees them.
    worse = retrain(tiny(**sealed, train={"learning_rate": 1e-6, "epochs": 1}))
    assert worse.decision in {"blocked", "inconclusive"}
    assert "confirm" not in states(worse)
    assert len(list(looks(store, config.name, "golden", 1, "sealed"))) == len(opened)

    with pytest.raises(GoldenSetChangedError, match="sealed_share"):
        retrain(tiny(golden={"sealed_share": 0.2}))


def test_the_summary_is_everywhere_the_same(first: RunSummary, stack: Path) -> None:
    folder = stack / "runs" / "latest"
    local = json.loads((folder / "summary.json").read_text())
    assert local["flow_run_id"] == first.flow_run_id
    stored = json.loads(open_store().get_bytes(f"runs/{first.flow_run_id}/summary.json"))
    assert stored == local
    client = MlflowClient()
    experiment = client.get_experiment_by_name(first.name)
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.flow_run_id = '{first.flow_run_id}'"
    )
    assert len(runs) == 1
    assert runs[0].data.tags["decision"] == "promoted"
    assert runs[0].data.metrics["candidate.exact_match"] == 1.0
    table = json.loads(
        Path(client.download_artifacts(runs[0].info.run_id, "answers.json")).read_text()
    )
    said = [row[table["columns"].index("candidate")] for row in table["data"]]
    assert said == ["yes"] * first.data["num_golden"]
    page = (folder / "report.html").read_text()
    assert first.name in page
    assert first.reasons[0].split(":")[0] in page


def test_a_candidate_that_forgets_is_blocked_for_that_reason(tiny: Tiny) -> None:
    summary = retrain(tiny(evaluate={"general": {"enabled": True}}))
    assert summary.decision == "blocked", summary.reasons
    assert "is worse than the base model on general_loss" in summary.sentence
    failed = {(d.metric, d.baseline) for d in summary.differences if d.verdict == "failed"}
    assert failed == {("general_loss", "base")}
    assert summary.metrics["base"]["general_loss"].n == 40
    assert (
        summary.metrics["base_few_shot"]["general_loss"] == summary.metrics["base"]["general_loss"]
    )


def test_a_repeated_run_is_cached_and_changes_nothing(first: RunSummary, tiny: Tiny) -> None:
    version = champion(first.name).version
    second = retrain(tiny())
    assert second.decision == "no_change"
    assert {name: states(second)[name] for name in UPTO_GATE} == dict.fromkeys(UPTO_GATE, "cached")
    assert champion(first.name).version == version
    # Many looks at the golden set ask for fresh rows; the decision stays what it was.
    assert "golden_wear" not in second.cautions
    third = retrain(tiny(report={"max_models": 1}))
    assert states(third)["gate"] == "cached"
    assert third.cautions["golden_wear"].startswith("2 models were looked at on the golden set")


def test_only_the_gate_runs_when_only_its_config_changed(first: RunSummary, tiny: Tiny) -> None:
    retrain(tiny())
    again = retrain(tiny(gate={"confidence": 0.9}))
    assert states(again)["gate"] == "completed"
    assert {name: states(again)[name] for name in UPTO_GATE} == dict.fromkeys(UPTO_GATE, "cached")


def test_an_edited_stage_runs_again_and_what_it_does_not_change_stays(
    first: RunSummary, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's own tests are in tests/tasks/test_stage.py; here a stage's source is another."""
    retrain(tiny())
    real = stage_module._source_digest

    def edited(package: Path) -> str:
        return real(package) + ("edited" if package.name == "format" else "")

    monkeypatch.setattr(stage_module, "_source_digest", edited)
    again = states(retrain(tiny()))
    assert again["format"] == "completed"
    # The edit made the same tokens: there is nothing new to train on.
    assert (again["clean"], again["train"], again["gate"]) == ("cached", "cached", "cached")


def test_a_changed_setting_runs_its_stage_and_what_depends_on_it(
    first: RunSummary, tiny: Tiny
) -> None:
    again = states(retrain(tiny(train={"seed": 5})))
    assert {name: again[name] for name in ("ingest", "clean", "format")} == dict.fromkeys(
        ("ingest", "clean", "format"), "cached"
    )
    assert {name: again[name] for name in ("train", "generate", "evaluate", "gate")} == (
        dict.fromkeys(("train", "generate", "evaluate", "gate"), "completed")
    )


def test_a_deleted_artifact_is_made_again(first: RunSummary, tiny: Tiny) -> None:
    store = open_store()
    assert isinstance(store, S3Store)
    uri = next(s["uri"] for s in first.stages if s["name"] == "clean")
    key = uri.removeprefix(f"{store.root}/")
    store._client.delete_object(Bucket="retune", Key=f"{key}/{MANIFEST}")
    again = retrain(tiny())
    assert states(again)["clean"] == "completed"
    assert store.size(f"{key}/{MANIFEST}") is not None
    # The same bytes came out, so that what is made of them is still good.
    assert states(again)["train"] == "cached"


def test_a_worse_candidate_is_blocked_and_production_untouched(
    first: RunSummary, tiny: Tiny, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", ["no"] * 60, seed=3)
    before = champion(first.name)
    worse = retrain(tiny())
    assert worse.status == "completed"
    assert worse.decision == "blocked"
    assert "exact_match got worse: candidate 0.000, champion 1.000" in worse.reasons[0]
    assert "n=40" in worse.reasons[0]
    after = champion(first.name)
    assert (after.version, after.tags) == (before.version, before.tags)
    assert worse.model["version"] == before.version
    assert "promote" not in states(worse)


def test_a_judge_is_asked_where_one_is_configured(
    first: RunSummary, tiny: Tiny, api: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first.judge == "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    judged = retrain(tiny(train={"seed": 7}))
    assert judged.judge == "run"
    assert judged.metrics["candidate"]["judge"].value == 4.0
    assert judged.metrics["candidate"]["judge"].n == 40
    assert "judge" in {difference.metric for difference in judged.differences}
    # Base, alone and few-shot, and the candidate: the champion says the same, graded once.
    assert len(api.requests) == 3 * 40
    assert judged.metrics["champion"]["judge"] == judged.metrics["candidate"]["judge"]
    assert judged.metrics["candidate"]["judge_preference"].value == 0.5
    assert judged.cost["judge_usd"] == pytest.approx(120 * 6e-6)
    # The answers were there already; only their scores are new.
    parts = next(s["parts"] for s in judged.stages if s["name"] == "generate")
    assert [part["state"] for part in parts] == ["cached", "cached", "cached", "completed"]


def test_a_judge_that_was_away_is_asked_again(
    tiny: Tiny, api: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    answer = api.answer
    api.answer = lambda _: error(400)
    away = retrain(tiny())
    assert away.judge.startswith("failed: ")
    api.answer = answer
    back = retrain(tiny())
    assert back.judge == "run"
    assert states(back)["evaluate"] == "completed"
    assert states(retrain(tiny()))["evaluate"] == "cached"


def test_a_changed_golden_set_is_refused(first: RunSummary, tiny: Tiny, tmp_path: Path) -> None:
    write_rows(tmp_path / "golden.jsonl", ["yes"] * 40, seed=9)
    with pytest.raises(GoldenSetChangedError, match=r"set golden\.version to 2"):
        retrain(tiny())
    assert retrain(tiny(golden={"version": 2, "reason": "mended"})).status == "completed"


def test_bad_data_fails_at_once_and_says_where(
    tiny: Tiny, tmp_path: Path, stack: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\nnot json\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2 .*expected a JSON object"):
        retrain(tiny())
    summary = json.loads((stack / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["decision"] is None
    assert summary["stages"][-1]["name"] == "ingest"
    assert summary["stages"][-1]["state"] == "failed"
    assert "max_quarantined_share" in summary["reasons"][0]
    assert "Retry" not in caplog.text, "bad data was retried"


def test_a_missing_base_model_is_named(tiny: Tiny) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*nowhere"):
        retrain(tiny(base_model={"id": "nowhere"}))


def test_two_models_do_not_see_each_other(first: RunSummary, tiny: Tiny) -> None:
    other = retrain(tiny(name=f"{first.name}-b"))
    assert other.decision == "promoted"
    assert champion(first.name).tags["flow_run_id"] == first.flow_run_id
