"""The page holds together for every outcome, refers to nothing and trusts no text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from tasks.evidence import Comparison, RunSummary
from tasks.report.html import render_page
from tasks.report.story import AnswerRow, CheckStory, Story, TrainingStory

AT = datetime(2026, 1, 5, 14, 3, tzinfo=UTC)
SECTIONS = ["metrics", "slices", "answers", "data", "training", "timings", "lineage"]
OUTCOMES = ["promoted", "canary", "blocked", "inconclusive", "no_change", "failed"]
VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></svg></body>{{ 7 * 7 }}{% raw %}",
    "\u202eevil \U0001f4a9 中文 \ud800 \x00\x1b[31m",
    "w" * 30_000,
    '{"<b>": "</dd><script>\\ud800"}',
]
Summarise = Callable[..., RunSummary]
Log = Callable[..., dict[str, Any]]
Train = Callable[..., TrainingStory]


class Page(HTMLParser):
    """Checks that every tag is closed in turn, and keeps what matters of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"doubled attribute in {self.get_starttag_text()}"
        self.tags.append((tag, found))
        if tag in ("section", "header"):
            self._section = found.get("id") or tag
            self.sections[self._section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag in ("section", "header"):
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += data


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_renders_whole_and_small(
    outcome: str, summarise: Summarise, story: Story
) -> None:
    text = render_page(summarise(outcome), story, AT)
    page = Page(text)
    assert list(page.sections) == ["header", *SECTIONS]
    assert len(text.encode("utf-8")) < 200_000
    badge = re.search(r'<p class="badge">(.*?)</p>', text)
    assert badge is not None
    assert badge[1] == outcome.replace("_", " ")
    assert f'<header class="tone-{outcome}">' in text


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_page_refers_to_nothing_outside_itself(
    outcome: str, summarise: Summarise, story: Story
) -> None:
    lineage = {"tracking_uri": "http://127.0.0.1:5000"}
    text = render_page(summarise(outcome, lineage=lineage), story, AT)
    assert "http://127.0.0.1:5000" in text
    for tag, attributes in Page(text).tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "base", "form"}
        assert not {"src", "href", "srcset", "action", "data"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", text)


def test_header_tells_the_decision_the_deciding_reason_first(
    summarise: Summarise, story: Story
) -> None:
    header = Page(render_page(summarise("blocked"), story, AT)).sections["header"]
    assert "support-tickets" in header
    assert "amber-heron · 2026-01-05 14:03 UTC · 14 min 28 s" in header
    assert "did not pass the gate" in header
    assert header.index("json_validity failed") < header.index("exact_match inconclusive")
    assert header.index("exact_match inconclusive") < header.index("field_f1 passed")


def test_metrics_show_each_contestant_and_each_verdict_in_words(
    summarise: Summarise, story: Story
) -> None:
    metrics = Page(render_page(summarise("blocked"), story, AT)).sections["metrics"]
    for word in ("Base", "champion", "candidate", "few-shot"):
        assert word.lower() in metrics.lower()
    assert "0.810 [0.750, 0.870]" in metrics
    assert "−0.055 [−0.085, −0.025]" in metrics
    assert "may lose at most 0.02" in metrics
    for verdict in ("passed", "failed", "inconclusive"):
        assert verdict in metrics
    assert "Judge: not run (no ANTHROPIC_API_KEY in the environment)." in metrics
    assert "reference" not in metrics


@pytest.mark.parametrize(
    ("judge", "text"),
    [
        ("run", "Judge: run; grades from 1 to 5."),
        ("not configured", "Judge: not run (not configured)."),
        ("not run", "Judge: not run."),
    ],
)
def test_judge_is_told(judge: str, text: str, summarise: Summarise) -> None:
    page = Page(render_page(summarise("promoted", judge=judge), Story(), AT))
    assert text in page.sections["metrics"]


def test_sections_tell_the_story(summarise: Summarise, story: Story) -> None:
    sections = Page(render_page(summarise("promoted"), story, AT)).sections
    assert "Of 200 golden answers: 147 better, 11 worse, 42 unchanged." in sections["answers"]
    assert "not a JSON object" in sections["answers"]
    assert "−12 quarantined" in sections["data"]
    assert "−134" in sections["data"]
    assert "production.jsonl:34" in sections["data"]
    assert "Jaccard similarity to the row that stays" in sections["data"]
    assert "9 rows are like production.jsonl:151." in sections["data"]
    assert "In doubt: 25 rows in the review queue" in sections["data"]
    assert "41.0 % !" in sections["data"]
    assert "PSI over 0.25" in sections["data"]
    assert "checkpoint chosen at step 266" in sections["training"]
    assert "evaluate (base, few-shot)" in sections["timings"]
    assert "4.9 s outside the stages" in sections["timings"]
    assert "apache-2.0" in sections["lineage"]
    assert "time / NVIDIA H200" in sections["lineage"]
    assert "learning_rate: 0.0002" in sections["lineage"]
    assert not [name for name in SECTIONS if "Not reached" in sections[name]]


def test_failed_run_says_where_and_what_it_did_not_reach(
    summarise: Summarise, story: Story
) -> None:
    told = Story(data=story.data)
    sections = Page(render_page(summarise("failed"), told, AT)).sections
    assert "stopped at train, before a decision" in sections["header"]
    assert "9.1 GiB wanted" in sections["header"]
    reached = {"header", "data", "timings", "lineage"}
    assert {name for name in sections if "Not reached" not in sections[name]} == reached


def test_cautions_stand_under_the_verdict(summarise: Summarise) -> None:
    cautions = {"discard_high": "41% of the rows were discarded; 10% to 30% are usual."}
    sections = Page(render_page(summarise("promoted", cautions=cautions), Story(), AT)).sections
    assert "discard high" in sections["header"]
    assert cautions["discard_high"] in sections["header"]


def test_run_that_failed_at_once_renders() -> None:
    bare = RunSummary(
        flow_run_id="1", name="n", status="crashed", decision=None, reasons=[], stages=[]
    )
    sections = Page(render_page(bare, Story(), AT)).sections
    assert "crashed" in sections["header"]
    assert all("Not reached." in sections[name] for name in SECTIONS)


def test_failure_after_the_decision_is_not_shown_as_its_outcome(summarise: Summarise) -> None:
    page = Page(render_page(summarise("promoted", status="failed"), Story(), AT))
    assert "The gate's decision was “promoted”, but the run stopped" in page.sections["header"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str, summarise: Summarise, story: Story) -> None:
    assert story.data is not None
    assert story.training is not None
    sample = {"reason": "gibberish", "where": text, "detail": text, "text": text}
    answers = [AnswerRow(text, text, e, "base", text, text, "worse") for e in ("a", text)]
    hostile = Story(
        data=replace(
            story.data,
            checks=[
                CheckStory("read", 9, 9, bars={text: 1}),
                CheckStory(
                    text, 9, 5, {"gibberish": 3, text: 1}, {text: 1}, None, [text], [sample]
                ),
            ],
            num_quarantined={text: 1},
            shares=[{"name": text, "low": 0.1, "high": 0.2, "achieved": 0.3}],
            review=[
                {"kind": "label", "dropped": True}
                | dict.fromkeys(("place", "reason", "prompt", "answer", "other"), text)
            ],
            drift=[{"name": text, "value": 0.1, "verdict": "none", "detail": text}],
        ),
        training=replace(story.training, figures={text: text}),
        answers=answers,
        config_yaml=text,
    )
    summary = summarise(
        "blocked",
        name=text.replace("\ud800", ""),
        reasons=[text.replace("\ud800", "")],
        lineage={"note": text.replace("\ud800", "")},
    )
    page = render_page(summary, hostile, AT)
    calm = Page(render_page(summarise("blocked"), replace(hostile, answers=[]), AT))
    tags = {tag for tag, _ in Page(page).tags}
    assert tags - {tag for tag, _ in calm.tags} <= {"article", "mark", "del", "h4"}
    assert not [a for _, a in Page(page).tags if any(name.startswith("on") for name in a)]
    assert ("{{ 7 * 7 }}" in text) == ("{{ 7 * 7 }}" in Page(page).sections["answers"])
    assert len(page.encode("utf-8")) < 1_000_000


def test_formatting_stands_in_the_data_section(summarise: Summarise, story: Story) -> None:
    text = render_page(summarise("promoted"), story, AT)
    section = Page(text).sections["data"]
    assert "Tokens in a row; the limit, 512, lies outside" in section
    assert "too long, 5c1f0a77b1c2: 731 tokens, at most 512 allowed" in section
    assert "12 conversations became a row for each answer." in section
    shown = "".join(re.findall(r'<p class="tokens data">(.*?)</p>', text, re.S))
    trained = "".join(re.findall("<b>(.*?)</b>", shown))
    assert trained == "{&#34;category&#34;:·&#34;fault&#34;}&lt;|im_end|&gt;"
    assert "<span>user</span><span>↵\n</span><span>My</span><span>·lamp</span>" in shown


def test_training_section_tells_all_of_it(summarise: Summarise, story: Story) -> None:
    section = Page(render_page(summarise("promoted"), story, AT)).sections["training"]
    for words in (
        "LoRA (r 16, alpha 32, dropout 0.05) · engine trl · 4 × 2 accumulated = 8 rows a step",
        "Validation field f1",
        "checkpoint chosen by it",
        "step 266: 0.9317",
        "Planned and actual, 2 cores of an Intel Xeon",
        "learning_rate 0.0002, lora.r 16 chosen",
        "Resumed from the checkpoint of step 114.",
        "The merged model (float32) was checked against the adapter on 512 tokens",
        "time to first step",
    ):
        assert words in section
    for title in ("Learning rate", "Gradient norm", "Tokens/s", "Memory, GiB"):
        assert section.count(title) >= 1


def test_log_of_an_older_version_shows_its_curves_alone(
    summarise: Summarise, story: Story, train: Train
) -> None:
    history = [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}, {"step": 10, "eval_loss": 1.2}]
    text = render_page(
        summarise("promoted"), replace(story, training=train({"history": history}, 10)), AT
    )
    section = Page(text).sections["training"]
    assert "step 10: 1.2" in section
    assert text.count('<figure class="chart') == 1
    for words in ("Planned", "sweep", "Of this training", "rows a step"):
        assert words not in section


