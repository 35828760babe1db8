"""Make the decision of a run on the local stack again: python -m deployments.replay [SUMMARY]

SUMMARY is the run's ``summary.json``, by default the latest run's. Exits as ``tasks.gate.replay``.
"""

from __future__ import annotations

import sys

from deployments import environment
from tasks.gate import replay


def main(arguments: list[str]) -> int:
    environment.apply()
    latest = environment.local() / "runs" / "latest" / "summary.json"
    return replay.main(arguments or [str(latest)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
