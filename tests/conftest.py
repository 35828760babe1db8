"""What tests share: a quiet environment for all, and the real local stack for those that ask."""

from __future__ import annotations

import base64
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from deployments import environment
from tests import postgresql

pytest_plugins = ("tests.base_models", "tests.messages_api")

WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()

# Machines are shared and noisy: how long an example takes fails no test.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# Before any test module imports a library that reads its settings when imported.
os.environ.update(environment.quiet())
# No test asks a real API, whatever keys the shell has.
for _name in (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """S3, Prefect, MLflow and a worker on free ports, bootstrapped; the folder that holds all.

    Processes and clients find them by the environment, which is set for the rest of the session.
    Only the prepared base model is shared with the stack of the checkout. With
    RETUNE_TEST_POSTGRESQL=1, Prefect and MLflow are on a PostgreSQL server of the tests' own.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from deployments.stack import down, up

    models = environment.models()
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch, database_server() as databases:
        for name, value in {
            **free_ports_for_a_stack(),
            **databases,
            "RETUNE_LOCAL": str(folder),
            "RETUNE_MODELS": str(models),
            "RETUNE_WEBHOOK_CONFIG": str(webhook_config(folder / "webhook.yaml")),
            "RETUNE_WEBHOOK_GENERIC_SECRET": WEBHOOK_SECRET,
            # Versions of no weight are promoted; tests that serve start what serves them.
            "RETUNE_SERVE": "0",
        }.items():
            patch.setenv(name, value)
        others = {"RETUNE_STORE", "RETUNE_DATA", "RETUNE_AUTH", "RETUNE_POSTGRESQL", "HF_HOME"}
        for name in others - databases.keys():
            patch.delenv(name, raising=False)
        try:
            up()
            for name, value in environment.environment().items():
                patch.setenv(name, value)
            settings = {
                PREFECT_API_URL: os.environ["PREFECT_API_URL"],
                PREFECT_HOME: os.environ["PREFECT_HOME"],
            }
            # Prefect may have been imported, with other settings, when the tests were collected.
            with temporary_settings(settings):
                yield folder
        finally:
            down()


@contextmanager
def database_server() -> Iterator[dict[str, str]]:
    """Where a stack has its databases: nothing to say of SQLite, the default."""
    if os.environ.get("RETUNE_TEST_POSTGRESQL") != "1":
        yield {}
        return
    with postgresql.running(free_port()) as address:
        yield {"RETUNE_POSTGRESQL": address}


def webhook_config(file: Path) -> Path:
    """A receiver that starts a run for three rows."""
    file.write_text("hooks: {generic: {min_rows: 3}}")
    return file


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], dict[str, str]]:
    """Makes ports for a stack of one's own; all those that it derives are free too."""
    return free_ports_for_a_stack


def free_ports_for_a_stack() -> dict[str, str]:
    for _ in range(100):
        # All below the range that Linux takes the ports of outgoing connections from (32768 on).
        first = random.randrange(11_000, 22_500, 10)
        wanted = [first + offset for offset in range(10)]
        if all(map(_is_free, [*wanted, *(port + 10_000 for port in wanted)])):
            return {
                "RETUNE_S3_PORT": str(first),
                "RETUNE_PREFECT_PORT": str(first + 5),
                "RETUNE_MLFLOW_PORT": str(first + 6),
                "RETUNE_WEBHOOK_PORT": str(first + 7),
                "RETUNE_GATEWAY_PORT": str(first + 8),
                "RETUNE_VLLM_PORT": str(first + 9),
            }
    raise RuntimeError("No free ports for a stack.")


def free_port() -> int:
    """One port, below those of outgoing connections."""
    return int(free_ports_for_a_stack()["RETUNE_S3_PORT"])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