def test_training_that_logged_nothing_still_has_its_figures(
    summarise: Summarise, story: Story, train: Train
) -> None:
    text = render_page(summarise("promoted"), replace(story, training=train({"history": []})), AT)
    section = Page(text).sections["training"]
    assert '<figure class="chart' not in text
    assert "342" in section


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_log_stays_text(
    text: str, summarise: Summarise, story: Story, log: Log, train: Train
) -> None:
    assert story.data is not None
    nan = float("nan")
    told = log(
        **dict.fromkeys(("metric", "method", "engine"), text),
        notes=[text],
        seeds={text: text, "b": 1},
        sweep=[{"overrides": {text: {text: text}}, "value": nan, "best_step": None}],
        merge={"dtype": text},
        plan={"steps": 1, "seconds": nan, "usd": 0, "hardware": text},
    )
    told["history"].append({"step": 38, f"eval_{text}": 0.3})
    tokens = [(text, True), (text, False)]
    hostile = replace(story, data=replace(story.data, example=tokens), training=train(told))
    page = render_page(summarise("promoted"), hostile, AT)
    calm = render_page(summarise("promoted"), story, AT)
    assert {tag for tag, _ in Page(page).tags} == {tag for tag, _ in Page(calm).tags}
    assert not [a for _, a in Page(page).tags if any(name.startswith("on") for name in a)]
    assert ("{{ 7 * 7 }}" in text) == ("{{ 7 * 7 }}" in Page(page).sections["training"])
    assert len(page.encode("utf-8")) < 1_000_000


