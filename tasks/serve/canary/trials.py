"""Which challengers are on trial, as the registry says."""

from __future__ import annotations

from typing import NamedTuple

from mlflow.tracking import MlflowClient

from tasks.serve.aliases import CHALLENGER, CHAMPION, PARITY, PARITY_FAILED, models
from tasks.trial import TRIAL, Trial


class OnTrial(NamedTuple):
    """A trial, who is champion now, and why no replica may serve the challenger, if it may not."""

    trial: Trial
    champion: str
    refused: str | None


def on_trial(client: MlflowClient) -> list[OnTrial]:
    """Every challenger whose trial has begun. Raises what MLflow's client raises."""
    found = []
    for model in models(client):
        if CHALLENGER not in model.aliases or CHAMPION not in model.aliases:
            continue
        tags = client.get_model_version(model.name, str(model.aliases[CHALLENGER])).tags
        if (told := tags.get(TRIAL)) is not None:
            parity = tags.get(PARITY, "")
            found.append(
                OnTrial(
                    Trial.model_validate_json(told),
                    str(model.aliases[CHAMPION]),
                    parity if parity.startswith(PARITY_FAILED) else None,
                )
            )
    return found
