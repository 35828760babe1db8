"""The local stack's ports, folders and environment, decided in this one place.

In: the variables a person may set (RETUNE_*_PORT, RETUNE_LOCAL, RETUNE_STORE, RETUNE_MODELS,
RETUNE_POOL, RETUNE_AUTH, RETUNE_POSTGRESQL, the AWS keys). Out: ``environment()``, everything a
process of the stack or of a run needs.

    RETUNE_PREFECT_PORT=4300 python -m deployments.stack up
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from deployments import credentials, databases
from tasks.errors import ConfigError

LOOPBACK = "127.0.0.1"
POOLS = ("cpu", "gpu")
_HIGHEST_PORT = 65535
# SeaweedFS opens a gRPC port beside each of its ports, this far above it.
_GRPC = 10_000
_GIVEN_PATHS = ("RETUNE_DATA", "RETUNE_WEBHOOK_CONFIG", "RETUNE_GATEWAY_CONFIG")
_S3_PARTS = ("S3", "S3's master", "S3's volumes", "S3's filer", "S3's admin")


@dataclass(frozen=True)
class Port:
    """A port of the stack: what listens there and which variable moves it."""

    service: str
    variable: str
    number: int


def home() -> Path:
    """The repository root: the folder that holds the deployments package."""
    return Path(__file__).resolve().parent.parent


def local() -> Path:
    """Where the stack keeps everything: RETUNE_LOCAL, by default ``.local`` in the repository."""
    return Path(os.environ.get("RETUNE_LOCAL") or home() / ".local").absolute()


def models() -> Path:
    """Where prepared base models lie: RETUNE_MODELS, by default ``models`` in ``local()``."""
    return Path(os.environ.get("RETUNE_MODELS") or local() / "models").absolute()


def pool() -> str:
    """The work pool whose runs this machine's worker takes: RETUNE_POOL, by default ``cpu``.

    Raises ConfigError where it is none of ``POOLS``.
    """
    wanted = os.environ.get("RETUNE_POOL") or POOLS[0]
    if wanted not in POOLS:
        raise ConfigError(f"RETUNE_POOL={wanted}: expected {' or '.join(POOLS)}.")
    return wanted


def s3_port() -> int:
    return _port("RETUNE_S3_PORT", 8333)


def prefect_port() -> int:
    return _port("RETUNE_PREFECT_PORT", 4200)


def mlflow_port() -> int:
    return _port("RETUNE_MLFLOW_PORT", 5000)


def webhook_port() -> int:
    return _port("RETUNE_WEBHOOK_PORT", 8090)


def vllm_port() -> int:
    return _port("RETUNE_VLLM_PORT", 8100)


def gateway_port() -> int:
    return _port("RETUNE_GATEWAY_PORT", 8080)


def ports() -> list[Port]:
    """Every port that the stack opens, the derived ones of SeaweedFS too."""
    first, variable = s3_port(), "RETUNE_S3_PORT"
    if first + len(_S3_PARTS) - 1 + _GRPC > _HIGHEST_PORT:
        highest = _HIGHEST_PORT - _GRPC - len(_S3_PARTS) + 1
        raise ConfigError(f"{variable}={first}: expected at most {highest}, for its gRPC ports.")
    s3 = [Port(part, variable, first + i) for i, part in enumerate(_S3_PARTS)]
    grpc = [Port(f"{port.service} (gRPC)", variable, port.number + _GRPC) for port in s3]
    prefect = Port("Prefect", "RETUNE_PREFECT_PORT", prefect_port())
    mlflow = Port("MLflow", "RETUNE_MLFLOW_PORT", mlflow_port())
    webhook = Port("the webhook receiver", "RETUNE_WEBHOOK_PORT", webhook_port())
    gateway = Port("the gateway", "RETUNE_GATEWAY_PORT", gateway_port())
    return _distinct([*s3, *grpc, prefect, mlflow, webhook, gateway])


def addresses() -> dict[str, str]:
    """The address of each service of the stack, for people and for clients."""
    return {
        "Prefect": f"http://{LOOPBACK}:{prefect_port()}",
        "MLflow": f"http://{LOOPBACK}:{mlflow_port()}",
        "Webhook": f"http://{LOOPBACK}:{webhook_port()}",
        "Gateway": f"http://{LOOPBACK}:{gateway_port()}",
        "S3": f"http://{LOOPBACK}:{s3_port()}",
    }


def bucket() -> str:
    """The bucket of the stack's store; RETUNE_STORE must name one."""
    store = os.environ.get("RETUNE_STORE") or "s3://retune"
    name = store.removeprefix("s3://").split("/")[0]
    if not store.startswith("s3://") or not name:
        raise ConfigError(f"RETUNE_STORE={store}: expected s3://BUCKET[/PREFIX].")
    return name


