"""What the gateway needs: where the replicas are, who may ask how much, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from tasks.artifacts import Record
from tasks.errors import ConfigError


class ServeConfig(Record):
    """How a promoted model is to be served, and is held against."""

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of the served weights; auto: bfloat16 on a GPU, float32 without, "
        "where vLLM's bfloat16 gives other answers than transformers'",
    )

    def served_dtype(self) -> Literal["float32", "bfloat16"]:
        """The precision on this machine."""
        if self.dtype != "auto":
            return self.dtype
        import torch

        return "bfloat16" if torch.cuda.is_available() else "float32"


class LimitsConfig(Record):
    """What a request may take, and how many there may be at once."""

    max_body_bytes: int = Field(
        4 * 2**20, ge=1024, description="A larger body is refused while it is read"
    )
    max_in_flight: int = Field(
        256, ge=1, description="Requests at once above which the answer is 503"
    )
    max_in_flight_of_a_key: int = Field(
        128, ge=1, description="Requests at once with one API key above which the answer is 429"
    )
    body_seconds: float = Field(15.0, gt=0, description="Time for a body to arrive")
    connect_seconds: float = Field(2.0, gt=0, description="Time to reach a replica")
    first_byte_seconds: float = Field(
        60.0, gt=0, description="Time until a replica begins its answer"
    )
    idle_seconds: float = Field(
        30.0, gt=0, description="Time between two pieces of a streamed answer"
    )


class TrafficConfig(Record):
    """What is kept of the requests, in the store."""

    sampled: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the requests whose messages are kept, after personal data is taken "
        "out of them; of all others only the figures are",
    )
    flush_seconds: float = Field(
        2.0, gt=0, le=60, description="Time between two writes; a lost machine loses as much"
    )
    max_records: int = Field(
        10_000,
        ge=100,
        description="Records that may wait while storage is away; what comes above is counted "
        "and not kept",
    )


class GatewayConfig(Record):
    """The gateway."""

    replicas: tuple[str, ...] = Field(
        (), description="Addresses of vLLM servers; none: the one of this machine's stack"
    )
    challenger_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the users that a challenger answers, unless its model's tag "
        "challenger_share in the registry says otherwise",
    )
    assign_by: Literal["user", "conversation", "request"] = Field(
        "user",
        description="What stays with one version: a user (the field `user` or the header "
        "x-user-id), a conversation (x-conversation-id), or nothing; without one the next holds",
    )
    refresh_seconds: float = Field(
        0.5, gt=0, le=10, description="Time between two looks at the registry and at the replicas"
    )
    keys_file: Path | None = Field(
        None,
        description="API keys as NAME SHA256 [EXPIRES] lines; none: whoever reaches the gateway "
        "may ask, which listens on the loopback interface alone",
    )
    feedback_days: float = Field(30.0, gt=0, description="Time for feedback on an answer")
    limits: LimitsConfig = LimitsConfig()
    traffic: TrafficConfig = TrafficConfig()

    @field_validator("replicas")
    @classmethod
    def _addresses(cls, replicas: tuple[str, ...]) -> tuple[str, ...]:
        for url in replicas:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is not an HTTP address")
        return tuple(url.rstrip("/") for url in replicas)


def read_config(file: Path | None) -> GatewayConfig:
    """The settings in a YAML file, or the defaults. Raises ConfigError that names the fields."""
    if file is None:
        return GatewayConfig()
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        return GatewayConfig.model_validate({} if values is None else values)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {error}") from error
