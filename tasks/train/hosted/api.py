"""The calls of a fine-tuning API in OpenAI's form, and the parts of its answers that matter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from tasks.openai_client import HostedError, checked, read, told
from tasks.train.hosted.data import UploadFile

if TYPE_CHECKING:
    import openai
    from openai.types.fine_tuning.job_create_params import JobCreateParams

logger = logging.getLogger(__name__)
KEY = "retune_key"  # in the metadata of a job: the training that it is
_PAGE, _PAGE_OF_FILES = 100, 10_000
_Fetch = Callable[..., Any]


class JobError(BaseModel):
    """Why a job failed. The API fills it with nulls while there is nothing to tell."""

    code: str | None = None
    message: str | None = None
    param: str | None = None


class Job(BaseModel):
    """The part of a job that matters here; times are Unix seconds."""

    id: str = Field(min_length=1)
    # "paused" and "pending" are not in the client's list, but said by OpenAI and Azure.
    status: Literal[
        "validating_files",
        "pending",
        "queued",
        "running",
        "paused",
        "succeeded",
        "failed",
        "cancelled",
    ]
    model: str
    created_at: float
    finished_at: float | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = Field(None, ge=0)
    training_file: str | None = None
    validation_file: str | None = None
    hyperparameters: dict[str, Any] | None = None
    method: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    error: JobError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def is_lost(self) -> bool:
        """Whether no model will come of it."""
        return self.status in ("failed", "cancelled")


class Event(BaseModel):
    """Something that happened to a job; one of type ``metrics`` has losses in ``data``."""

    id: str
    type: str | None = None
    level: str = "info"
    message: str = ""
    data: dict[str, Any] | None = None


class Checkpoint(BaseModel):
    """A model that was kept on the way, ready to be asked."""

    id: str
    step_number: int = Field(ge=0)
    fine_tuned_model_checkpoint: str = Field(min_length=1)
    metrics: dict[str, float | None] = {}


class _File(BaseModel):
    id: str = Field(min_length=1)
    filename: str = ""
    bytes: int = -1
    status: str | None = None
    expires_at: float | None = None


class _Page(BaseModel):
    data: list[dict[str, Any]]
    has_more: bool = False


class HostedApi:
    """The calls; all but ``create`` are safe to repeat.

    All raise openai.APIError for what may pass, and for what does not ConfigError (the key, the
    account, the address or the model), TrainingError (this request) or HostedError (the answer is
    nonsense).
    """

    def __init__(self, client: openai.OpenAI) -> None:
        self.max_retries = client.max_retries
        self._client = client
        self._jobs = client.fine_tuning.jobs.with_raw_response

    def upload(self, file: UploadFile) -> str:
        """The id of the file with this content, which is sent unless it is there already."""
        files = self._client.files.with_raw_response
        fetch = lambda **page: files.list(purpose="fine-tune", **page)  # noqa: E731
        for item in self._listed("the list of files", fetch, _PAGE_OF_FILES):
            if item.get("filename") != file.name:
                continue
            found = checked(_File, item, "the list of files")
            whole = found.bytes == len(file.body) and found.status != "error"
            if whole and found.expires_at is None:
                return found.id
        with told(f"the upload of {file.name}", self._client):
            content = (file.name, file.body, "application/jsonl")
            raw = files.create(file=content, purpose="fine-tune")
        logger.info("hosted: uploaded %s, %d rows", file.name, file.num_rows)
        return read(raw, _File, f"the upload of {file.name}").id

    def create(self, request: JobCreateParams) -> Job:
        """One job. Never repeated by itself: where an answer was lost, a second one would be paid.

        HostedError and transient errors leave open whether there is a job now.
        """
        once = self._client.with_options(max_retries=0).fine_tuning.jobs.with_raw_response
        with told("the creation of the job", self._client):
            raw = once.create(**request)
        return read(raw, Job, "the creation of the job")

    def find(self, key: str) -> Job | None:
        """The newest job of this training that has not failed."""
        fetch = lambda **page: self._jobs.list(metadata={KEY: key}, **page)  # noqa: E731
        own = [
            checked(Job, item, "the list of jobs")
            for item in self._listed("the list of jobs", fetch)
            # Servers that know no such filter list everything.
            if isinstance(item.get("metadata"), dict) and item["metadata"].get(KEY) == key
        ]
        alive = (job for job in own if not job.is_lost)
        return max(alive, key=lambda job: job.created_at, default=None)

    def look(self, job_id: str) -> Job | None:
        """The job as it stands; None when it is not there."""
        import openai

        what = f"job {job_id}"
        try:
            with told(what, self._client, passed=(404,)):
                raw = self._jobs.retrieve(job_id)
        except openai.NotFoundError:
            return None
        job = read(raw, Job, what)
        if job.id != job_id:
            raise HostedError(f"{what}: the API answered with another job, {job.id}.")
        if job.status == "succeeded" and not job.fine_tuned_model:
            raise HostedError(f"{what} has succeeded, but the API names no model.")
        return job

    def events(self, job_id: str) -> list[Event]:
        """All that happened to the job."""
        fetch = lambda **page: self._jobs.list_events(job_id, **page)  # noqa: E731
        what = f"the events of {job_id}"
        return [checked(Event, item, what) for item in self._listed(what, fetch)]

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """The models kept on the way."""
        checkpoints = self._client.fine_tuning.jobs.checkpoints.with_raw_response
        fetch = lambda **page: checkpoints.list(job_id, **page)  # noqa: E731
        what = f"the checkpoints of {job_id}"
        return [checked(Checkpoint, item, what) for item in self._listed(what, fetch)]

    def _listed(self, what: str, fetch: _Fetch, limit: int = _PAGE) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        after: dict[str, str] = {}
        while True:
            with told(what, self._client):
                raw = fetch(limit=limit, **after)
            page = read(raw, _Page, what)
            yield from page.data
            if not page.has_more or not page.data:
                return
            last = str(page.data[-1].get("id"))
            if after == {"after": last}:
                raise HostedError(f"{what}: the API repeats the same page for ever.")
            after = {"after": last}
