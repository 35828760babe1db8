"""The golden rows in storage, and which of them are sealed.

Sealed rows are left alone until a candidate is about to be promoted on the open ones: whoever chose
among many models by the open rows has not chosen by these (a reusable holdout; Dwork et al.,
Science 349, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import GoldenSet
from tasks.example import Example, from_table, to_table
from tasks.objects import Store
from tasks.storage import digest_of, fetch

_SEALED = "sealed"  # the column that parts the rows


def is_sealed(example: Example, share: float) -> bool:
    """Whether a row is sealed: by the hash of its id, whatever rows stand beside it."""
    place = int(digest_of([_SEALED, example.id])[:16], 16) / 16**16
    return place < share


def golden_table(examples: Sequence[Example], sealed_share: float) -> pa.Table:
    """All rows, with whether each is sealed."""
    sealed = pa.array([is_sealed(e, sealed_share) for e in examples], pa.bool_())
    return to_table(examples).append_column(_SEALED, sealed)


def golden_rows(store: Store, golden: GoldenSet) -> list[Example]:
    """The rows that every contestant answers: those of the set's part."""
    path = fetch(store, golden.uri, golden.digest) / "examples.parquet"
    return from_table(pq.read_table(path, filters=[(_SEALED, "==", golden.part == "sealed")]))
