"""Rows to clean, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tasks.clean.rows import Rows
from tasks.example import to_table
from tests.examples import make_example

MakeRows = Callable[..., Rows]


@pytest.fixture
def make_rows() -> MakeRows:
    """Makes rows of (prompt, answer) pairs, or of keyword arguments of ``make_example``."""

    def make(specs: Sequence[tuple[str, str] | dict[str, Any]]) -> Rows:
        made = [
            make_example(**{"line": number, **spec})
            if isinstance(spec, dict)
            else make_example(*spec, line=number)
            for number, spec in enumerate(specs, start=1)
        ]
        return Rows(to_table(made))

    return make
