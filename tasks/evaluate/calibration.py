"""How far the judge agrees with people: its grades beside theirs, on answers that people rated.

Rank correlation (Spearman) and agreement of the grades, and two biases that judges of language are
known for (Zheng et al., 2023): does it favour long answers more than people do, and does it favour
what stands first? The latter is asked of answers to the same prompt that people rated differently.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import stats

from tasks.errors import DataError, MissingFileError
from tasks.evaluate.answers import Answer
from tasks.evaluate.config import JudgeConfig
from tasks.evaluate.judge import JudgedRow, judge_answers
from tasks.evaluate.preference import prefer
from tasks.evidence import Calibration
from tasks.objects import Store
from tasks.storage import digest_of

if TYPE_CHECKING:
    import anthropic

_FOLDER = "judge/calibrations/"
_LEAST_ROWS = 10  # below, a correlation says nothing


class RatedRow(BaseModel):
    """An answer that a person rated from 1 to 5, or several by their mean."""

    model_config = ConfigDict(extra="ignore")

    prompt: str
    reference: str
    answer: str
    rating: float = Field(ge=1, le=5)


def read_rated(file: Path) -> list[RatedRow]:
    """The rows of a CSV file or of JSON lines.

    Raises:
        MissingFileError: there is no such file.
        DataError: a row is not a rated answer, with its file, row and field; or there are too few.
    """
    if not file.is_file():
        raise MissingFileError(f"{file}: expected rated answers, found no file.")
    rows = []
    for number, raw in _raw_rows(file):
        try:
            rows.append(RatedRow.model_validate(raw))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise DataError(
                f"{file.name}, row {number}, field {'.'.join(map(str, first['loc'])) or 'row'}: "
                f"{first['msg']}, came {str(first['input'])[:80]!r}. Expected prompt, reference, "
                "answer and a rating from 1 to 5."
            ) from error
    if len(rows) < _LEAST_ROWS:
        raise DataError(
            f"{file.name}: {len(rows)} rated answers; at least {_LEAST_ROWS} are needed."
        )
    return rows


def calibrate(
    rows: Sequence[RatedRow], config: JudgeConfig, client: anthropic.Anthropic, store: Store
) -> Calibration:
    """Grade the rows and compare.

    Raises:
        DataError: the judge failed on too many rows.
    """
    result = judge_answers(
        [JudgedRow(str(i), r.prompt, r.reference, r.answer) for i, r in enumerate(rows)],
        config,
        client,
        store,
    )
    if result.status != "run":
        raise DataError(f"The judge could not be calibrated: {result.status}.")
    graded = [(rows[int(i)], grade) for i, grade in result.scores.items()]
    human = np.array([row.rating for row, _ in graded])
    judge = np.array([grade for _, grade in graded], dtype=np.float64)
    lengths = np.array([len(row.answer) for row, _ in graded])
    spearman = _correlation(human, judge)
    low, high = _interval(spearman, len(graded))
    places = _places(rows, config, client, store)
    return Calibration(
        model=config.model,
        judge_digest=judge_digest(config),
        date=datetime.now(UTC),
        num_rows=len(graded),
        num_failed=len(result.failures),
        spearman=spearman,
        spearman_low=low,
        spearman_high=high,
        agreement=float((np.round(human) == judge).mean()),
        within_one=float((abs(human - judge) <= 1).mean()),
        mean_difference=float((judge - human).mean()),
        length_bias=_correlation(lengths, judge - human),
        **places,
    )


def judge_digest(config: JudgeConfig) -> str:
    """What makes a judge another: its model, its criteria and its temperature."""
    return digest_of([config.model, config.criteria, config.temperature])


def store_calibration(store: Store, calibration: Calibration) -> None:
    """Keep it; the one before stays."""
    key = (
        f"{_folder(calibration.judge_digest)}{calibration.date.strftime('%Y%m%dT%H%M%S.%fZ')}.json"
    )
    store.put_bytes(key, calibration.model_dump_json(indent=1).encode())


def last_calibration(store: Store, config: JudgeConfig) -> Calibration | None:
    """The newest of this very judge, or None."""
    keys = sorted(store.keys_under(_folder(judge_digest(config))))
    return Calibration.model_validate_json(store.get_bytes(keys[-1])) if keys else None


def _folder(digest: str) -> str:
    return f"{_FOLDER}{digest[:16]}/"


def _raw_rows(file: Path) -> Iterator[tuple[int, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
        yield from enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2)
        return
    # Not splitlines: what else it takes for the end of a line may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise DataError(f"{file.name}, row {number}: expected JSON, found {error}.") from error


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either does not vary, which is no agreement."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def _interval(correlation: float, n: int) -> tuple[float, float]:
    """95 %, by Fisher's transformation with the variance of Bonett and Wright (2000)."""
    bounded = min(max(correlation, -0.999999), 0.999999)
    error = math.sqrt((1 + bounded**2 / 2) / (n - 3))
    middle, reach = math.atanh(bounded), 1.959964 * error
    return math.tanh(middle - reach), math.tanh(middle + reach)


def _places(
    rows: Sequence[RatedRow], config: JudgeConfig, client: anthropic.Anthropic, store: Store
) -> Mapping[str, Any]:
    """What the judge prefers of two answers to one prompt, asked in both orders."""
    pairs = [
        (better, worse)
        for _, group in groupby(sorted(rows, key=_asked), key=_asked)
        for better, worse in _rated_apart(list(group))
    ]
    if not pairs:
        return {}
    ours = [
        Answer(str(i), b.prompt, b.reference, b.answer, 0, False, None)
        for i, (b, _) in enumerate(pairs)
    ]
    theirs = {str(i): worse.answer for i, (_, worse) in enumerate(pairs)}
    found = prefer(ours, theirs, config, client, store)
    if found.status != "run":
        raise DataError(f"The judge could not be calibrated on pairs: {found.status}.")
    return {
        "num_pairs": len(found.shares),
        "pairs_agreement": float(np.mean(list(found.shares.values()))),
        "num_contradicted": found.num_contradicted,
        "num_first": found.num_first,
    }


def _asked(row: RatedRow) -> tuple[str, str]:
    return row.prompt, row.reference


def _rated_apart(group: Sequence[RatedRow]) -> list[tuple[RatedRow, RatedRow]]:
    """Each pair that people rated at least a grade apart, the better answer first."""
    ordered = (sorted(pair, key=lambda r: -r.rating) for pair in combinations(group, 2))
    return [(b, w) for b, w in ordered if b.rating - w.rating >= 1]
