"""A conversation that is too long -> several that fit, cut between exchanges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from tasks.format.template import Conversation

Turns = list[dict[str, Any]]


def split_turns(
    conversation: Conversation, fits: Callable[[Conversation], bool]
) -> list[Conversation] | None:
    """Conversations of whole exchanges, each with the system turn; as few as fit, in order.

    An exchange is a question with all that follows until the next one, calls of tools included.
    None when one exchange alone does not fit.
    """
    system = [turn for turn in conversation.turns[:1] if turn["role"] == "system"]
    made: list[Conversation] = []
    held: Turns = []
    for exchange in _exchanges(conversation.turns[len(system) :]):
        longer = Conversation([*system, *held, *exchange], conversation.tools)
        if fits(longer):
            held = [*held, *exchange]
            continue
        alone = Conversation([*system, *exchange], conversation.tools)
        if not held or not fits(alone):
            return None
        made.append(Conversation([*system, *held], conversation.tools))
        held = exchange
    return [*made, Conversation([*system, *held], conversation.tools)]


def _exchanges(turns: Turns) -> Iterator[Turns]:
    numbers = list(accumulate(turn["role"] == "user" for turn in turns))
    for number in sorted(set(numbers)):
        yield [turn for turn, of in zip(turns, numbers, strict=True) if of == number]