def environment() -> dict[str, str]:
    """What every process of the stack and of a run needs, to be laid over ``os.environ``.

    Holds secrets: never print it, and never put its values on a command line.
    """
    folder = local()
    return {
        **_services(),
        **_folders(folder),
        **quiet(),
        **databases.environment(folder),
        **credentials.s3_keys(folder),
        **credentials.login_environment(folder),
    }


def apply() -> None:
    """Lay ``environment()`` over this process; to be done before Prefect is first imported."""
    os.environ.update(environment())


def _services() -> dict[str, str]:
    at = addresses()
    api = f"{at['Prefect']}/api"
    named = {f"RETUNE_{part.upper()}_PORT": url.rsplit(":", 1)[1] for part, url in at.items()}
    # SeaweedFS takes its other ports from the first; the Procfile can name but not add.
    derived = {
        f"RETUNE_S3_{part}_PORT": str(s3_port() + i)
        for i, part in enumerate(("MASTER", "VOLUME", "FILER", "ADMIN"), start=1)
    }
    proxies = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    direct = ",".join(filter(None, [proxies, LOOPBACK, "localhost"]))
    return (
        named
        | derived
        | {
            "AWS_ENDPOINT_URL_S3": at["S3"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": at["S3"],
            "MLFLOW_TRACKING_URI": at["MLflow"],
            "PREFECT_API_URL": api,
            "PREFECT_UI_API_URL": api,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY")
            or "60",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks",
            "RETUNE_STORE": os.environ.get("RETUNE_STORE") or f"s3://{bucket()}",
            # A proxy for the outside world must not catch calls to the stack.
            "NO_PROXY": direct,
            "no_proxy": direct,
        }
    )


def _folders(folder: Path) -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return {
        "RETUNE_HOME": str(home()),
        # Empty and not absent, so that a run without it does not inherit that of the stack's start.
        **{name: _absolute(os.environ.get(name)) for name in _GIVEN_PATHS},
        "RETUNE_LOCAL": str(folder),
        "RETUNE_MODELS": str(models()),
        "RETUNE_BUCKET": bucket(),
        "RETUNE_POOL": pool(),
        "PREFECT_HOME": str(folder / "prefect"),
        "MLFLOW_AUTH_CONFIG_PATH": str(home() / "infra" / "local" / "mlflow-auth.ini"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torchinductor"),
        "HF_HOME": os.environ.get("HF_HOME") or str(folder / "huggingface"),
        "PATH": os.pathsep.join([binaries, *(part for part in path if part != binaries)]),
    }


def quiet() -> dict[str, str]:
    """What keeps libraries from calling home, and from needing a display."""
    return {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A client without a server is to say so, not to start one of its own.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # MLflow's job runner serves features that nothing here uses, with processes of its own.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE") or "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",
    }


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) <= _HIGHEST_PORT:
        raise ConfigError(f"{variable}={text}: expected a port, 1 to {_HIGHEST_PORT}.")
    return int(text)


def _distinct(found: list[Port]) -> list[Port]:
    seen: dict[int, Port] = {}
    for port in found:
        if (other := seen.setdefault(port.number, port)) is not port:
            raise ConfigError(
                f"{port.service} and {other.service} would both use port {port.number}: change "
                f"{port.variable} or {other.variable}."
            )
    return found
