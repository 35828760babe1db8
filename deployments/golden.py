"""The golden set: propose rows for a person to review, lock what was accepted, list the looks.

In: a YAML for ``flows.config.RetrainConfig``. ``propose`` reads its sources and writes, in
``.local/golden/<name>/``, ``golden_proposal.jsonl`` and ``golden_review.html``, the page on which
the proposal is reviewed. ``lock`` reads the reviewed file, writes the final set and prints the
lines for the config: the run that first uses them locks the rows by digest. ``log`` prints every
look that an evaluation took.

    python -m deployments.golden propose|lock|log CONFIG.yaml [--rows N] [--folder FOLDER]
        [--reviewed FILE] [--version N] [--reason WHY]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deployments import environment
from flows.config import RetrainConfig, load_config
from tasks.artifacts import TaskConfig
from tasks.clean.config import PiiConfig
from tasks.clean.decontaminate import decontaminate
from tasks.clean.form import form_findings
from tasks.clean.pii.redact import redact
from tasks.clean.quality.checks import quality_findings
from tasks.clean.rows import Rows
from tasks.embeddings import embed
from tasks.errors import ConfigError, MissingFileError, RetuneError
from tasks.example import Example, from_table, to_table
from tasks.golden.config import ProposalConfig
from tasks.golden.propose import Proposed, propose
from tasks.golden.review import (
    COLUMNS,
    accepted,
    read_reviewed,
    rows_of,
    write_golden,
    write_proposal,
)
from tasks.ingest.snapshot import read_golden, read_source
from tasks.looks import Look, looks
from tasks.objects import open_store


def propose_rows(config: RetrainConfig, proposal: ProposalConfig, folder: Path) -> None:
    """Write a proposal from the config's sources, without personal data."""
    sources = [source for source in config.ingest.sources if not source.general]
    examples = [e for source in sources for e in read_source(source, config.task)[0]]
    examples = _outside(_sound(examples, config), _present(config), config)
    labels = [_label(example, config.task) for example in examples]
    embedding = config.clean.decontamination.embedding
    chosen = propose(examples, labels, proposal, lambda texts: embed(texts, embedding))
    rows = rows_of(_redacted(chosen, config.clean.pii), config.task.system_prompt)
    file, page = write_proposal(rows, folder)
    print(
        f"{len(rows)} rows of {len(examples)} proposed, in {len({r.stratum for r in rows})} strata."
        f"\n  {file}\n  {page}\nReview them: open the page in a browser, save what it downloads "
        f"beside it, then\n  make golden STEP=lock CONFIG=..."
    )


def lock_rows(
    config: RetrainConfig, reviewed: Path, folder: Path, version: int | None, reason: str | None
) -> None:
    """Write the reviewed rows as the final set, and print what the config then has to say."""
    number = version or _next_version(config)
    if number > 1 and not reason:
        raise ConfigError(
            f"Version {number} of golden set {config.golden.name!r} needs a reason: give "
            'REASON="..." (--reason). Scores before and after cannot be compared.'
        )
    rows = accepted(read_reviewed(reviewed), reviewed.name)
    file = folder / f"{config.golden.name}-v{number}.jsonl"
    digest = write_golden(rows, file)
    golden: dict[str, Any] = {"name": config.golden.name, "version": number}
    golden |= {"reason": reason} if reason else {}
    golden |= {"sha256": digest, "source": {"path": str(file), "columns": COLUMNS}}
    print(
        f"{len(rows)} rows in {file}. Keep the file with your data, and set in the config (the "
        "first run locks it):\n"
    )
    print(yaml.safe_dump({"golden": golden}, sort_keys=False, allow_unicode=True))


def print_log(config: RetrainConfig) -> None:
    """Every look at the config's golden set, of all versions up to its own."""
    store = open_store()
    name = config.golden.name
    for version in range(1, config.golden.version + 1):
        _print_looks(f"{name} version {version}", looks(store, config.name, name, version))
        opened = list(looks(store, config.name, name, version, "sealed"))
        if opened:
            _print_looks(f"{name} version {version}, sealed rows", opened)


