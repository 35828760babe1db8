"""Bring a running stack to where a flow can be run on it. Idempotent.

In: the environment of ``deployments/environment.py``, with S3 and Prefect up. Out: the bucket; the
blocks ``aws-credentials/retune`` and ``s3-bucket/retune``, where results are kept; the work pools
``cpu`` and ``gpu``, with the queues ``retrain`` and ``urgent``; the deployments of
``deployments/prefect.yaml`` and one for each preset, in the pool that RETUNE_POOL names.

    python -m deployments.bootstrap

Prefect is imported inside the functions: it reads its settings once, when first imported, and
``main`` has to set them before.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from deployments import environment, presets, processes
from flows.config import SynthesisConfig, load_config, read_config
from tasks.errors import ConfigError, RetuneError, StorageError

# The queues of a pool, and how many of their runs are on at a time; None for any number.
_QUEUES = {"retrain": 1, "urgent": None}
_BLOCK = "retune"
_SYNTHESIS = environment.home() / "deployments" / "configs" / "sample-synthesize.yaml"
# Standard mode waits up to 20 s between attempts: ten bridge a restart of S3.
_S3_CONFIG = {
    "retries": {"mode": "standard", "total_max_attempts": 10},
    "connect_timeout": 5,
    "read_timeout": 60,
}


def bootstrap() -> None:
    """Make whatever is missing, and bring what exists up to date."""
    _ensure_bucket(environment.bucket())
    save_blocks()
    _ensure_pools()
    _deploy()
    _crash_orphans()


def weekly_config() -> Path:
    """The YAML whose parameters the weekly schedule runs with, unless a run brings its own."""
    named = os.environ.get("RETUNE_WEEKLY_CONFIG")
    sample = environment.home() / "deployments" / "configs" / "sample.yaml"
    return Path(named).absolute() if named else sample


def _ensure_bucket(name: str) -> None:
    # S3 answered just now: there is less to wait for here than in the middle of a run.
    client = boto3.client("s3", config=Config(connect_timeout=5, retries={"mode": "standard"}))
    try:
        client.create_bucket(Bucket=name)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        return
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"Bucket {name!r} could not be made: {error}") from error


def save_blocks() -> None:
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters

    # No keys in the block, which Prefect stores: they stay in the environment.
    credentials = AwsCredentials(
        region_name=os.environ["AWS_DEFAULT_REGION"],
        aws_client_parameters=AwsClientParameters(
            endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], config=_S3_CONFIG
        ),
    )
    credentials.save(_BLOCK, overwrite=True)
    bucket = S3Bucket(
        bucket_name=environment.bucket(),
        bucket_folder="results",
        credentials=AwsCredentials.load(_BLOCK),
    )
    bucket.save(_BLOCK, overwrite=True)


def _ensure_pools() -> None:
    """The pools, which a worker may have made meanwhile, and their queues."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name in environment.POOLS:
            pool = WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_work_pool(pool)
            for queue_name, limit in _QUEUES.items():
                try:
                    queue = client.read_work_queue_by_name(queue_name, work_pool_name=name)
                except ObjectNotFound:
                    queue = client.create_work_queue(queue_name, work_pool_name=name)
                client.update_work_queue(queue.id, concurrency_limit=limit)


def _deploy() -> None:
    """``prefect deploy`` for the committed file, completed with what only a config file knows."""
    source = environment.home() / "deployments" / "prefect.yaml"
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    weekly = load_config(weekly_config())
    configs: dict[str, BaseModel] = {
        "flows.retrain:retrain": weekly,
        "flows.synthesize:synthesize": read_config(_SYNTHESIS, SynthesisConfig),
    }
    parameters = {key: {"config": c.model_dump(mode="json")} for key, c in configs.items()}
    # Who and why is for the person to say.
    told = weekly.report.notify.model_dump(mode="json")
    parameters["flows.rollback:rollback"] = {"config": {"name": weekly.name, "notify": told}}
    parameters["flows.canary:canary"] = {"config": {"notify": told}}
    for deployment in document["deployments"]:
        if deployment["entrypoint"] in parameters:
            deployment["parameters"] = parameters[deployment["entrypoint"]]
    chosen = presets.presets(weekly_config())
    document["deployments"] += _of_presets(document["deployments"], chosen)
    for deployment in document["deployments"]:
        _keep_switches(deployment)
    complete = environment.local() / "prefect" / "prefect.yaml"
    complete.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    command = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(complete)]
    version = {"RETUNE_VERSION": importlib.metadata.version("retune")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **version},
        cwd=environment.home(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"`prefect deploy` of {source} failed:\n{done.stdout}{done.stderr}")
    _forget_presets({preset.name for preset in chosen})


def _of_presets(
    deployments: list[dict[str, Any]], chosen: list[presets.Preset]
) -> list[dict[str, Any]]:
    """The manual deployment once more for each preset, with what it starts from."""
    manual = next(found for found in deployments if found["name"] == "retrain-manual")
    return [
        {
            **manual,
            "name": preset.name,
            "description": preset.description,
            "tags": [*manual["tags"], presets.TAG],
            "parameters": {"config": preset.config.model_dump(mode="json")},
        }
        for preset in chosen
    ]


def _forget_presets(names: set[str]) -> None:
    """A preset whose file is gone would go on in the UI as it was; its runs stay."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=["retune", presets.TAG]))
    with get_client(sync_client=True) as client:
        for found in client.read_deployments(deployment_filter=tagged):
            if found.name not in names:
                client.delete_deployment(found.id)


def _keep_switches(deployment: dict[str, Any]) -> None:
    """What a person switched off in the UI stays off: ``prefect deploy`` would switch it on."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    flow = deployment["entrypoint"].partition(":")[2]
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"{flow}/{deployment['name']}")
        except ObjectNotFound:
            return
    deployment["paused"] = found.paused
    active = {getattr(one.schedule, "cron", None): one.active for one in found.schedules}
    for schedule in deployment["schedules"]:
        schedule["active"] = active.get(schedule["cron"], schedule["active"])


def _crash_orphans() -> None:
    """Runs that were on when the stack ended would say Running for ever, and keep their slot."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Crashed

    leader = processes.supervisor(environment.local())
    started = datetime.fromtimestamp(leader.create_time() if leader else 0, UTC)
    types = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    unfinished = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=unfinished):
            if run.state is not None and run.state.timestamp < started:
                state: State[Any] = Crashed(message="The stack ended during this run.")
                client.set_flow_run_state(run.id, state, force=True)
                print(f"Run {run.name} was cut off when the stack ended: marked Crashed.")


def main() -> int:
    try:
        environment.apply()
        bootstrap()
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
