"""The stages ``record_parity`` and ``watch_challengers`` as Prefect sees them."""

from __future__ import annotations

from datetime import datetime

from tasks.artifacts import Adapter, FormattedDataset, ParityReference
from tasks.objects import open_store
from tasks.openai_client import load_hosted
from tasks.serve.config import ServeConfig
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch
from tasks.trial import Verdict


@stage("record_parity", timeout_seconds=1800, libraries=("torch", "transformers", "peft"))
def record_parity(
    formatted: FormattedDataset, adapter: Adapter, config: ServeConfig
) -> ParityReference | None:
    """What a server of the adapter must compute as well; None for a model behind an API."""
    from tasks.serve import parity
    from tasks.serve.reference import measured

    store = open_store()
    weights = fetch(store, adapter.uri, adapter.digest)
    if load_hosted(weights) is not None:
        return None
    lines = (fetch(store, formatted.uri, formatted.digest) / "probes.jsonl").read_text("utf-8")
    probes = [parity.Probe.model_validate_json(line) for line in lines.splitlines()]
    with scratch() as output:
        found = measured(probes, adapter.base_model, weights, config.served_dtype())
        (output / parity.FILE).write_text(parity.written(found), encoding="utf-8")
        uri, digest = commit(store, "parity", output)
    return ParityReference(
        uri=uri,
        digest=digest,
        num_in=len(probes),
        num_out=len(found),
        adapter_digest=adapter.adapter_digest,
        dtype=config.served_dtype(),
    )


@stage("watch_challengers", timeout_seconds=25 * 3600, cached=False)
def watch_challengers(until: datetime) -> list[Verdict]:
    """Look at every challenger on live traffic until one is decided, or the time is over."""
    from mlflow.tracking import MlflowClient

    from tasks.serve.canary.watch import watch

    return watch(open_store(), MlflowClient(), until)
