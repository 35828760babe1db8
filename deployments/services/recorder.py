"""The process beside a gateway that scrubs and stores what was said: no answer waits for it.

In: lines of JSON on standard input, one exchange or one feedback each, until the end of input,
which comes too when the gateway is killed: what it sent by then is still written. Out: lines of
JSON on standard output, which say what became of feedback and how many records were not kept.

    python -m deployments.services.recorder FLUSH_SECONDS MAX_RECORDS
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.errors import RetuneError, is_transient
from tasks.example import Example, Message, to_table
from tasks.objects import Store, open_store
from tasks.serve.exchange import Exchange
from tasks.serve.traffic import Book, Feedback, keep_feedback

logger = logging.getLogger("retune.recorder")
_LAST_SECONDS = 15.0  # to write what is left, when the gateway ends


class Recorder:
    """Reads lines and answers; writes on a thread of its own."""

    def __init__(self, store: Store, flush_seconds: float, max_records: int) -> None:
        self._store, self._flush_seconds = store, flush_seconds
        self._book = Book(store, scrub, max_records)
        self._told: Counter[str] = Counter()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # of standard output

    def run(self) -> None:
        """Until the end of input; raises what a write raises that is not storage's absence."""
        # Feedback is not to wait for a batch, since its sender waits: two threads.
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        while not self._ended.wait(self._flush_seconds):
            self._book.write()
            self._tell_lost()
        deadline = time.monotonic() + _LAST_SECONDS
        while not self._book.write() and time.monotonic() < deadline:
            time.sleep(0.5)
        self._tell_lost()

    def _read(self) -> None:
        try:
            for line in sys.stdin.buffer:
                given = json.loads(line)
                if "exchange" in given:
                    self._book.take(Exchange.model_validate(given["exchange"]))
                else:
                    self._answer(given)
        finally:
            self._ended.set()

    def _answer(self, given: dict[str, Any]) -> None:
        try:
            stored = keep_feedback(self._store, Feedback.model_validate(given["feedback"]), scrub)
            outcome = "stored" if stored else "repeated"
        except ValueError as error:
            logger.warning("feedback was not kept: %s", error)
            outcome = "refused"
        except Exception as error:
            # S3's client raises many classes: what may pass is told to the sender, the rest ends.
            if not isinstance(error, RetuneError) and not is_transient(error):
                raise
            logger.warning("feedback waits for storage: %s", error)
            outcome = "away"
        self._tell({"number": given["number"], "outcome": outcome})

    def _tell_lost(self) -> None:
        new = self._book.lost - self._told
        if new:
            self._told.update(new)
            logger.warning("not kept: %s", dict(new))
            self._tell({"lost": dict(new)})

    def _tell(self, said: dict[str, Any]) -> None:
        with self._lock:
            print(json.dumps(said), flush=True)


def scrub(texts: Sequence[list[str]]) -> list[list[str] | None]:
    """The texts of each record without personal data; numbered through a record."""
    from tasks.clean.config import PiiConfig  # takes seconds, and may never be needed
    from tasks.clean.pii.redact import redact
    from tasks.clean.rows import Rows

    now = datetime.now(UTC)
    examples = [
        Example(
            id=str(number),
            messages=tuple(Message("user", text) for text in of_one),
            source="production",
            group=str(number),
            created_at=now,
        )
        for number, of_one in enumerate(texts)
    ]
    if not examples:
        return []
    redaction = redact(Rows(to_table(examples)), PiiConfig(), processes=1)
    clean: list[list[str] | None] = [
        [turn["content"] for turn in turns]
        for turns in redaction.rows.column("messages").to_pylist()
    ]
    for finding in redaction.dropped:
        clean[finding.index] = None
    return clean


def main(arguments: list[str]) -> int:
    # The gateway says when it ends, by closing the pipe, and has more to send until then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("tasks.clean").setLevel(logging.WARNING)
    seconds, most = arguments
    try:
        Recorder(open_store(), float(seconds), int(most)).run()
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
