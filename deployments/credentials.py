"""The local stack's secrets: given by the environment, or made once and kept for its owner alone.

In: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, RETUNE_AUTH. Out: the variables by which servers
know them and clients give them; ``credentials.env`` and ``login.env`` in the stack's folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.errors import ConfigError, StorageError

USER = "retune"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_GATEWAY = "RETUNE_GATEWAY_SECRET"
_LOGIN = ("RETUNE_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")


def s3_keys(folder: Path) -> dict[str, str]:
    """The S3 keys: those of the environment, or a pair made once.

    Raises ConfigError where only one of the two is given, or a kept file holds less than both.
    """
    given = {key: os.environ[key] for key in _KEYS if os.environ.get(key)}
    if given and len(given) < len(_KEYS):
        missing = next(key for key in _KEYS if key not in given)
        raise ConfigError(f"{next(iter(given))} is set but {missing} is not: set both or neither.")
    # A session token of another account, were it inherited, would be sent along and refused.
    return (given or _kept(_keys_file(folder), _KEYS, _new_keys)) | {"AWS_SESSION_TOKEN": ""}


def login(folder: Path) -> tuple[str, str] | None:
    """User and password of Prefect and MLflow; None unless RETUNE_AUTH is 1.

    Raises ConfigError where RETUNE_AUTH is neither 0 nor 1.
    """
    wanted = os.environ.get("RETUNE_AUTH") or "0"
    if wanted not in ("0", "1"):
        raise ConfigError(f"RETUNE_AUTH={wanted}: expected 1, for a login, or 0.")
    return (USER, _kept_login(folder)["RETUNE_PASSWORD"]) if wanted == "1" else None


def login_environment(folder: Path) -> dict[str, str]:
    """What Prefect's and MLflow's servers and clients read of the login; empty without one."""
    found = login(folder)
    if found is None:
        return {"RETUNE_AUTH": ""}
    user, password = found
    return {
        "RETUNE_AUTH": "1",
        "PREFECT_SERVER_API_AUTH_STRING": f"{user}:{password}",
        "PREFECT_API_AUTH_STRING": f"{user}:{password}",
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept_login(folder)["MLFLOW_FLASK_SERVER_SECRET_KEY"],
    }


def login_file(folder: Path) -> Path:
    """Where the password stands."""
    return folder / "login.env"


def gateway_secret(folder: Path) -> str:
    """By which gateways know the requests that they answered: RETUNE_GATEWAY_SECRET, or one made
    once. All replicas of a gateway need the same.
    """
    given = os.environ.get(_GATEWAY)
    return given or _kept(folder / "gateway.env", (_GATEWAY,), _new_gateway)[_GATEWAY]


def _keys_file(folder: Path) -> Path:
    return folder / "credentials.env"


def _kept_login(folder: Path) -> dict[str, str]:
    return _kept(login_file(folder), _LOGIN, _new_login)


def _new_keys() -> dict[str, str]:
    return dict(zip(_KEYS, (secrets.token_hex(10), secrets.token_hex(20)), strict=True))


def _new_gateway() -> dict[str, str]:
    return {_GATEWAY: secrets.token_hex(32)}


def _new_login() -> dict[str, str]:
    return {name: secrets.token_hex(20) for name in _LOGIN}


def _kept(file: Path, names: tuple[str, ...], make: Callable[[], dict[str, str]]) -> dict[str, str]:
    if not file.exists():
        _write_once(file, make())
    lines = (line.partition("=") for line in file.read_text(encoding="utf-8").splitlines())
    values = {name: value for name, _, value in lines if name in names and value}
    if len(values) < len(names):
        raise ConfigError(
            f"{file}: expected {' and '.join(names)}. Delete it to have new ones made."
        )
    return values


def _write_once(file: Path, values: Mapping[str, str]) -> None:
    """Write a whole file under a private name, then link it: of two at once, the first wins."""
    private = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.writelines(f"{name}={value}\n" for name, value in values.items())
        with contextlib.suppress(FileExistsError):
            os.link(private, file)
    except OSError as error:
        raise StorageError(
            f"Cannot write {file}: {error.strerror}. Free some space, or set RETUNE_LOCAL to a "
            "folder that can be written."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            private.unlink()
