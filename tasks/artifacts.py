"""The frozen records that travel between stages: a URI, a digest and counts, never the data.

``RawSnapshot -> CleanDataset -> FormattedDataset -> Adapter -> Answers -> EvalReport ->
GateDecision -> ModelVersion``, beside them the ``GoldenSet``, at the end the ``RunSummary``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["base", "base_few_shot", "champion", "candidate", "reference"]
Serving = Literal["base", "champion"]
StageState = Literal["completed", "cached", "failed"]


class Record(BaseModel):
    """A frozen model that refuses unknown fields: base of all configs and artifact records."""

    # What is not a number stays so in JSON, which has no word for it: "NaN".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def fingerprint(self) -> object:
        """What of this record decides a stage's result; goes into the stage's cache key.

        Fields that are records themselves are asked in turn, so that a config which names a file
        can answer with the file's digest instead of its path.
        """
        return {name: fingerprint(getattr(self, name)) for name in type(self).model_fields}


def fingerprint(value: object) -> object:
    """``value`` as JSON-ready data, with each record replaced by its own fingerprint."""
    if isinstance(value, Record):
        return value.fingerprint()
    if isinstance(value, list | tuple):
        return [fingerprint(item) for item in value]
    if isinstance(value, dict):
        return {str(key): fingerprint(item) for key, item in value.items()}
    return value


class TaskConfig(Record):
    """What the model is to do: the same instruction and form of answer in every stage."""

    kind: Literal["classification", "structured", "generation"] = Field(
        "generation",
        description="classification: the answer is a label; structured: a JSON object; "
        "generation: free text. Decides the metrics and the checks of an answer",
    )
    system_prompt: str | None = Field(
        None, description="Put before every conversation that has no system turn of its own"
    )
    answer_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema that a structured answer must meet"
    )


class Artifact(Record):
    """A folder in storage. ``digest`` is the SHA-256 of its manifest, which lists every file's."""

    uri: str
    digest: str
    num_in: int = 0
    num_out: int = 0

    @property
    def is_lasting(self) -> bool:
        """Whether a later run may take it as it is; not where a service was away meanwhile."""
        return True

    def fingerprint(self) -> object:
        return self.digest


class SourceFile(Record):
    """One file, bucket object or data set as it was found; ``digest`` pins the version.

    ``digest`` is a file's SHA-256, an object's ETag, or a data set's commit and split. ``place`` is
    where it lies now, on this machine or elsewhere: it may differ and the rows be the same.
    ``generation`` is that of the rows that a webhook brought, which names the events.
    """

    kind: Literal["local", "s3", "stored", "saved", "hub"]
    name: str
    place: str
    digest: str
    size: int = 0
    generation: int | None = None

    def fingerprint(self) -> object:
        return [self.name, self.digest]


class Sources(Record):
    """Every file of a run: of each source in the order of the config, and of the golden set."""

    rows: tuple[tuple[SourceFile, ...], ...]
    golden: tuple[SourceFile, ...]


class RawSnapshot(Artifact):
    """What was read: ``examples.parquet``, ``quarantine.parquet`` and ``excluded.parquet``.

    The last names what a source leaves out on purpose, such as skipped annotations. ``num_new`` is
    how many rows were read anew for it, the others being known from earlier runs.
    """

    num_quarantined: int
    num_quarantined_by_reason: dict[str, int] = {}
    num_excluded_by_reason: dict[str, int] = {}
    num_by_source: dict[str, int]
    num_new: int = 0
    num_forgotten: int = Field(0, description="Rows that a tombstone kept out")


class GoldenSet(Artifact):
    """The locked rows that decide about ``model``: ``examples.parquet``. Never trained on.

    Of these ``num_sealed`` are sealed: answered only by a candidate that is about to be promoted.
    ``part`` says which of the two are meant.
    """

    model: str
    name: str
    version: int
    rows_digest: str
    num_sealed: int = 0
    part: Literal["open", "sealed"] = "open"

    @property
    def sealed(self) -> GoldenSet:
        """The same set, of which the sealed rows are meant."""
        return self.model_copy(update={"part": "sealed"})

    def fingerprint(self) -> object:
        """Whoever reads the file gets all rows; who answers them, those of the part."""
        return [self.digest, self.part]


class CleanDataset(Artifact):
    """The rows that survived, with their ``split``: ``examples.parquet`` and ``rejected.parquet``.

    ``num_rejected`` counts by reason, in the order of the checks; ``num_redacted`` counts the
    personal data found, by entity; ``num_review`` the rows in ``review.json``, by kind.
    ``cautions`` are sentences for whoever decides, by a stable name.
    """

    num_train: int
    num_validation: int
    num_test: int
    num_holdout: int = 0
    num_rejected: dict[str, int]
    num_redacted: dict[str, int]
    num_review: dict[str, int] = {}
    cautions: dict[str, str] = {}


