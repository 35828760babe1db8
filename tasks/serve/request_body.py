"""The body of a request in OpenAI's form: read once, and passed on with no byte changed but few.

Clients, replicas and a gateway may read the same text differently: of two fields with one name each
takes another, and numbers change when they are written again. So what is passed on is what came,
with the model's name replaced where it stood.
"""

from __future__ import annotations

import json
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple, NoReturn

_SPACE = " \t\n\r"
# The likelihoods of the prompt: with adapters and another request beside it, asking for them ends
# vLLM's engine for everybody (its issue 16668; seen with 0.32). ``echo`` asks for them too.
_ENDING = ("prompt_logprobs", "echo")


class BodyError(ValueError):
    """A body that is no request; ``field`` names what is wrong with it, where one field is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def _refuse(constant: str) -> NoReturn:
    raise BodyError(f"The body is not JSON, which has no {constant}.")


_decoder = json.JSONDecoder(parse_constant=_refuse)


class Body(NamedTuple):
    """The fields, and where in the text the model's name and the object's end stand."""

    text: str
    fields: dict[str, Any]
    model: str
    model_at: tuple[int, int]
    end: int
    options_at: tuple[int, int] | None

    @property
    def streams(self) -> bool:
        return self.fields.get("stream") is True

    @property
    def counts_tokens(self) -> bool:
        """Whether the client itself asks how many tokens a streamed answer has."""
        options = self.fields.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def for_replica(self, served: str) -> bytes:
        """The body for the version that answers.

        A streamed answer is asked to end with its number of tokens.
        """
        changes = [(self.model_at, json.dumps(served))]
        if self.streams and not self.counts_tokens:
            if self.options_at is None:
                options, at = ', "stream_options": {"include_usage": true}', (self.end, self.end)
            else:
                given = self.fields["stream_options"] or {}
                options, at = json.dumps({**given, "include_usage": True}), self.options_at
            changes.append((at, options))
        text = self.text
        for (start, stop), put in sorted(changes, reverse=True):
            text = text[:start] + put + text[stop:]
        return text.encode()


def read_body(raw: bytes) -> Body:
    """The request. Raises BodyError for what is none, or is ambiguous."""
    try:
        text = raw.decode("utf-8")
        fields, spans, end = _members(text)
    except UnicodeDecodeError as error:
        raise BodyError(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from error
    except json.JSONDecodeError as error:
        raise BodyError(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise BodyError("The body is nested too deeply.") from error
    except BodyError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise BodyError(f"The body cannot be read: {error}.") from error
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BodyError("Expected the name of a model, a text, in `model`.", "model")
    if not isinstance(fields.get("stream"), bool | None):
        raise BodyError("Expected true or false in `stream`.", "stream")
    for name in _ENDING:
        if not (fields.get(name) is None or fields[name] is False):
            raise BodyError(
                f"`{name}` is not let through: it ends a vLLM server that holds adapters.", name
            )
    options = fields.get("stream_options")
    if not isinstance(options, dict | None):
        raise BodyError("Expected an object in `stream_options`.", "stream_options")
    return Body(text, fields, model, spans["model"], end, spans.get("stream_options"))


def _members(text: str) -> tuple[dict[str, Any], dict[str, tuple[int, int]], int]:
    """The members of an object, where each value stands, and where the closing brace does."""
    fields: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _expect(text, _skip(text, 0), "{")
    at = _skip(text, at)
    while not text.startswith("}", at):
        if fields:
            at = _skip(text, _expect(text, at, ","))
        key, at = scanstring(text, _expect(text, at, '"'))
        start = _skip(text, _expect(text, _skip(text, at), ":"))
        value, stop = _decoder.raw_decode(text, start)
        if key in fields:
            raise BodyError(f"`{key}` stands twice in the body.", key)
        fields[key], spans[key] = value, (start, stop)
        at = _skip(text, stop)
    if _skip(text, at + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)
    return fields, spans, at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, sign: str) -> int:
    if not text.startswith(sign, at):
        raise json.JSONDecodeError(f"Expecting '{sign}'", text, at)
    return at + 1
