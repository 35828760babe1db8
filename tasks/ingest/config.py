"""Where raw examples come from, and which columns of a row make an example."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tasks.artifacts import Record
from tasks.example import Source


class ColumnMapping(Record):
    """Which column holds what; what is not mapped, the source's shape maps by itself.

    A value with ``{{`` is a Jinja2 template over the row's columns. A name with dots is a path into
    nested objects and lists (``meta.user.id``, ``turns.0.text``) where no column has that very
    name. In an annotation tool's export, ``user`` names a field of the task, ``assistant`` and
    ``label`` a question that annotators answered.
    """

    messages: str | None = Field(None, description="Column with chat messages")
    user: str | None = Field(None, description="Column or template of the user's turn")
    assistant: str | None = Field(None, description="Column or template of the right answer")
    system: str | None = Field(None, description="Column or template of the system turn")
    input: str | None = Field(None, description="Column of the input; shape alpaca only")
    history: str | None = Field(
        None, description="Column with [question, answer] pairs of earlier turns; alpaca only"
    )
    tools: str | None = Field(
        None,
        description="Column with the definitions of the functions that the model may call, a list "
        "or its JSON text; the column `tools` of a conversation where it is not given",
    )
    group: str | None = Field(
        None, description="Column that names the conversation or customer a split must not cut"
    )
    created_at: str | None = Field(None, description="Column with an ISO 8601 time")
    label: str | None = Field(None, description="Column or template of the class label")


Shape = Literal[
    "columns", "chat", "prompt_completion", "alpaca", "sharegpt",
    "label_studio", "argilla", "labelbox", "scale", "gateway_log",
]  # fmt: skip
ANNOTATION_SHAPES = ("label_studio", "argilla", "labelbox", "scale")

# What `columns` may name beside system, group, created_at and label.
_MAPPABLE: dict[str, tuple[str, ...]] = {
    "columns": ("messages", "user", "assistant", "tools"),
    "chat": ("messages", "tools"),
    "prompt_completion": ("user", "assistant", "tools"),
    "alpaca": ("user", "assistant", "input", "history", "tools"),
    "sharegpt": ("messages", "tools"),
    "gateway_log": (),
    **dict.fromkeys(ANNOTATION_SHAPES, ("messages", "user", "assistant", "tools")),
}


# Fields that say where rows are, not what is made of them.
_PLACE = {
    "path", "hub", "hub_split", "hub_revision", "label_studio_url", "label_studio_project",
    "collected",
}  # fmt: skip
# What a row of a webhook looks like, unless the config says.
Collected = Literal["label-studio", "argilla", "generic"]  # of the others an export is read
_COLLECTED_SHAPES = {"label-studio": "label_studio", "argilla": "argilla"}


class SourceConfig(Record):
    """One source of rows: files, a data set of the hub, or the hub with files as its stand-in."""

    path: str | None = Field(
        None,
        description="File, glob (also **), s3://bucket/key or glob, or the folder of a saved "
        "Hugging Face data set; relative ones are looked up in RETUNE_DATA, then here",
    )
    hub: str | None = Field(None, description="Data set on the Hugging Face hub, used when online")
    hub_split: str = Field("train", description="Split of the hub's or the saved data set")
    hub_revision: str | None = Field(None, description="Commit of the hub's data set; pin it")
    format: Literal["auto", "jsonl", "json", "csv", "parquet"] = Field(
        "auto", description="Form of the files; auto goes by their ending, less .gz or .zst"
    )
    source: Source = Field(
        "human",
        description="Who made these rows; annotation for an annotation tool's export and "
        "production for the gateway's log where it is not given",
    )
    shape: Shape = Field(
        "columns", description="What a row looks like; columns: as mapped, else chat messages"
    )
    columns: ColumnMapping = Field(
        ColumnMapping(), description="Which column holds what, where the shape's own names differ"
    )
    annotations: Literal["latest", "majority", "all"] = Field(
        "latest", description="Which answer counts where several people annotated one task"
    )
    feedback: Literal["required", "any"] = Field(
        "required",
        description="Of the gateway's log: only answers that feedback accepts or corrects, or "
        "also those without feedback",
    )
    min_score: float = Field(
        1.0, description="Of the gateway's log: least score of a feedback that accepts"
    )
    collected: Collected | None = Field(
        None, description="Webhook whose rows these are, as the receiver collected them"
    )
    label_studio_url: str | None = Field(
        None, description="Label Studio to export from; the key is in LABEL_STUDIO_API_KEY"
    )
    label_studio_project: int | None = Field(None, ge=1, description="Its project's number")
    general: bool = Field(
        False,
        description="General instructions, mixed in against forgetting: they get no system prompt "
        "of the task and need not have its form",
    )
    where: dict[str, list[str | int | float | bool]] = Field(
        {}, description="Keep only rows whose column has one of these values"
    )
    limit: int | None = Field(
        None, ge=1, description="Keep this many rows, chosen by the hash of their content"
    )
    max_row_bytes: int = Field(
        16 * 2**20, ge=1, description="A longer row is quarantined instead of held in memory"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_shape(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        shape = _COLLECTED_SHAPES.get(str(values.get("collected")))
        if shape is not None:
            values = {"shape": shape, "source": "annotation", **values}
        if "source" in values:
            return values
        maker = "production" if values.get("shape") == "gateway_log" else "annotation"
        own = values.get("shape") in (*ANNOTATION_SHAPES, "gateway_log")
        return {**values, "source": maker} if own else values

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        named = {
            name
            for name in ("messages", "user", "assistant", "input", "history", "tools")
            if getattr(self.columns, name) is not None
        }
        unfit = named - set(_MAPPABLE[self.shape])
        if unfit:
            raise ValueError(f"shape {self.shape!r} has no column `{min(unfit)}` to map")
        pair = named & {"user", "assistant"}
        forbidden = {"user", "assistant"} if self.shape == "columns" else {"user"}
        twice = "messages" in named and named & forbidden
        if twice or (self.shape == "columns" and len(pair) == 1):
            raise ValueError(
                "map either `messages` (a column of chat messages) or both `user` and `assistant`"
            )
        if (self.label_studio_url is None) != (self.label_studio_project is None):
            raise ValueError("give both `label_studio_url` and `label_studio_project`, or neither")
        if self.label_studio_url is not None and self.shape != "label_studio":
            raise ValueError("`label_studio_url` needs shape 'label_studio'")
        return self

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        services = (self.label_studio_url, self.collected)
        if any(services) and (all(services) or self.path or self.hub):
            raise ValueError(
                "a source has either `label_studio_url`, or `collected`, or `path`, `hub` or both"
            )
        if self.path is None and self.hub is None and not any(services):
            raise ValueError("a source needs `path`, `hub` or both")
        return self

    @property
    def place(self) -> str:
        """Where its rows come from, for people."""
        service = f"webhook of {self.collected}"
        if self.label_studio_url is not None:
            service = f"{self.label_studio_url} project {self.label_studio_project}"
        return self.path or self.hub or service

    def fingerprint(self) -> object:
        """All but the place of the rows: that the files have a digest of their own says."""
        return self.model_dump(mode="json", exclude=_PLACE)


class IngestConfig(Record):
    """All sources of a run."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Read in this order")
    max_quarantined_share: float = Field(
        0.1, ge=0, le=1, description="Share of unreadable rows above which the stage fails"
    )


class GoldenConfig(Record):
    """The rows that decide a promotion. Locked at first use; never trained on."""

    name: str = Field("golden", pattern=r"^[\w.-]+$", description="Name of the golden set")
    version: int = Field(1, ge=1, description="A changed set needs a new version")
    reason: str | None = Field(
        None, min_length=1, description="Why this version; needed from the second on"
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 that the file must have"
    )
    sealed_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the rows that is sealed: answered only by a candidate about to be "
        "promoted, who must show its gain there too (gate.sealed_confidence). Fixed for a version",
    )
    source: SourceConfig = Field(description="Where the rows are")

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.version > 1 and not self.reason:
            raise ValueError(
                f"version {self.version} needs a `reason`: scores before and after a change of the "
                "golden set cannot be compared"
            )
        return self