def _print_looks(what: str, found: Iterable[Look]) -> None:
    found = list(found)
    models = {look.adapter_digest or look.base_model for look in found}
    print(f"{what}: {len(found)} looks by {len(models)} models")
    for look in found:
        model = look.adapter_digest[:12] if look.adapter_digest else look.base_model
        print(f"  {look.date:%Y-%m-%d %H:%M} {look.role:13} {model}  run {look.flow_run_id}")


def _sound(examples: Sequence[Example], config: RetrainConfig) -> list[Example]:
    """The rows that cleaning would keep for their own sake: a reviewer's time is not for gibberish.

    Their wording is not compared with other rows: that is what the proposal is made by.
    """
    rows = Rows(to_table(examples))
    bad = {f.index for f in form_findings(rows, config.task, config.clean.form.max_tokens, None)}
    bad |= {f.index for f in quality_findings(rows, config.clean.quality)}
    return [example for index, example in enumerate(examples) if index not in bad]


def _present(config: RetrainConfig) -> list[Example]:
    """The golden set as it is; empty where there is none yet."""
    try:
        return read_golden(config.golden, config.task)
    except MissingFileError:
        return []


def _outside(
    examples: list[Example], golden: Sequence[Example], config: RetrainConfig
) -> list[Example]:
    """The rows that are not in the present golden set already, by their words."""
    rows, held_out = Rows(to_table(examples)), Rows(to_table(golden))
    words, ids = config.clean.duplicates.shingle_words, [e.id for e in golden]
    limits = config.clean.decontamination
    found = decontaminate(rows, held_out.prompts, ids, None, limits, words, None)
    known = {finding.index for finding in found}
    return [example for index, example in enumerate(examples) if index not in known]


def _redacted(proposed: Sequence[Proposed], config: PiiConfig) -> list[Proposed]:
    """Read by people and kept in a file: without personal data, whatever is done to rows."""
    settings = config.model_copy(update={"action": "redact"})
    table = redact(Rows(to_table([p.example for p in proposed])), settings).rows.table
    return [
        Proposed(example, p.stratum) for example, p in zip(from_table(table), proposed, strict=True)
    ]


def _label(example: Example, task: TaskConfig) -> str | None:
    """The label; else of a classification the answer, of a structured answer its first enum."""
    if example.label or task.kind == "generation":
        return example.label
    if task.kind == "classification":
        return example.answer
    properties = (task.answer_schema or {}).get("properties", {})
    choices = [name for name, schema in properties.items() if "enum" in schema]
    try:
        answer = json.loads(example.answer)
    except ValueError:
        return None
    value = answer.get(choices[0]) if choices and isinstance(answer, dict) else None
    return None if value is None else str(value)


def _next_version(config: RetrainConfig) -> int:
    """The configured version where its set is not there yet, else the one after it."""
    return config.golden.version + bool(_present(config))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.golden", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("step", choices=["propose", "lock", "log"])
    parser.add_argument("config", type=Path)
    parser.add_argument("--rows", type=int, help="propose: how many rows (default: 300)")
    parser.add_argument("--folder", type=Path, help="default: .local/golden/<name>")
    parser.add_argument("--reviewed", type=Path, help="lock: the reviewed file")
    parser.add_argument("--version", type=int, help="lock: default is the next one")
    parser.add_argument("--reason", help="lock: why; needed from version 2 on")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = load_config(given.config)
        environment.apply()
        folder = given.folder or environment.local() / "golden" / config.name
        if given.step == "propose":
            size = {} if given.rows is None else {"num_rows": given.rows}
            propose_rows(config, ProposalConfig.model_validate(size), folder)
        elif given.step == "lock":
            reviewed = given.reviewed or folder / "golden_reviewed.jsonl"
            lock_rows(config, reviewed, folder, given.version, given.reason or None)
        else:
            print_log(config)
    except (RetuneError, ValidationError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
