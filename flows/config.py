"""The one parameter of each flow: what a YAML file and the form in the Prefect UI fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from tasks.artifacts import Record, TaskConfig
from tasks.base_model import BaseModelConfig
from tasks.clean.config import CleanConfig
from tasks.errors import ConfigError
from tasks.evaluate.config import EvaluateConfig
from tasks.format.config import FormatConfig
from tasks.gate.config import GateConfig
from tasks.ingest.config import GoldenConfig, IngestConfig
from tasks.overrides import read_sections
from tasks.report.config import NotifyConfig, ReportConfig
from tasks.serve.canary.config import CanaryConfig
from tasks.serve.config import ServeConfig
from tasks.storage import digest_of
from tasks.synthesize.config import SynthesizeConfig
from tasks.train.config import TrainConfig


class _FlowConfig(Record):
    """What all flows over examples share."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="The model's name in the registry: lower case, digits and dashes",
    )
    task: TaskConfig = Field(TaskConfig(), description="What the model is to do")
    base_model: BaseModelConfig = Field(BaseModelConfig(), description="The model to fine-tune")
    ingest: IngestConfig = Field(description="Where raw examples come from")
    golden: GoldenConfig = Field(description="The rows that decide; never trained on")
    clean: CleanConfig = Field(CleanConfig(), description="Which rows can be trusted")

    @property
    def digest(self) -> str:
        """SHA-256 of the whole configuration, defaults included."""
        return digest_of(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The configuration with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class RetrainConfig(_FlowConfig):
    """Everything that decides a retrain run, one section a stage."""

    format: FormatConfig = Field(FormatConfig(), description="How rows become tokens")
    train: TrainConfig = Field(TrainConfig(), description="How the adapter is trained")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="How models are compared")
    gate: GateConfig = Field(GateConfig(), description="What a candidate must show")
    serve: ServeConfig = Field(ServeConfig(), description="How a promoted model is served")
    canary: CanaryConfig = Field(
        CanaryConfig(), description="How a promoted candidate is tried on live traffic first"
    )
    report: ReportConfig = Field(ReportConfig(), description="What the page shows")

    @model_validator(mode="after")
    def _compared_are_evaluated(self) -> RetrainConfig:
        if "base_few_shot" in self.gate.contestants and not self.evaluate.few_shot.num_examples:
            raise ValueError(
                "gate.rules compare with base_few_shot, but evaluate.few_shot.num_examples is 0. "
                "Set it above 0, or give rules without base_few_shot"
            )
        return self


class SynthesisConfig(_FlowConfig):
    """Everything that decides a run of synthesis; its rows are published under ``name``."""

    synthesize: SynthesizeConfig = Field(description="How examples are written and chosen")


class RollbackConfig(Record):
    """Which version is to serve again, who says so, and why."""

    name: str = Field(min_length=1, description="The model's name in the registry")
    to: str | None = Field(
        None, pattern=r"^[1-9][0-9]*$", description="A version; by default the one before"
    )
    by: str = Field(min_length=1, max_length=200, description="Who decides; kept with the model")
    reason: str = Field(min_length=1, max_length=2000, description="Why; kept with the model")
    readmit: bool = Field(
        False, description="Let a version in again that was rolled back before: `to` names it"
    )
    notify: NotifyConfig = Field(NotifyConfig(), description="Who is told")

    @model_validator(mode="after")
    def _readmitted_by_name(self) -> RollbackConfig:
        if self.readmit and self.to is None:
            raise ValueError("readmit needs `to`: name the version that is to be let in again")
        return self


class WatchConfig(Record):
    """How long one run watches the challengers on live traffic, and who is told."""

    minutes: float = Field(
        15.0,
        gt=0,
        le=24 * 60,
        description="Minutes that a run watches; the next one goes on where it ended",
    )
    notify: NotifyConfig = Field(NotifyConfig(), description="Who is told")


C = TypeVar("C", bound=_FlowConfig)
R = TypeVar("R", bound=Record)


def load_config(path: Path) -> RetrainConfig:
    """The configuration of a retrain run in a YAML file; raises as ``read_config`` does."""
    return read_config(path, RetrainConfig)


def read_config(path: Path, model: type[C]) -> C:
    """The configuration of a flow in a YAML file, laid over the file that it ``extends``, if any.

    Raises MissingFileError when there is no such file, ConfigError with every wrong field, what was
    expected and what came.
    """
    return validated(read_sections(path), model, str(path))


def validated(sections: Mapping[str, Any], model: type[R], where: str) -> R:
    """The configuration of a flow; raises ConfigError, which says ``where`` they are from."""
    try:
        return model.model_validate(sections)
    except ValidationError as error:
        lines = [_describe(detail) for detail in error.errors(include_url=False)]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(lines)) from error


def _describe(detail: Any) -> str:
    """One wrong field on one line: where, what was expected, what came."""
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key. Remove it, or look for a misspelling."
    if detail["type"] == "missing":
        return f"{where}: missing. Add it."
    return f"{where}: {detail['msg']}; came {detail['input']!r}."
