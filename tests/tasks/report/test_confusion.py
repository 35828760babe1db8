"""Which classes are taken for which, as figures and on the page."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.report.answers import ScoredAnswer
from tasks.report.confusion import NO_CLASS, confusion
from tasks.report.html import render_page
from tasks.report.story import Story
from tests.tasks.report.conftest import Summarise

AT = datetime(2026, 1, 1, tzinfo=UTC)


def answers(*pairs: tuple[str, str]) -> list[ScoredAnswer]:
    return [
        ScoredAnswer(str(i), "p", right, "base", "x", said, 0.0, float(right == said))
        for i, (right, said) in enumerate(pairs)
    ]


SEEN = answers(
    *[("card", "card")] * 3, *[("card", " cash\n")] * 2, ("cash", "cash"), ("cash", "<i>coin")
)


def test_rows_are_right_answers_and_columns_what_was_said() -> None:
    found = confusion(SEEN)
    assert (found.labels, found.columns) == (["card", "cash"], ["card", "cash", NO_CLASS])
    assert found.counts == [[3, 2, 0], [0, 1, 1]]
    assert sum(map(sum, found.counts)) == len(SEEN)
    assert found.pairs == [("card", "cash", 2), ("cash", NO_CLASS, 1)]


def test_of_many_classes_the_most_confused_pairs_are_told() -> None:
    pairs = [(f"c{i:02}", f"c{(i + (i < 15)) % 30:02}") for i in range(30)] + [("c00", "c09")] * 4
    found = confusion(answers(*pairs))
    assert found.counts == []
    assert found.pairs[0] == ("c00", "c09", 4)
    assert len(found.pairs) == 10


def test_the_page_shows_it_escaped(summarise: Summarise) -> None:
    page = render_page(summarise("promoted"), Story(confusion=confusion(SEEN)), AT)
    assert "What the candidate takes for what" in page
    assert 'class="right" style="--share:60%">3' in page
    assert 'class="wrong" style="--share:40%">2' in page
    hostile = confusion(answers(("<script>", "x"), ("y", "<script>")))
    assert "<script>" not in render_page(summarise("promoted"), Story(confusion=hostile), AT)


def test_other_tasks_have_none(summarise: Summarise) -> None:
    assert "takes for what" not in render_page(summarise("promoted"), Story(), AT)