class DriftReport(Artifact):
    """How this week's rows differ from the week's before: ``drift.json``; only aggregates."""

    cautions: dict[str, str] = {}


class SyntheticSet(Artifact):
    """Generated rows: ``examples.jsonl``, ``rejected.jsonl`` with reasons and ``stats.json``.

    ``num_in`` counts the seeds, ``num_out`` the rows that are used; ``num_leaked`` those among the
    rejected that were too close to golden or held-out rows. ``prompt`` is the prompt's name and
    version.
    """

    prompt: str
    prompt_digest: str
    num_generated: int
    num_rejected: dict[str, int]
    num_leaked: int
    num_failed_calls: dict[str, int]
    spent_usd: float
    status: Literal["completed", "budget_reached"]
    diversity: Literal["diverse", "collapsed", "too_few"]


class BaseModelRef(Record):
    """A base model pinned by the SHA-256 of its files, whatever its name."""

    id: str
    digest: str
    revision: str | None = None
    license: str | None = None

    def fingerprint(self) -> object:
        return self.digest


class FormattedDataset(Artifact):
    """Token ids and labels: ``train.parquet``, ``validation.parquet`` and ``rejected.parquet``.

    ``stats.json`` holds what the report shows of them; ``examples_uri`` is the ``CleanDataset``
    that they were made from. ``num_in`` counts examples, ``num_out`` rows: one example may become
    several.
    """

    base_model: BaseModelRef
    examples_uri: str | None = None
    examples_digest: str | None = None
    num_train: int
    num_validation: int
    num_rejected: dict[str, int]
    num_tokens: int
    num_trained_tokens: int
    max_length: int


class Adapter(Artifact):
    """What a training left: a LoRA adapter in PEFT's layout, a whole model, or a hosted one's name.

    Beside it ``log.json``, the history of its training, and ``README.md``, its model card.
    ``adapter_digest`` covers what serves alone: the same adapter trained twice has one digest,
    although its logs tell different seconds. ``metric`` chose the checkpoint of ``best_step``;
    ``sweep`` tells of all trainings where there were several.
    """

    base_model: BaseModelRef
    adapter_digest: str
    training_run_id: str
    method: str = "lora"
    engine: str = "trl"
    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    metric: str = "eval_loss"
    metric_value: float = math.nan
    tokens_per_second: float
    seconds: float
    cautions: dict[str, str] = {}
    sweep: tuple[dict[str, Any], ...] = ()

    def fingerprint(self) -> object:
        return {"base": self.base_model.digest, "adapter": self.adapter_digest}


class ParityReference(Artifact):
    """What a server of the adapter must compute as well: ``parity.jsonl``, tokens and likelihoods.

    ``dtype`` is the precision that they are computed in, and that it is to be served in.
    """

    adapter_digest: str
    dtype: Literal["float32", "bfloat16"]


class ShotSet(Artifact):
    """Solved examples for each golden row: ``shots.parquet`` names them, ``examples.parquet`` holds
    them. Without any where none are wanted or there are none.
    """

    num_examples: int


class ReferenceModel(Record):
    """A model behind an API, whose quality the candidate's is told in."""

    api: Literal["openai", "anthropic"] = Field(
        description="Whose protocol the server speaks; a local vLLM speaks both."
    )
    model: str = Field(min_length=1, description="The model's name at that server.")
    base_url: str | None = Field(
        None,
        description="The server's address; None: OPENAI_BASE_URL or ANTHROPIC_BASE_URL of the "
        "environment, else the public one.",
    )


