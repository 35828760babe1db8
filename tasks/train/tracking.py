"""Training's curve in MLflow while it grows. MLflow being away costs the live view, no training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)
_PARAMS_A_BATCH = 100  # MLflow's own limit


class Tracker:
    """One MLflow run. Metrics that could not be sent wait, and go with the next ones that can."""

    def __init__(self, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        self._client = MlflowClient()
        run = self._client.create_run(
            _experiment_id(self._client, experiment), run_name=name, tags=dict(tags)
        )
        self.run_id: str = run.info.run_id
        self._waiting: list[Metric] = []

    def params(self, values: Mapping[str, object]) -> None:
        """Log the run's parameters, nested names joined by dots."""
        params = [Param(k, str(v)[:500]) for k, v in values.items()]
        for start in range(0, len(params), _PARAMS_A_BATCH):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_A_BATCH])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step; when MLflow does not answer they are kept for later."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(k, float(v), now, step) for k, v in values.items()]
        try:
            self._client.log_batch(self.run_id, metrics=self._waiting)
        except MlflowException as error:
            logger.warning("MLflow did not take %d metrics: %s", len(self._waiting), error)
        else:
            self._waiting = []

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Close the run; what still waits is sent first, and said when it cannot be."""
        try:
            run_tags = [RunTag(k, v) for k, v in tags.items()]
            self._client.log_batch(self.run_id, metrics=self._waiting, tags=run_tags)
            self._client.set_terminated(self.run_id, status)
        except MlflowException as error:
            logger.warning(
                "MLflow run %s stays open with %d metrics missing (%s); the whole curve is in the "
                "adapter's log.json.",
                self.run_id,
                len(self._waiting),
                error,
            )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested settings as ``outer.inner`` names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment's id, made if need be; two runs that make it at once get the same one."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
