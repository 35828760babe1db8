"""Run a flow once through its deployment, follow it, and show how it ended.

In: a YAML for ``flows.config.RetrainConfig`` or ``SynthesisConfig``. Out: lines as the run goes on,
then its stages, scores and decision. Exits 0 when the run completed, whatever the gate decided; 1
when it failed; 2 when the configuration cannot be run.

    python -m deployments.start deployments/configs/sample.yaml
    python -m deployments.start --dry-run deployments/configs/sample.yaml
    python -m deployments.start synthesize deployments/configs/sample-synthesize.yaml
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from deployments import environment
from deployments.outcome import print_failure, print_outcome, read_summary
from flows.config import RetrainConfig, SynthesisConfig, read_config
from tasks.errors import RetuneError

_FLOWS: dict[str, type[RetrainConfig] | type[SynthesisConfig]] = {
    "retrain": RetrainConfig,
    "synthesize": SynthesisConfig,
}
# What the caller may set for this run alone. Secrets are not passed: Prefect would store them.
_PASSED = ("RETUNE_DATA", "HF_HUB_OFFLINE", "ANTHROPIC_BASE_URL")


def start(config: Path, flow: str = "retrain", *, dry_run: bool = False) -> int:
    """Validate, run, follow, report; the exit code of the run."""
    parameters: dict[str, Any] = {
        "config": read_config(config, _FLOWS[flow]).model_dump(mode="json")
    }
    if dry_run:
        parameters["dry_run"] = True
    environment.apply()
    # Prefect reads its settings from the environment, once, when first imported.
    from deployments.follow import follow

    flow_run_id = submit(f"{flow}/{flow}-manual", parameters)
    url = f"{environment.addresses()['Prefect']}/runs/flow-run/{flow_run_id}"
    print(f"Run {flow_run_id} of {config}\n  {url}", flush=True)
    try:
        ended = follow(flow_run_id)
    except KeyboardInterrupt:
        api = os.environ["PREFECT_API_URL"]
        print(
            f"\nNo longer following; the run goes on: {url}\nTo cancel it: "
            f"PREFECT_API_URL={api} {Path(sys.executable).parent}/prefect flow-run cancel "
            f"{flow_run_id}"
        )
        return 130
    summary = read_summary(str(flow_run_id))
    if summary is not None:
        print_outcome(summary, url)
    if not ended.completed:
        print_failure(ended.state, ended.errors, summary)
    return 0 if ended.completed else 1


def submit(deployment: str, parameters: dict[str, Any]) -> UUID:
    """Start a run of a deployment; answers its id."""
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    try:
        flow_run: Any = run_deployment(
            deployment,
            parameters=parameters,
            timeout=0,
            as_subflow=False,
            job_variables={"env": passed},
        )
    except ObjectNotFound as error:
        raise RetuneError(f"There is no deployment {deployment}: run `make up`.") from error
    except PrefectHTTPStatusError as error:
        raise RetuneError(f"Prefect refused the run: {error.response.text}") from error
    return UUID(str(flow_run.id))


def main(arguments: list[str]) -> int:
    flow = arguments.pop(0) if len(arguments) == 2 and arguments[0] in _FLOWS else "retrain"
    dry_run = flow == "retrain" and "--dry-run" in arguments
    if dry_run:
        arguments.remove("--dry-run")
    if len(arguments) != 1:
        print(
            "Usage: python -m deployments.start [synthesize|--dry-run] CONFIG.yaml", file=sys.stderr
        )
        return 2
    try:
        read_config(Path(arguments[0]), _FLOWS[flow])
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return start(Path(arguments[0]), flow, dry_run=dry_run)
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
