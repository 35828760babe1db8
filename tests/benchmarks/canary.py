"""How often canaries are right, and how soon, watched again and again through the real gateway.

    make bench B=canary

Models of three kinds at once, each with a challenger that answers half of its users: no better than
its champion (200 of them), better (40) and harmful (40). In every round new users ask each model
through the gateway and say whether they accept the answer; then every trial is looked at, as once a
minute in production, and ends when it is decided. Who accepts is drawn by the version that
answered. Gateway, recorder, registry (MLflow), storage (S3) and the watch are the product's own;
the models are a stub, since nothing here depends on what they say.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from tests.benchmarks.gateway import serve_gateway, upstream
from tests.benchmarks.harness import Result

ROUNDS, USERS = 25, 16  # users of each model and round
KINDS = {"no better": 200, "better": 40, "harmful": 40}
ACCEPTED = {"no better": (0.7, 0.7), "better": (0.7, 0.9), "harmful": (0.7, 0.4)}
DIGESTS = ("1" * 12, "2" * 12)
MOST = 0.05


def canary() -> Result:
    models = {
        f"{kind.replace(' ', '-')}-{number}": kind
        for kind, count in KINDS.items()
        for number in range(count)
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        served = [f"{model}@{digest}" for model in models for digest in DIGESTS]
        port = exits.enter_context(
            serve_gateway(
                Path(folder),
                exits.enter_context(upstream(served)),
                lambda: _begin(models),
                {"refresh_seconds": 5.0, "limits": {"max_in_flight_of_a_key": 256}},
            )
        )
        found = asyncio.run(_simulated(models, port))
    outcomes = {kind: Counter(o for k, o, _ in found if k == kind) for kind in KINDS}
    asked = {
        kind: sorted(n for k, outcome, n in found if (k, outcome) == (kind, wanted))
        for kind, wanted in (("better", "promote"), ("harmful", "roll_back"))
    }
    wrong = outcomes["no better"]["promote"] / KINDS["no better"]
    return Result(
        "canary",
        round(wrong, 4),
        "share of the challengers that are no better, promoted",
        MOST,
        wrong <= MOST,
        details={
            "outcomes": {kind: dict(count) for kind, count in outcomes.items()},
            "accepted": ACCEPTED,
            "requests_until_decided": {
                kind: {"median": statistics.median(n), "most": n[-1], "n": len(n)}
                for kind, n in asked.items()
                if n
            },
            "looks": ROUNDS,
            "users": ROUNDS * USERS,
        },
    )


def _begin(models: dict[str, str]) -> None:
    from mlflow.tracking import MlflowClient

    from tasks.registry.trials import begin
    from tasks.serve.canary.config import CanaryConfig
    from tests.tasks.registry.makers import LINEAGE, adapter, decision, promote

    terms = CanaryConfig(enabled=True, share=0.5, min_answers=1).terms()
    assert terms is not None
    client, (first, second) = MlflowClient(), DIGESTS
    for number, model in enumerate(models):
        promote(client, model, first, None)
        made, passed = adapter(second), decision(second, first)
        begin(client, model, made, passed, LINEAGE, None, terms, datetime.now(UTC))
        print(f"{number + 1} of {len(models)} on trial", end="\r", flush=True)


async def _simulated(models: dict[str, str], port: int) -> list[tuple[str, str, int]]:
    """Kind, outcome and requests of every trial."""
    from mlflow.tracking import MlflowClient

    from tasks.objects import open_store
    from tasks.registry.trials import settle
    from tasks.serve.canary.trials import on_trial
    from tasks.serve.canary.watch import Watched

    client, store, draw = MlflowClient(), open_store(), random.Random(7)
    watched = {one.trial.model: (Watched(store, one), one) for one in on_trial(client)}
    found = []
    url = f"http://127.0.0.1:{port}"
    for number in range(ROUNDS):
        units = [(m, f"{number}-{u}") for u in range(USERS) for m in watched]
        # The looks keep this loop from seeing that idle connections are closed meanwhile.
        async with aiohttp.ClientSession(url, trust_env=False) as session:
            await _asked(session, units, models, draw)
        await asyncio.sleep(3.0)  # figures are written every two seconds
        for model, (trial, one) in list(watched.items()):
            verdict = trial.look(one, datetime.now(UTC))
            if verdict.outcome != "watch":
                settle(client, verdict, datetime.now(UTC))
                found.append((models[model], verdict.outcome, verdict.num_requests))
                del watched[model]
        ended = Counter((kind, outcome) for kind, outcome, _ in found)
        print(f"round {number + 1} of {ROUNDS}: {dict(ended)}", flush=True)
    users = ROUNDS * USERS
    return found + [(models[model], "inconclusive", users) for model in watched]


async def _asked(
    session: aiohttp.ClientSession,
    units: list[tuple[str, str]],
    models: dict[str, str],
    draw: random.Random,
) -> None:
    """Every unit asks, and says what it thinks of the answer."""
    waiting = iter(units)

    async def worker() -> None:
        for model, user in waiting:
            body = {"model": model, "user": user, "messages": [{"role": "user", "content": "hi"}]}
            async with session.post("/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                await answer.read()
                version = int(answer.headers["x-model-version"])
                request_id = answer.headers["x-request-id"]
            accepted = draw.random() < ACCEPTED[models[model]][version - 1]
            said = {"request_id": request_id, "accepted": accepted}
            async with session.post("/v1/feedback", json=said) as answer:
                if answer.status != 201:
                    print(await answer.text(), file=sys.stderr)
                    answer.raise_for_status()

    await asyncio.gather(*(worker() for _ in range(32)))