def test_long_training_and_odd_figures_are_drawn(summarise: Summarise, story: Story) -> None:
    assert story.training is not None
    history = [{"step": s, "loss": 1.0} for s in range(100_000)]
    history += [{"step": 5, "loss": float("nan")}, {"step": 6, "eval_loss": float("inf")}]
    long = replace(story.training, history=history, best_step=None, log={})
    text = render_page(summarise("promoted"), replace(story, training=long), AT)
    assert len(text) < 200_000
    curves = re.findall(r' points="([^"]*)"', text)
    assert len(curves) == 1
    assert text.count('<i class="dot train"') == 1  # what is left of it before the gap
    assert "2 values not a number" in Page(text).sections["training"]
    assert not re.search(r"[^\d., ]", "".join(curves))
    assert "checkpoint chosen" not in text


def test_the_judges_bias_by_place_and_its_calibration_are_told(summarise: Summarise) -> None:
    compared = Comparison(
        uri="c",
        digest="c",
        roles=("candidate", "champion"),
        metrics={},
        num_asked=180,
        num_contradicted=12,
        num_first=9,
    )
    page = render_page(summarise("promoted", judge="run", comparison=compared), Story(), AT)
    assert "Of 180 pairs of answers it contradicted itself in 12" in page
    assert "(9 times for what stood first)" in page
    assert "never compared with people: make calibrate-judge" in page
