"""Where Prefect and MLflow keep what they know: SQLite in the stack's folder, or PostgreSQL.

In: RETUNE_POSTGRESQL, as ``postgresql://USER:PASSWORD@HOST:PORT``. Out: the variables that the two
servers read, and on PostgreSQL the databases ``retune_prefect`` and ``retune_mlflow``, made where
they are missing.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import ConfigError, StorageError

_VARIABLE = "RETUNE_POSTGRESQL"
_PREFECT, _MLFLOW = "retune_prefect", "retune_mlflow"
_CONNECT_SECONDS = 10


def environment(folder: Path) -> dict[str, str]:
    """What tells Prefect and MLflow their databases; raises as ``server`` does."""
    found = server()
    if found is None:
        prefect = f"sqlite+aiosqlite:///{folder}/prefect/prefect.db"
        mlflow = f"sqlite:///{folder}/mlflow/mlflow.db"
    else:
        prefect = f"postgresql+asyncpg://{found}/{_PREFECT}"
        mlflow = f"postgresql+psycopg2://{found}/{_MLFLOW}"
    return {
        "PREFECT_API_DATABASE_CONNECTION_URL": prefect,
        "MLFLOW_BACKEND_STORE_URI": mlflow,
        _VARIABLE: os.environ.get(_VARIABLE) or "",
    }


def server() -> str | None:
    """The PostgreSQL server, as ``user:password@host:port``; None for SQLite.

    Raises ConfigError where RETUNE_POSTGRESQL is no such address. The message leaves it out: it
    holds a password.
    """
    given = os.environ.get(_VARIABLE)
    if not given:
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise ConfigError(f"{_VARIABLE}: expected postgresql://USER:PASSWORD@HOST:PORT.")
    if parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"{_VARIABLE} names a database or options after the host {parts.hostname}: expected "
            f"the server alone. Its databases are {_PREFECT} and {_MLFLOW}."
        )
    return parts.netloc


def prepare() -> None:
    """Make the databases on PostgreSQL where they are missing; nothing to do for SQLite.

    Raises:
        ConfigError: the server refuses the login, or to make a database.
        StorageError: it does not answer.
    """
    found = server()
    if found is None:
        return
    if importlib.util.find_spec("psycopg2") is None:
        raise ConfigError("MLflow on PostgreSQL needs psycopg2: pip install 'retune[postgresql]'.")
    for name in (_PREFECT, _MLFLOW):
        asyncio.run(_ensure(found, name))


async def _ensure(server: str, name: str) -> None:
    import asyncpg

    host = server.rpartition("@")[2]
    try:
        try:
            connection = await _connect(server, name)
        except asyncpg.InvalidCatalogNameError:
            connection = await _connect(server, "postgres")
            try:
                await connection.execute(f'CREATE DATABASE "{name}"')
            finally:
                await connection.close()
        else:
            await connection.close()
    except asyncpg.DuplicateDatabaseError:
        return  # another stack made it meanwhile
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"PostgreSQL at {host} lets the user of {_VARIABLE} make no database: make {name} "
            "for it, or give it CREATEDB."
        ) from error
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise ConfigError(
            f"PostgreSQL at {host} refuses the user and password of {_VARIABLE}."
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StorageError(
            f"PostgreSQL at {host} does not answer: {error or type(error).__name__}. Start it, or "
            f"unset {_VARIABLE} for SQLite."
        ) from error


async def _connect(server: str, database: str) -> Any:
    import asyncpg

    return await asyncpg.connect(f"postgresql://{server}/{database}", timeout=_CONNECT_SECONDS)
