"""What a model behind Anthropic's Messages API answers to one prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, Field, ValidationError

from tasks.anthropic_client import sampling
from tasks.errors import ConfigError, is_transient
from tasks.evaluate.hosted import AnswerFailure, Ask, HostedAnswer, Prompt

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import MessageParam

_ACCOUNT = frozenset({401, 403, 404})  # the key, the account or the model, whatever the prompt


class _Usage(BaseModel):
    output_tokens: int = Field(ge=0)


class _Reply(BaseModel):
    content: list[dict[str, Any]]
    stop_reason: str | None = None
    usage: _Usage


def ask_messages(model_id: str, client: anthropic.Anthropic, max_tokens: int) -> Ask:
    """What asks the model, at temperature 0 where it accepts one; raises as ``hosted.ask_chat``."""
    import anthropic

    def ask(prompt: Prompt) -> HostedAnswer | AnswerFailure | Exception:
        system = "\n\n".join(m["content"] for m in prompt if m["role"] == "system")
        turns = [m for m in prompt if m["role"] != "system"]
        if any("tool_calls" in m or m["role"] == "tool" for m in turns):
            return AnswerFailure(
                "invalid_request", "a conversation with tools is not put to the Messages API"
            )
        try:
            raw = client.messages.with_raw_response.create(
                model=model_id,
                max_tokens=max_tokens,
                system=system or anthropic.omit,
                messages=cast("list[MessageParam]", turns),
                **sampling(0.0),
            )
            return _answer(_Reply.model_validate_json(raw.text()))
        except ValidationError as error:
            return AnswerFailure("malformed", str(error.errors(include_url=False)[0]["msg"]))
        except anthropic.APIStatusError as error:
            if error.status_code in _ACCOUNT:
                raise ConfigError(
                    f"the answer of {model_id} at {client.base_url}: {error.status_code}. Check "
                    "ANTHROPIC_API_KEY, and evaluate.reference.model and base_url."
                ) from None  # the original may repeat the key
            if is_transient(error):
                return error
            return AnswerFailure("invalid_request", f"{error.status_code} {error.message}")
        except anthropic.APIError as error:
            return error

    return ask


def _answer(reply: _Reply) -> HostedAnswer | AnswerFailure:
    text = "".join(str(b.get("text", "")) for b in reply.content if b.get("type") == "text")
    if reply.stop_reason == "refusal":
        return AnswerFailure("refusal", "the model refused")
    is_cut = reply.stop_reason == "max_tokens"
    if not text and is_cut:
        return AnswerFailure("cut_off", "max_tokens was reached before anything was said")
    if not text:
        return AnswerFailure("malformed", f"no text (stop reason {reply.stop_reason})")
    return HostedAnswer(text, reply.usage.output_tokens, is_cut)
