"""What a webhook needs: when its rows start a run, and how much it may send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from tasks.artifacts import Record
from tasks.collected import Hook
from tasks.errors import ConfigError


class HookConfig(Record):
    """One source of events."""

    min_rows: int = Field(
        50, ge=1, description="New or changed rows that start a run; of s3, objects"
    )
    max_age_hours: float = Field(
        24.0, gt=0, description="A run is started for fewer rows when the oldest waited this long"
    )
    max_body_bytes: int = Field(
        2 * 2**20, ge=1024, description="A larger body is refused while it is read"
    )
    max_per_second: float = Field(
        2000.0, gt=0, description="Events a second above which the sender is told to wait"
    )
    label_studio_url: str | None = Field(
        None,
        description="Of label-studio: the server, which is asked for what its webhooks did not "
        "tell; the key is in LABEL_STUDIO_API_KEY",
    )
    label_studio_project: int | None = Field(None, ge=1, description="Its project's number")
    reconcile_minutes: float = Field(
        60.0, gt=0, description="Time between two times that it is asked"
    )
    start_runs: bool = Field(True, description="Start runs; False: collect the rows alone")

    @model_validator(mode="after")
    def _project_of_a_server(self) -> HookConfig:
        if (self.label_studio_url is None) != (self.label_studio_project is None):
            raise ValueError("give both `label_studio_url` and `label_studio_project`, or neither")
        return self


class WebhookConfig(Record):
    """The receiver."""

    deployment: str = Field("retrain/retrain-on-data", description="Deployment that new rows start")
    drain_seconds: float = Field(
        1.0, gt=0, le=3600, description="Least time between two looks into the inbox"
    )
    hooks: dict[Hook, HookConfig] = Field(
        {hook: HookConfig() for hook in ("label-studio", "argilla", "labelbox", "s3", "generic")},
        description="The sources; one is on when its secret is in the environment",
    )


def read_config(path: Path | None) -> WebhookConfig:
    """The receiver's config. Raises ConfigError for one that is none."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}
        return WebhookConfig.model_validate(values or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: no config of the webhook receiver: {error}") from error
