"""``python -m tasks.serve.export``, on the local stack: ``make export``."""

from __future__ import annotations

import sys

from deployments import environment
from tasks.serve.export import main

if __name__ == "__main__":
    environment.apply()
    sys.exit(main(sys.argv[1:]))
