"""The review queue: rows that a person should look at, as a file that Label Studio imports."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.clean.config import PiiConfig
from tasks.clean.conflicts import Conflict
from tasks.clean.labels import LabelIssue, LossOutlier
from tasks.clean.pii.redact import redact_texts
from tasks.clean.rows import Rows

ReviewKind = Literal["conflict", "label", "loss"]

# The labelling interface that the tasks fit: paste it into a new project, then import the file.
# What comes back is a source of shape ``label_studio``.
INTERFACE = """\
<View>
  <Header value="$kind: $reason"/>
  <Text name="prompt" value="$prompt"/>
  <Header value="Answer in the data"/>
  <Text name="given" value="$answer"/>
  <Header value="Another answer"/>
  <Text name="other" value="$other"/>
  <Choices name="verdict" toName="prompt" choice="single" required="true">
    <Choice value="keep"/>
    <Choice value="correct"/>
    <Choice value="drop"/>
  </Choices>
  <TextArea name="answer" toName="prompt" rows="4" maxSubmissions="1"/>
</View>
"""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A row in doubt: its answer, the other answer that speaks against it, and why.

    ``dropped`` says whether it was left out of the data until someone has looked.
    """

    kind: ReviewKind
    id: str
    place: str
    reason: str
    prompt: str
    answer: str
    other: str
    confidence: float
    dropped: bool


def conflict_items(
    rows: Rows, conflicts: Sequence[Conflict], dropped: Collection[int]
) -> list[ReviewItem]:
    """Both sides of each contradiction, each with the other's answer."""
    items = []
    for conflict in conflicts:
        for row in conflict.rows:
            other = next(r for r in conflict.rows if r != row)
            items.append(
                _item(
                    rows,
                    row,
                    "conflict",
                    f"asks the same as {rows.place(other)} and answers differently",
                    rows.answers[other].as_py(),
                    conflict.similarity,
                    row in dropped,
                )
            )
    return items


def label_items(
    rows: Rows, issues: Sequence[LabelIssue], dropped: Collection[int]
) -> list[ReviewItem]:
    """The rows with a doubtful label, each with the label that the others suggest."""
    return [
        _item(
            rows,
            i.index,
            "label",
            f"{i.field}: {i.given!r} has probability {i.given_probability:.2f}, {i.suggested!r} "
            f"{i.suggested_probability:.2f}",
            i.suggested,
            i.suggested_probability,
            i.index in dropped,
        )
        for i in issues
    ]


def loss_items(rows: Rows, outliers: Sequence[LossOutlier]) -> list[ReviewItem]:
    """The rows whose answer surprises the base model."""
    return [
        _item(rows, o.index, "loss", f"{o.loss:.2f} nats a token, limit {o.limit:.2f}", "", 0.0)
        for o in outliers
    ]


def _item(
    rows: Rows,
    row: int,
    kind: ReviewKind,
    reason: str,
    other: str,
    confidence: float,
    dropped: bool = False,
) -> ReviewItem:
    return ReviewItem(
        kind=kind,
        id=rows.column("id")[row].as_py(),
        place=rows.place(row),
        reason=reason,
        prompt=rows.prompts[row].as_py(),
        answer=rows.answers[row].as_py(),
        other=other,
        confidence=round(confidence, 4),
        dropped=dropped,
    )


def redacted(items: Sequence[ReviewItem], config: PiiConfig) -> list[ReviewItem]:
    """The items without personal data: a review queue is shown to more people than a snapshot."""
    if not config.enabled or not items:
        return list(items)
    texts = [text for i in items for text in (i.prompt, i.answer, i.other)]
    safe = iter(redact_texts(texts, config, Counter()))
    return [replace(i, prompt=next(safe), answer=next(safe), other=next(safe)) for i in items]


def write_review(items: Sequence[ReviewItem], folder: Path) -> None:
    """``review.json`` and ``review.xml``: tasks to import and the interface they fit.

    The other answer is Label Studio's prediction, so that a reviewer can accept it with one click.
    """
    tasks = [_task(item) for item in items]
    text = json.dumps(tasks, ensure_ascii=False, indent=1)
    (folder / "review.json").write_text(text, encoding="utf-8")
    (folder / "review.xml").write_text(INTERFACE, encoding="utf-8")


def _task(item: ReviewItem) -> dict[str, Any]:
    proposal = {
        "from_name": "answer",
        "to_name": "prompt",
        "type": "textarea",
        "value": {"text": [item.other]},
    }
    prediction = {"model_version": item.kind, "score": item.confidence, "result": [proposal]}
    return {"data": asdict(item), "predictions": [prediction] if item.other else []}
