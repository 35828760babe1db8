"""What a template's ``{% generation %}`` marks call the assistant's: own marks, or TRL's.

TRL ships templates with marks for models whose own have none. They are used only for rows that
they render to the very same text; some change what is rendered (Qwen3's keeps earlier thinking).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from tasks.format.template import Conversation, Template

MaskSource = Literal["own marks", "TRL's marks", "prefixes"]
Span = tuple[int, int]
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def mask_source(template: Template, tools: str | None = None) -> MaskSource:
    """Where the marks come from for this template."""
    source = template.source(tools)
    if _MARK.search(source):
        return "own marks"
    return "TRL's marks" if training_template(source) else "prefixes"


def marked(conversation: Conversation, text: str, encoding: Any, template: Template) -> list[Span]:
    """The spans of tokens inside marks; none where marks are missing or render another text.

    ``encoding`` is the ``tokenizers.Encoding`` of ``text``, the own template's rendering.
    """
    own = template.source(conversation.tools)
    source = own if _MARK.search(own) else training_template(own)
    if source is None:
        return []
    tools = None if conversation.tools is None else json.loads(conversation.tools)
    try:
        rendered: Any = render_jinja_template(
            [conversation.turns],
            tools=tools,
            chat_template=source,
            return_assistant_tokens_mask=True,
            **template.tokenizer.special_tokens_map,
        )
    except (jinja2.TemplateError, TypeError):  # TRL's is stricter than the own one
        return []
    [own_text], [spans] = rendered
    return _tokens(spans, encoding) if own_text == text else []


@lru_cache(maxsize=8)
def training_template(source: str) -> str | None:
    """TRL's template with marks for the template ``source``, if TRL has one.

    What ``trl.get_training_chat_template`` answers for a template without marks; read from its
    files, because importing it loads torch and takes seconds.
    """
    spec = find_spec("trl")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "chat_templates"
    for file in sorted(folder.glob("*_training.jinja")):
        original = folder / file.name.replace("_training", "")
        if original.is_file() and original.read_text(encoding="utf-8") == source:
            return file.read_text(encoding="utf-8")
    return None


def _tokens(spans: Sequence[Span], encoding: Any) -> list[Span]:
    """Spans of characters as spans of tokens; empty ones, of an empty answer, are left out."""
    tokens = []
    for start, end in spans:
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if end > start and first is not None and last is not None:
            tokens.append((first, last + 1))
    return tokens
