"""Run the forget flow once through its deployment, follow it, and show what it found.

In: a file with one identifier or text a line, which stays where it is: only its path goes to
Prefect, which keeps parameters. Out: lines as the run goes on, then what was found and what is left
to do. Exits 0 when the run completed, 1 when it failed, 2 when it cannot be run.

    python -m deployments.forget who.txt "ticket 1234" [--model NAME] [--apply] [--erase]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deployments import environment
from deployments.outcome import print_failure
from deployments.start import submit
from tasks.errors import RetuneError
from tasks.forget.config import ForgetConfig
from tasks.forget.markdown import markdown
from tasks.forget.records import Forgotten
from tasks.forget.search import RECORD

_DEPLOYMENT = "forget/forget"


def forget(config: ForgetConfig) -> int:
    """Run, follow, report; the exit code of the run."""
    environment.apply()
    # Prefect reads its settings from the environment, once, when first imported.
    from deployments.follow import follow

    flow_run_id = submit(_DEPLOYMENT, {"config": config.model_dump(mode="json")})
    url = f"{environment.addresses()['Prefect']}/runs/flow-run/{flow_run_id}"
    print(f"Run {flow_run_id}\n  {url}", flush=True)
    ended = follow(flow_run_id)
    record = environment.local() / "runs" / str(flow_run_id) / RECORD
    if not ended.completed:
        print_failure(ended.state, ended.errors, None)
        return 1
    done = Forgotten.model_validate_json(record.read_text(encoding="utf-8"))
    print(f"\n{markdown(done)}\nEvery row: {record}")
    if not done.applied:
        print("Nothing was changed. To apply it: the same with APPLY=1, and ERASE=1 to delete.")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.forget")
    parser.add_argument("who", help="a file with one identifier or text a line")
    parser.add_argument("reason", help="why, such as a ticket's number; it is kept")
    parser.add_argument("--model", help="only look at this model's versions")
    parser.add_argument("--apply", action="store_true", help="keep it out of every later run")
    parser.add_argument("--erase", action="store_true", help="also delete what holds it")
    given = parser.parse_args(arguments)
    if not given.who or not given.reason:
        print("Expected a file and a reason: WHO=who.txt REASON='ticket 1234'.", file=sys.stderr)
        return 2
    config = ForgetConfig(
        identifiers_file=str(Path(given.who).absolute()),
        reason=given.reason,
        name=given.model,
        apply=given.apply,
        erase=given.erase,
    )
    try:
        config.wanted()
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return forget(config)
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
