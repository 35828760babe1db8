"""``make bench B=pii``: personal data found, against a plain loop over Presidio's engine.

Text: BANKING77's training messages (real, not templated) where the data folder has them, each
once; every tenth is followed by a text of the labelled set. Long records join thirteen such
messages. The hard text is the labelled set alone, where most sentences name somebody. The plain
loop reads an even subsample of the same records; both take turns, and the figure is the ratio of
the medians.
"""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.clean.config import PiiConfig
from tasks.clean.pii.find import Finder, usable_cores
from tasks.clean.pii.names import NameRecogniser
from tasks.clean.pii.scan import personal_spans
from tests.benchmarks.harness import Result
from tests.pii_labelled import labelled, plain_analyzer, score

TARGET = 15
_ROUNDS = 3
_PLAIN_RECORDS = {"short": 150, "long": 40, "hard": 60}
_MESSAGES_A_RECORD = 13
_EVERY = 10  # messages, of which one is followed by a labelled text
_FILE = "banking77_train.csv"


def pii() -> Result:
    config = PiiConfig()
    finder = Finder(config)
    plain = plain_analyzer()
    texts = _texts()
    cores = usable_cores()
    with finder.workers(cores):
        _warm(finder, plain, cores)
        rates = {name: _rates(records, name, finder, plain) for name, records in texts.items()}
    items = labelled()
    found = personal_spans([item.text for item in items], config)
    ours, theirs = score(items, found), score(items, [plain(item.text) for item in items])
    figure = rates["short"]["all cores"] / rates["short"]["plain"]
    return Result(
        "pii",
        round(figure, 1),
        "x the records a second of a plain AnalyzerEngine loop, BANKING77 messages",
        TARGET,
        figure >= TARGET and ours.total_recall() >= theirs.total_recall(),
        peers={name: {"plain loop": round(r["plain"], 1)} for name, r in rates.items()},
        details={
            "records a second": {n: {k: round(v) for k, v in r.items()} for n, r in rates.items()},
            "times the plain loop": {
                n: {k: round(v / r["plain"], 1) for k, v in r.items()} for n, r in rates.items()
            },
            "where from, one process, short": _ablation(texts["short"], finder),
            "recall and precision, ours": ours.as_dict(),
            "recall and precision, plain": theirs.as_dict(),
            "total recall": {"ours": ours.total_recall(), "plain": theirs.total_recall()},
            "records": {name: len(records) for name, records in texts.items()},
            "words a record": {
                n: round(statistics.mean(len(t.split()) for t in r)) for n, r in texts.items()
            },
            "processes": cores,
        },
    )


def _texts() -> dict[str, list[str]]:
    personal = [item.text for item in labelled()]
    messages = _messages()
    mixed = [
        f"{message} {personal[i // _EVERY % len(personal)]}" if i % _EVERY == 0 else message
        for i, message in enumerate(messages)
    ]
    starts = range(0, len(mixed) - _MESSAGES_A_RECORD + 1, _MESSAGES_A_RECORD)
    long = [" ".join(mixed[i : i + _MESSAGES_A_RECORD]) for i in starts]
    return {"short": mixed, "long": long, "hard": personal}


def _messages() -> list[str]:
    """BANKING77's messages; without the data folder, the labelled set's own sentences."""
    home = Path(__file__).parents[2]
    for folder in (Path(os.environ.get("RETUNE_DATA", ".")), home.parent / "shared" / "data"):
        if (path := folder / _FILE).is_file():
            with path.open(encoding="utf-8") as file:
                return [row["text"] for row in csv.DictReader(file)]
    return [line for item in labelled() for line in item.text.splitlines()]


def _warm(finder: Finder, plain: Callable[[str], Any], cores: int) -> None:
    """Load the models in all processes; the time until then is not what is compared."""
    plain("Anna Berg")
    finder.find(["Anna Berg"], names=True)
    fill = "Nobody is named in this sentence. " * 1700
    finder.find_all([f"{i} {fill}" for i in range(4 * cores)], names=True)


def _rates(
    records: Sequence[str], name: str, finder: Finder, plain: Callable[[str], Any]
) -> dict[str, float]:
    """Records a second of each way, the median of rounds in which they take turns."""
    step = max(1, len(records) // _PLAIN_RECORDS[name])
    sample = records[::step][: _PLAIN_RECORDS[name]]
    # The labelled texts are few: several times over, told apart, so that there is work for all.
    many = [f"{t} ({i})" for i in range(max(1, 2000 // len(records))) for t in records]
    ways: dict[str, Callable[[], int]] = {
        "plain": lambda: len([plain(text) for text in sample]),
        "one process": lambda: len(finder.find(many, names=True)),
        "all cores": lambda: finder.find_all(many, names=True) is not None and len(many),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, run in ways.items():
            started = time.perf_counter()
            done = run()
            rates[way].append(done / (time.perf_counter() - started))
    return {way: statistics.median(values) for way, values in rates.items()}


def _ablation(records: Sequence[str], finder: Finder) -> dict[str, float]:
    """How many times longer it takes without each part, on a subsample, in one process."""
    sample = list(records[::5])
    repeated = sample * 3

    def seconds(run: Callable[[], Any]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    def find() -> list[Any]:
        return finder.find(sample, names=True)

    spacy_ner = NameRecogniser()._nlp
    rounds = []
    for _ in range(_ROUNDS):
        whole = seconds(find)
        patterns = seconds(lambda: finder.find(sample, names=False))
        with _no_prefilter(finder):
            unfiltered = seconds(find)
        own_ner = seconds(lambda: list(spacy_ner.pipe(sample, batch_size=256)))
        rounds.append(
            (
                unfiltered / whole,
                (patterns + own_ner) / whole,
                seconds(lambda: [finder.find([text], names=True) for text in sample]) / whole,
                seconds(lambda: finder.find(repeated, names=True))
                / seconds(lambda: finder.find(list(dict.fromkeys(repeated)), names=True)),
            )
        )
    names = (
        "no test before the patterns",
        "spaCy's own code for the names, in batches",
        "one text at a time",
        "each of three equal texts",
    )
    return {n: round(float(v), 1) for n, v in zip(names, np.median(rounds, axis=0), strict=True)}


@contextmanager
def _no_prefilter(finder: Finder) -> Iterator[None]:
    patterns = finder._patterns
    recognisers, had_test = patterns._recognisers, patterns._has_test
    patterns._has_test = False
    patterns._recognisers = [
        type(r)(analyse=r.analyse, context=r.context, needs=None) for r in recognisers
    ]
    try:
        yield
    finally:
        patterns._recognisers, patterns._has_test = recognisers, had_test
