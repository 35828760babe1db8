"""The one job of a hosted training: created once, found again after any kill, awaited.

Before a creation an intent is logged, and the job's id after; the training's key stands in the
job's metadata. So a run that was killed anywhere finds its job again, also where the kill fell
between the creation and the record of its id, and where that record lies in another store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.errors import ConfigError, TrainingError
from tasks.openai_client import TIMEOUT_SECONDS, HostedError
from tasks.train.hosted.api import KEY, HostedApi, Job
from tasks.train.hosted.log import Attempt, JobLog

if TYPE_CHECKING:
    from openai.types.fine_tuning.job_create_params import JobCreateParams

logger = logging.getLogger(__name__)
# A creation that was not answered may take effect as long as the client would have waited.
SETTLE_SECONDS = TIMEOUT_SECONDS + 30
_MOST_WAITED_SECONDS = 600.0
_FAILED_LOOKS = 6  # in a row, each after the client's own retries
# Answers after which nothing was created, and after which nothing will be any more.
_REFUSED = frozenset({429, 529})
_SETTLED = frozenset({500, 503})


class OneJob:
    """The job of the training that ``key`` names. ``notes`` tells what is worth a report."""

    def __init__(
        self,
        api: HostedApi,
        log: JobLog,
        key: str,
        poll_seconds: float,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.notes: list[str] = []
        self._api = api
        self._log = log
        self._key = key
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds

    def obtain(self, make_request: Callable[[], JobCreateParams]) -> Attempt:
        """The attempt with this training's job, an earlier run's or a new one.

        ``make_request`` is asked once, when a job is to be created; what it refuses has cost
        nothing.
        """
        request, tries = None, 0
        while True:
            attempt = self._log.open_attempt()
            if attempt is not None and attempt.job_id is not None:
                logger.info("hosted: job %s was created earlier", attempt.job_id)
                return attempt
            job = self._settled(attempt) if attempt else self._api.find(self._key)
            if job is not None:
                logger.info("hosted: found job %s", job.id)
                attempt = attempt or self._log.intend()
                if attempt is not None:
                    return self._log.confirm(attempt, job.id)
                continue  # another process has found it too
            if attempt is not None:
                self._log.close(attempt)
            request = request or make_request()
            attempt = self._log.intend()
            if attempt is None:
                continue  # another process is creating the job
            tries += 1
            created = self._create(attempt, request, tries)
            if created is not None:
                return created

    def wait(self, attempt: Attempt, on_look: Callable[[str], None]) -> Job:
        """The job when it has succeeded; ``on_look`` is told its id at every look.

        Raises TrainingError when the job failed, was cancelled or is gone, else what
        ``HostedApi.look`` raises too often in a row.
        """
        import openai

        job_id = str(attempt.job_id)
        failures, status = 0, ""
        while True:
            try:
                job = self._api.look(job_id)
            except (openai.APIError, HostedError) as problem:
                failures += 1
                if failures >= _FAILED_LOOKS:
                    raise
                seconds = min(self._poll_seconds * 2**failures, _MOST_WAITED_SECONDS)
                logger.warning("hosted: %s; looking again in %.0f s", problem, seconds)
                time.sleep(seconds)
                continue
            failures = 0
            if job is None:
                raise TrainingError(self._gone(job_id))
            if job.status != status:
                status = job.status
                logger.info("hosted: job %s is %s", job_id, status)
            if job.is_lost:
                self._log.close(attempt)
                raise TrainingError(_failure(job))
            on_look(job_id)
            if job.has_ended:
                return job
            time.sleep(self._poll_seconds)

    def _create(self, attempt: Attempt, request: JobCreateParams, tries: int) -> Attempt | None:
        """The attempt with its job; None when there is none and it is worth another try."""
        import openai

        try:
            job = self._api.create(request)
        except (ConfigError, TrainingError):
            self._log.close(attempt)
            raise
        except (openai.APIError, HostedError) as problem:
            status = getattr(problem, "status_code", None)
            patience = 0.0 if status in _SETTLED else self._settle_seconds
            found = None if status in _REFUSED else self._settled(attempt, patience)
            if found is not None:
                return self._log.confirm(attempt, found.id)
            self._log.close(attempt)
            if tries > self._api.max_retries:
                raise
            logger.warning("hosted: job not created (%s), trying again", problem)
            time.sleep(_wait(problem, tries))
            return None
        logger.info("hosted: created job %s", job.id)
        if (job.metadata or {}).get(KEY) != self._key:
            self.notes.append(
                "The fine-tuning API keeps no metadata of jobs: a run that is killed while it "
                "creates one would not find it again."
            )
        return self._log.confirm(attempt, job.id)

    def _settled(self, attempt: Attempt, patience: float | None = None) -> Job | None:
        """The job of an intent without an id, or None when there is none and will be none."""
        patience = self._settle_seconds if patience is None else patience
        while (job := self._api.find(self._key)) is None:
            if (datetime.now(UTC) - attempt.created_at).total_seconds() >= patience:
                return None
            logger.info("hosted: waiting to see whether attempt %d took effect", attempt.number)
            time.sleep(self._poll_seconds)
        return job

    def _gone(self, job_id: str) -> str:
        return (
            f"Job {job_id} was created for this training, and the fine-tuning API does not know "
            "it. Check that OPENAI_API_KEY and train.hosted.base_url are those of the project "
            f"that owns it. If it was deleted, delete hosted/{self._key}/ in the store to pay for "
            "a new one."
        )


def _failure(job: Job) -> str:
    if job.status == "cancelled":
        return f"Job {job.id} was cancelled. Run again to pay for a new one."
    error = job.error
    code = f"{error.code}: " if error and error.code else ""
    message = error.message if error and error.message else "the API gave no reason"
    param = f" (param {error.param})" if error and error.param else ""
    return (
        f"Job {job.id} failed: {code}{message}{param}. Mend the cause, then run again: a new job "
        "is created."
    )


def _wait(problem: Exception, tries: int) -> float:
    """As long as the API asks for, else twice as long each time."""
    headers = getattr(getattr(problem, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(max(float(headers[name]), 0.0) * unit, _MOST_WAITED_SECONDS)
        except (KeyError, ValueError):
            continue
    return min(0.25 * 2.0**tries, _MOST_WAITED_SECONDS)
