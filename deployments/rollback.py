"""Put an earlier version of a model back, at once and in this process: no worker is waited for.

In: a running stack. Out: the champion's alias moved, the version that it was taken from withdrawn,
a flow run in Prefect that says so. Exits 0 when done, 1 when it failed, 2 when it cannot be done.

    python -m deployments.rollback MODEL "why" [--to VERSION] [--readmit] [--by WHO]
"""

from __future__ import annotations

import argparse
import getpass
import sys

from deployments import bootstrap, environment, health
from flows.config import RollbackConfig, load_config, validated
from tasks.errors import RetuneError

_NEEDED = ("s3", "prefect", "mlflow")


def roll_back(config: RollbackConfig) -> None:
    """Run the flow here, and print what was done."""
    environment.apply()
    away = [name for name, check in health.servers().items() if name in _NEEDED and not check()]
    if away:
        raise RetuneError(f"{', '.join(away)} does not answer: run `make up`.")
    # Prefect reads its settings from the environment, once, when first imported.
    from flows.rollback import rollback

    print(rollback(config).sentence)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.rollback")
    parser.add_argument("model", help="the model's name in the registry")
    parser.add_argument("reason", help="why; it is kept with the model")
    parser.add_argument("--to", help="a version; by default the one before")
    parser.add_argument("--readmit", action="store_true", help="let a withdrawn version in again")
    parser.add_argument("--by", help="who decides; by default who is logged in")
    given = parser.parse_args(arguments)
    try:
        config = validated(
            {
                "name": given.model,
                "reason": given.reason,
                "to": given.to,
                "readmit": given.readmit,
                "by": given.by or getpass.getuser(),
                "notify": load_config(bootstrap.weekly_config()).report.notify,
            },
            RollbackConfig,
            "MODEL, REASON, TO",
        )
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        roll_back(config)
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
