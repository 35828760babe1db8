"""Whether a base model's chat template can be trained on, and what would be trained.

    python -m tasks.format.doctor CONFIG [ROW.json]

Reads the base model and the task of a retrain config, renders conversations of every kind, and says
of each whether its row is right. ``ROW.json`` is an example of one's own, in OpenAI's chat form
(``{"messages": [...], "tools": [...]}``), instead of the one that is shown. Exits 1 where single
questions and answers, which every data set has, cannot be trained on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from tasks.artifacts import TaskConfig
from tasks.base_model import BaseModelConfig, load_tokenizer, locate, pin, stop_ids
from tasks.errors import ConfigError, RetuneError, TemplateError
from tasks.format.config import FormatConfig
from tasks.format.render import Refusal, render
from tasks.format.statistics import tokens_of
from tasks.format.template import Conversation, Template, check_max_length
from tasks.overrides import read_sections

Turns = list[dict[str, Any]]
_USER = {"role": "user", "content": "Where is the zebra crossing?"}
_ANSWER = {"role": "assistant", "content": "It is behind the old windmill."}
_NEXT = {"role": "user", "content": "How far is that, roughly?"}
_LAST = {"role": "assistant", "content": "Some forty metres, I believe."}
_SYSTEM = {"role": "system", "content": "You are a patient walnut."}
_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "measure_distance",
                "description": "Distance between two places in metres.",
                "parameters": {
                    "type": "object",
                    "properties": {"goal": {"type": "string", "description": "Where to"}},
                    "required": ["goal"],
                },
            },
        }
    ]
)
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call12345",
            "type": "function",
            "function": {"name": "measure_distance", "arguments": {"goal": "windmill"}},
        }
    ],
}
_RESULT = {"role": "tool", "content": '{"metres": 41}', "tool_call_id": "call12345"}
_THOUGHT = {
    "role": "assistant",
    "content": "<think>\nThe windmill is old.\n</think>\n\nIt is behind the windmill.",
}
_ODD = {"role": "user", "content": "  größer, 日本語, 😀\n\n\tand a trailing space "}
# What every data set holds stands first; the rest matters only where the data has it.
PROBES: dict[str, Conversation] = {
    "one question, one answer": Conversation([_USER, _ANSWER]),
    "a system turn": Conversation([_SYSTEM, _USER, _ANSWER]),
    "several exchanges": Conversation([_SYSTEM, _USER, _ANSWER, _NEXT, _LAST]),
    "white space and all of Unicode": Conversation([_ODD, _ANSWER]),
    "an answer with its thinking": Conversation([_USER, _THOUGHT, _NEXT, _LAST]),
    "a call of a tool": Conversation([_USER, _CALL], _TOOLS),
    "a tool's answer": Conversation([_USER, _CALL, _RESULT, _ANSWER], _TOOLS),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one kind of conversation: whether its row is right, and what is to be known of it."""

    kind: str
    state: Literal["right", "wrong", "not supported"]
    detail: str


def examine(template: Template, config: FormatConfig) -> list[Finding]:
    """What the template does to every kind of conversation."""
    return [_examine(kind, probe, template, config) for kind, probe in PROBES.items()]


def _examine(
    kind: str, conversation: Conversation, template: Template, config: FormatConfig
) -> Finding:
    try:
        [rows] = render([conversation], template, config.multi_turn)
    except TemplateError as error:
        return Finding(kind, "not supported", str(error))
    if isinstance(rows, Refusal):
        return Finding(kind, "wrong", f"{rows.reason}: {rows.detail}")
    trained = sum(row.num_trained for row in rows)
    parts = [f"{trained} of {sum(len(row.input_ids) for row in rows)} tokens trained"]
    if len(rows) > 1:
        parts.append(f"a row for each of its {len(rows)} answers, since history is told otherwise")
    parts.append(f"found by {rows[0].mask_source}")
    return Finding(kind, "right", ", ".join(parts))


def coloured(conversation: Conversation, template: Template, config: FormatConfig) -> list[Text]:
    """The rows of a conversation with what is trained in green, and the rest dim."""
    [rows] = render([conversation], template, config.multi_turn)
    if isinstance(rows, Refusal):
        return [Text(f"{rows.reason}: {rows.detail}", style="bold red")]
    texts = []
    for row in rows:
        text = Text()
        for token, trained in tokens_of(row, template):
            text.append(token, style="bold black on green" if trained else "dim")
        texts.append(text)
    return texts


def read(path: Path) -> tuple[Template, FormatConfig, TaskConfig]:
    """The template and settings of a retrain config; raises ConfigError for what it cannot use."""
    values = read_sections(path)
    try:
        base = BaseModelConfig.model_validate(values.get("base_model") or {})
        config = FormatConfig.model_validate(values.get("format") or {})
        task = TaskConfig.model_validate(values.get("task") or {})
    except ValidationError as error:
        raise ConfigError(f"{path}: expected a retrain config, came {error}") from error
    check_max_length(locate(base.id, base.revision), config.max_length)
    model = pin(base)
    return Template(load_tokenizer(model), stop_ids(model)), config, task


def main(arguments: Sequence[str], console: Console) -> int:
    """Print the verdict; answers the exit status."""
    if not 1 <= len(arguments) <= 2:
        console.print("usage: python -m tasks.format.doctor CONFIG [ROW.json]", markup=False)
        return 2
    try:
        template, config, task = read(Path(arguments[0]))
        row = _row(Path(arguments[1]) if len(arguments) > 1 else None, task)
        findings = examine(template, config)
        texts = coloured(row, template, config)
    except RetuneError as error:
        console.print(Text(str(error), style="bold red"))
        return 1
    styles = {"right": "green", "wrong": "bold red", "not supported": "yellow"}
    console.print(Text(f"{template.name}: an answer ends with {template.stops}"))
    for finding in findings:
        line = Text(f"{finding.state:>14}", style=styles[finding.state])
        console.print(line.append(f"  {finding.kind}: ", "bold").append(finding.detail, "none"))
    console.print(Text("\nTrained is what stands on green:", style="bold"))
    for text in texts:
        console.print(text)
    if findings[0].state == "right":
        return 0
    console.print(Text("\nThis model cannot be trained on questions and answers.", "bold red"))
    return 1


def _row(path: Path | None, task: TaskConfig) -> Conversation:
    """The row to show: one's own, or one of the probes with the task's own system prompt."""
    if path is None:
        system = [{"role": "system", "content": task.system_prompt}] if task.system_prompt else []
        return Conversation([*system, _USER, _ANSWER])
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        tools = values.get("tools")
        turns = [{"content": "", **turn} for turn in values["messages"]]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(
            f'{path}: expected {{"messages": [{{"role": ..., "content": ...}}]}}, came {error!r}'
        ) from error
    return Conversation(turns, None if tools is None else json.dumps(tools))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
