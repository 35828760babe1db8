"""Looks at every trial, again and again, until one is decided."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from mlflow.tracking import MlflowClient

from tasks.errors import is_transient
from tasks.objects import Store
from tasks.serve.canary.comparison import Comparison
from tasks.serve.canary.observed import Traffic
from tasks.serve.canary.trials import OnTrial, on_trial
from tasks.trial import Verdict

logger = logging.getLogger(__name__)
_TOLD_EVERY = 60.0  # seconds between two lines of progress
_AWAY_SECONDS = 5.0


def _now() -> datetime:
    return datetime.now(UTC)


class Watched:
    """One trial, and what was seen of it so far."""

    def __init__(self, store: Store, one: OnTrial) -> None:
        self.comparison = Comparison(one.trial)
        self._traffic = Traffic(store, one.trial.model, one.trial.begun_at)

    def look(self, one: OnTrial, now: datetime) -> Verdict:
        self.comparison.take(self._traffic.look(now), now)
        verdict = self.comparison.verdict(now)
        if one.champion == one.trial.challenger:
            # By a person's hand, or by a run that was killed before it ended the trial.
            return verdict.model_copy(
                update={"outcome": "promote", "reasons": ["It is champion already."]}
            )
        if one.champion != one.trial.champion:
            why = (
                f"Version {one.champion} is champion now: it was tried against version "
                f"{one.trial.champion}."
            )
            return verdict.model_copy(update={"outcome": "inconclusive", "reasons": [why]})
        if one.refused is not None:
            return verdict.model_copy(update={"outcome": "roll_back", "reasons": [one.refused]})
        return verdict


def watch(
    store: Store,
    client: MlflowClient,
    until: datetime,
    *,
    now: Callable[[], datetime] = _now,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Verdict]:
    """The trials that are decided, as soon as any is; at ``until``, all that are not.

    Empty where nothing is tried. What is seen is read from the store anew, so that a watch that was
    killed goes on where another begins. Waits while registry or storage are away.
    """
    watched: dict[tuple[str, str, datetime], Watched] = {}
    told = float("-inf")
    while True:
        moment = now()
        try:
            current = {
                (one.trial.model, one.trial.challenger, one.trial.begun_at): one
                for one in on_trial(client)
            }
            watched = {key: watched.get(key) or Watched(store, one) for key, one in current.items()}
            verdicts = [watched[key].look(one, moment) for key, one in current.items()]
        except Exception as error:
            # MLflow's and S3's clients raise many classes: what may pass is waited for.
            if not is_transient(error) or moment >= until:
                raise
            logger.warning("canary: registry or storage is away: %s", str(error)[:200])
            sleep(_AWAY_SECONDS)
            continue
        decided = [verdict for verdict in verdicts if verdict.outcome != "watch"]
        if decided or not verdicts or moment >= until:
            return decided or verdicts
        if moment.timestamp() - told >= _TOLD_EVERY:
            told = moment.timestamp()
            for verdict in verdicts:
                _tell(verdict)
        sleep(min(one.comparison.config.look_seconds for one in watched.values()))


def _tell(verdict: Verdict) -> None:
    logger.info(
        "canary: %s Evidence that it is better 10^%.2f, worse 10^%.2f, of 10^%.2f; %s requests.",
        verdict.sentence,
        verdict.success.evidence,
        verdict.worse,
        verdict.bar,
        f"{verdict.num_requests:,}",
    )
