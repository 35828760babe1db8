"""A new API key for the gateway: python -m deployments.gateway_key FILE NAME [EXPIRES]

Prints the key, this once; the file, which the gateway reads again by itself, gets its digest.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import ConfigError, RetuneError
from tasks.serve.keys import add


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3):
        print("usage: python -m deployments.gateway_key FILE NAME [EXPIRES]", file=sys.stderr)
        return 2
    file, name, *expires = arguments
    try:
        print(add(Path(file), name, _moment(expires[0]) if expires else None))
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time: expected one as 2026-12-31T00:00:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