class Contestant(Record):
    """A model to be evaluated: a base model, alone, with examples in its prompt, or an adapter.

    A reference is none of these, and has no base model.
    """

    role: Role
    base_model: BaseModelRef | None
    adapter_uri: str | None = None
    adapter_artifact_digest: str | None = None
    adapter_digest: str | None = None
    shots: ShotSet | None = None
    reference: ReferenceModel | None = None

    @property
    def known_base_model(self) -> BaseModelRef:
        """The base model. Raises ValueError for a reference, which has none."""
        if self.base_model is None:
            raise ValueError(f"the {self.role} has no base model")
        return self.base_model

    @property
    def name(self) -> str:
        """The base model's id, or the reference model's name."""
        return self.reference.model if self.reference else self.known_base_model.id

    @property
    def digest(self) -> str:
        """What tells models apart: the adapter's digest, else the base model's, else the name."""
        if self.reference is not None:
            text = self.reference.model_dump_json()
            return hashlib.sha256(text.encode()).hexdigest()
        return self.adapter_digest or self.known_base_model.digest

    @property
    def weights(self) -> Contestant:
        """The model itself, whatever its prompt."""
        return self.model_copy(update={"shots": None})

    def fingerprint(self) -> object:
        """Weights and prompt alone: in whatever role it stands, a model answers the same."""
        if self.reference is not None:
            return self.reference.model_dump()
        shots = {"shots": self.shots.digest} if self.shots else {}
        return {"base": self.known_base_model.digest, "adapter": self.adapter_digest, **shots}

    @classmethod
    def of(
        cls,
        base_model: BaseModelRef,
        shots: ShotSet,
        champion: ModelVersion | None,
        adapter: Adapter | None,
        reference: ReferenceModel | None = None,
    ) -> list[Contestant]:
        """Who is compared: the base model, alone and with examples, the champion, the candidate
        where it is trained, and the reference where one is configured.
        """
        contestants = [cls(role="base", base_model=base_model)]
        if shots.num_examples:
            contestants.append(cls(role="base_few_shot", base_model=base_model, shots=shots))
        if champion is not None:
            contestants.append(
                cls(
                    role="champion",
                    base_model=champion.base_model,
                    adapter_uri=champion.adapter_uri,
                    adapter_artifact_digest=champion.adapter_artifact_digest,
                    adapter_digest=champion.adapter_digest,
                )
            )
        if adapter is not None:
            contestants.append(
                cls(
                    role="candidate",
                    base_model=adapter.base_model,
                    adapter_uri=adapter.uri,
                    adapter_artifact_digest=adapter.digest,
                    adapter_digest=adapter.adapter_digest,
                )
            )
        if reference is not None:
            contestants.append(cls(role="reference", base_model=None, reference=reference))
        return contestants


class Answers(Artifact):
    """What one contestant answered to every golden row: ``answers.parquet``.

    ``tokens_per_second`` is None where all answers were known from before.
    """

    adapter_digest: str | None
    tokens_per_second: float | None


class GeneralSuite(Artifact):
    """What every contestant is asked beside the task: ``suite.parquet``.

    ``num_left_out`` rows stand in the training data, and were left out.
    """

    num_left_out: int


class GeneralScores(Artifact):
    """How one model did on the general suite: ``scores.parquet``.

    ``unmeasured`` says why there are none.
    """

    adapter_digest: str | None
    unmeasured: str | None = None


def serving_role(contestants: Container[Role]) -> Serving:
    """Who serves now: the champion, or the base while there is none."""
    return "champion" if "champion" in contestants else "base"


class Lineage(Record):
    """What a model version was made from and by; kept as tags in the registry.

    ``collected`` names the generations of rows that webhooks brought, as ``generic 12, argilla 3``.
    """

    flow_run_id: str
    data_digest: str
    collected: str = ""
    config_digest: str
    code_digest: str


class ModelVersion(Record):
    """A version in the registry and the alias it carries; the champion when it serves.

    One registered before there was parity has no reference for it.
    """

    name: str
    version: str
    alias: str | None
    base_model: BaseModelRef
    adapter_digest: str
    adapter_uri: str
    adapter_artifact_digest: str
    parity_uri: str | None = None
    parity_digest: str | None = None

    @classmethod
    def of(
        cls, name: str, version: str, alias: str | None, tags: Mapping[str, str]
    ) -> ModelVersion:
        """What the tags of a version in the registry say of it."""
        return cls(
            name=name,
            version=version,
            alias=alias,
            base_model=BaseModelRef(
                id=tags["base_model"],
                digest=tags["base_digest"],
                revision=tags.get("base_revision"),
                license=tags.get("base_license"),
            ),
            adapter_digest=tags["adapter_digest"],
            adapter_uri=tags["adapter_uri"],
            adapter_artifact_digest=tags["adapter_artifact_digest"],
            parity_uri=tags.get("parity_uri"),
            parity_digest=tags.get("parity_digest"),
        )


class StageRun(Record):
    """One line of the run's story: what a stage did, for how long, on how many rows.

    ``seconds`` is the whole call; ``work_seconds`` the part in the stage's own code, the rest being
    orchestration.
    """

    name: str
    subject: str | None = None
    state: StageState
    seconds: float
    work_seconds: float = 0.0
    num_in: int | None = None
    num_out: int | None = None
    uri: str | None = None
    error: str | None = None
