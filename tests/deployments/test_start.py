from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deployments import environment
from deployments.outcome import print_failure, print_outcome, read_summary
from deployments.start import main
from tasks.evidence import RunSummary, Score

SUMMARY = RunSummary(
    flow_run_id="run-1",
    name="tickets",
    status="completed",
    decision="blocked",
    reasons=["rouge_l: -0.10 [-0.20, -0.05]"],
    stages=[
        {"name": "clean", "state": "cached", "seconds": 1.25, "num_in": 1200, "num_out": 1100},
        {"name": "evaluate", "subject": "base", "state": "completed", "seconds": 9.0},
    ],
    metrics={
        "base": {"exact_match": Score(value=0.1, ci_low=0.05, ci_high=0.2, n=200)},
        "candidate": {"exact_match": Score(value=0.5, ci_low=0.45, ci_high=0.6, n=200)},
    },
    model={"name": "tickets", "version": "3", "alias": "champion"},
    report="somewhere/report.html",
)


@pytest.fixture(autouse=True)
def local(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "stack" not in request.fixturenames:
        monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path))


def test_a_person_reads_stages_scores_decision_and_addresses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_outcome(SUMMARY, "http://127.0.0.1:4200/runs/flow-run/run-1")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "clean cached 1.2 1,200 1,100" in lines
    assert "evaluate (base) completed 9.0 - -" in lines
    assert "exact_match 0.100 [0.050, 0.200] - 0.500 [0.450, 0.600]" in lines
    assert "Decision: blocked rouge_l: -0.10 [-0.20, -0.05]" in lines
    assert "Model tickets version 3 (champion)" in lines
    assert "Report somewhere/report.html" in lines
    assert "Prefect http://127.0.0.1:4200/runs/flow-run/run-1" in lines


def test_a_failure_is_told_in_the_stage_s_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"name": "train", "state": "failed", "seconds": 1.0, "error": "ValueError: [nan]"}
    summary = SUMMARY.model_copy(update={"stages": [failed]})
    print_failure("Failed: it broke", ["train-1: exception"], summary)
    out = capsys.readouterr().out
    assert "train: ValueError: [nan]" in out
    assert "train-1" not in out
    print_failure("Crashed: killed", ["train-1: gone"], None)
    assert "train-1: gone" in capsys.readouterr().out


def test_a_summary_is_read_back_or_absent(tmp_path: Path) -> None:
    assert read_summary("run-1") is None
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(SUMMARY.model_dump_json())
    assert read_summary("run-1") == SUMMARY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a mapping"),
        ("name: x\ntrain: {epochs: -1}\n", "train.epochs"),
        ("name: x\ntypo: 1\n", "typo"),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_starts(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    assert main([str(file)]) == 2
    told = capsys.readouterr().err
    assert str(file) in told
    assert message in told
    assert "Traceback" not in told


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.integration
def test_a_failed_run_exits_1_with_the_reason(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = environment.home() / "deployments" / "configs" / "sample.yaml"
    config = yaml.safe_load(sample.read_text())
    config["ingest"]["sources"][0]["path"] = "nowhere.csv"
    file = tmp_path / "nowhere.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main([str(file)]) == 1
    out = capsys.readouterr().out
    assert "run: Running" in out
    assert "The run failed." in out
    assert "'nowhere.csv': no such file" in out
