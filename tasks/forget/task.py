"""The stages ``trace``, ``bury`` and ``record`` as Prefect sees them: never cached.

Each reads the identifiers again where the config says they are: what passes between them is
recorded by Prefect, and never holds any.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact

from tasks.errors import ConfigError
from tasks.forget import apply as steps
from tasks.forget.config import ForgetConfig
from tasks.forget.markdown import markdown
from tasks.forget.records import Forgotten, Traces
from tasks.forget.search import RECORD
from tasks.forget.trace import trace as find
from tasks.objects import Store, open_store
from tasks.stage import stage
from tasks.storage import local_folder
from tasks.tombstones import Tombstones, has_salt, links_of, salt_of


@stage("trace", timeout_seconds=24 * 3600, cached=False)
def trace(config: ForgetConfig) -> Traces:
    """Find every artifact, data set, adapter and model version that holds it."""
    from mlflow.tracking import MlflowClient

    store = open_store()
    sought = _sought(store, config)
    traces = find(store, MlflowClient(), sought, links_of(store, sought.digest), config.name)
    # Without the store's own salt the digest means nothing to the next search.
    return traces if has_salt(store) else traces.model_copy(update={"request": ""})


@stage("bury", timeout_seconds=24 * 3600, cached=False)
def bury(config: ForgetConfig, traces: Traces) -> Forgotten:
    """Write the tombstone, mark the models, erase where asked to."""
    from mlflow.tracking import MlflowClient

    store = open_store()
    sought = _sought(store, config)
    steps.check_share(traces, config.max_share)
    key = steps.keep_out(store, sought, traces, links_of(store, sought.digest))
    done = seen(config, traces)
    marked = steps.mark(MlflowClient(), traces.models, sought.digest[:12], done.date)
    erased = steps.erase(store, traces.places) if config.erase else ()
    return done.model_copy(
        update={"applied": True, "tombstone": key, "marked": marked, "erased": erased}
    )


@stage("record", timeout_seconds=600, cached=False)
def record(done: Forgotten, flow_run_id: str) -> Forgotten:
    """Leave ``forget.json`` here and in the store, and a page in Prefect."""
    body = done.model_dump_json(indent=1)
    folder = local_folder() / "runs" / flow_run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(body, encoding="utf-8")
    open_store().put_bytes(f"runs/{flow_run_id}/{RECORD}", body.encode())
    create_markdown_artifact(markdown(done), key="forget")
    return done


def seen(config: ForgetConfig, traces: Traces) -> Forgotten:
    """What a dry run has to say."""
    in_clear = bool(config.identifiers or config.texts)
    return Forgotten(
        reason=config.reason,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        applied=False,
        traces=traces,
        left=steps.left_to_do(traces, in_clear=in_clear, erased=config.erase),
    )


def _sought(store: Store, config: ForgetConfig) -> Tombstones:
    sought = Tombstones.of(salt_of(store, create=config.apply), config.wanted(), config.example_ids)
    if sought.matches_text(config.reason):
        raise ConfigError("`reason` names what is to be forgotten, and is kept: word it otherwise.")
    return sought
