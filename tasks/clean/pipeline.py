"""A snapshot in, clean split rows out: each check once, in order, every rejection kept.

Redaction comes after what compares texts, since two texts with their names taken out look less
alike than they were, and after the search for gibberish, which a name finder takes for names; but
before everything that is shown or sent to someone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.artifacts import TaskConfig
from tasks.clean.account import Account, Histogram, Step
from tasks.clean.config import CleanConfig
from tasks.clean.conflicts import Cluster, clusters_of, resolve
from tasks.clean.decontaminate import HeldOutAs, decontaminate
from tasks.clean.duplicates import (
    best_first,
    cluster_bars,
    exact_duplicates,
    source_ranks,
    with_eldest_split,
)
from tasks.clean.form import form_findings
from tasks.clean.labels import LabelIssue, LossOutlier, find_label_issues, loss_outliers
from tasks.clean.mix import is_general, mix_findings, shares
from tasks.clean.models import Embed, Models
from tasks.clean.pii.redact import redact
from tasks.clean.quality.checks import quality_findings
from tasks.clean.review import conflict_items, label_items, loss_items
from tasks.clean.rows import Finding, Indices, Rows
from tasks.clean.similar import near_duplicates
from tasks.clean.split import HELD_OUT, splits_of
from tasks.clean.unicode import repair
from tasks.errors import DataError

_NO_MODELS = Models()


def clean_rows(
    rows: Rows,
    golden: Rows,
    config: CleanConfig,
    task: TaskConfig,
    models: Models = _NO_MODELS,
    progress: Callable[[float], None] = lambda _: None,
) -> Account:
    """Run the checks in order and say what each did.

    The rows that are left have a column ``split``. Duplicates are sought over everything before
    anything is split off, so that no two splits share one. Raises DataError when nothing is left,
    or when more than ``config.discard.high`` went and the configuration calls that an error.
    """
    splits = splits_of(rows.column("group"), rows.column("source"), config.split)
    account = Account(Rows(rows.table.append_column("split", splits)))
    account.steps.append(Step("read", len(rows), len(rows), bars=_by_source(rows)))

    checks: tuple[Callable[[], None], ...] = (
        lambda: _repair(account, config),
        lambda: _form(account, config, task, models),
        lambda: _exact_duplicates(account, config),
        lambda: _near_duplicates(account, config, task),
        lambda: _decontaminate(account, golden, config, task, models),
        lambda: _quality(account, config, models),
        lambda: _redact(account, config),
        lambda: _labels(account, config, task, models),
        lambda: _judge(account, models),
        lambda: _mix(account, config),
    )
    for number, check in enumerate(checks, start=1):
        check()
        progress(number / len(checks))
    _require_rows(account, len(rows))
    _weigh_discards(account, len(rows), config)
    _require_training_rows(account, config)
    return account


def _repair(account: Account, config: CleanConfig) -> None:
    account.rows, num_repaired = repair(account.rows, config.unicode)
    unchanged = len(account.rows) - num_repaired
    account.reject("unicode", [], bars={"repaired": num_repaired, "unchanged": unchanged})


def _form(account: Account, config: CleanConfig, task: TaskConfig, models: Models) -> None:
    rows = account.rows
    general = is_general(rows)
    found = form_findings(rows, task, config.form.max_tokens, models.count_tokens)
    # A general instruction has another answer than the task's: its form is not the task's.
    spared = [f for f in found if not (general[f.index] and f.reason.startswith("answer_"))]
    account.reject("form", spared)


def _exact_duplicates(account: Account, config: CleanConfig) -> None:
    rows = account.rows
    kept_of = exact_duplicates(rows, best_first(rows, config.duplicates.source_rank))
    account.rows = with_eldest_split(rows, kept_of)
    ids = rows.column("id")
    findings = [
        Finding(int(i), "exact_duplicate", f"similarity 1.00 to {ids[int(kept_of[i])].as_py()}")
        for i in np.flatnonzero(kept_of != np.arange(len(rows)))
    ]
    sizes = np.bincount(kept_of, minlength=1)
    account.reject("exact_duplicate", findings, bars=cluster_bars(sizes))


def _near_duplicates(account: Account, config: CleanConfig, task: TaskConfig) -> None:
    """Near-duplicates go; where their answers contradict each other, policy decides who stays."""
    rows = account.rows
    order = best_first(rows, config.duplicates.source_rank)
    near = near_duplicates(rows.asked, order, config.duplicates)
    clusters = clusters_of(near.kept_of, near.similarity, order)
    rows = account.rows = with_eldest_split(rows, near.kept_of)
    ranks = source_ranks(rows, config.duplicates.source_rank)
    resolved = resolve(
        clusters, rows.asked, rows.answers, rows.column("id"), ranks, config.conflicts, task
    )
    duplicates = [f for f in resolved.findings if f.reason == "near_duplicate"]
    contradictions = {f.index: f for f in resolved.findings if f.reason == "conflict"}
    account.review += conflict_items(rows, resolved.conflicts, contradictions.keys())
    account.reject(
        "near_duplicate",
        duplicates,
        bars=cluster_bars(np.array([len(c.rows) for c in clusters], dtype=np.int64)),
        histogram=Histogram.of(
            "Jaccard similarity to the row that stays",
            np.array([s for c in clusters for s in c.similarities[1:]]),
            config.duplicates.threshold,
        ),
        notes=_largest(clusters, rows),
    )
    account.reject(
        "conflict",
        _moved(list(contradictions.values()), duplicates),
        bars={
            "one answer stays": sum(c.stays is not None for c in resolved.conflicts),
            "to be decided": sum(c.stays is None for c in resolved.conflicts),
        },
        notes=[f"{len(resolved.conflicts):,} questions with answers that contradict each other."],
    )


def _decontaminate(
    account: Account, golden: Rows, config: CleanConfig, task: TaskConfig, models: Models
) -> None:
    """No row that decides is trained on: golden rows, then those of the test and holdout splits.

    By meaning only against the golden set: most questions on one topic are alike in meaning, and a
    tenth of all rows would take another tenth with them.
    """
    everything = np.arange(len(account.rows))
    embed = models.embed if config.decontamination.embeddings else None
    found = _leaks(account.rows, everything, golden, "golden", config, task, embed)
    account.reject("decontamination", found)
    splits = account.rows.column("split")
    found = []
    # What is as similar as a duplicate was dealt with as one, whichever split it is in.
    similar = max(config.decontamination.jaccard, config.duplicates.threshold)
    looser = config.model_copy(
        update={"decontamination": config.decontamination.model_copy(update={"jaccard": similar})}
    )
    trained = np.flatnonzero(~np.asarray(pc.is_in(splits, pa.array(HELD_OUT))))
    for held_out_as in HELD_OUT:
        held_out = account.rows.select(np.flatnonzero(np.asarray(pc.equal(splits, held_out_as))))
        found += _leaks(account.rows, trained, held_out, held_out_as, looser, task)
    account.reject("split_leak", found)


def _leaks(
    rows: Rows,
    judged: Indices,
    held_out: Rows,
    held_out_as: HeldOutAs,
    config: CleanConfig,
    task: TaskConfig,
    embed: Embed | None = None,
) -> list[Finding]:
    found = decontaminate(
        rows.select(judged),
        held_out.prompts,
        held_out.column("id").to_pylist(),
        # Labels and structured answers are rightly shared by many rows.
        held_out.answers if task.kind == "generation" else None,
        config.decontamination,
        config.duplicates.shingle_words,
        embed,
        held_out_as,
    )
    return [Finding(int(judged[f.index]), f.reason, f.detail) for f in found]


def _redact(account: Account, config: CleanConfig) -> None:
    redaction = redact(account.rows, config.pii)
    account.rows = redaction.rows
    notes = []
    if config.pii.enabled:
        left = sum(redaction.residual.values())
        notes = [f"A second scan of the redacted rows found {left:,} more, which went too."]
    counts = dict(sorted(redaction.counts.items()))
    account.reject("personal_data", redaction.dropped, bars=counts, notes=notes)


def _quality(account: Account, config: CleanConfig, models: Models) -> None:
    """The task's rows are judged by each other, and general instructions by theirs."""
    rows, general = account.rows, is_general(account.rows)
    found: list[Finding] = []
    for alike in (np.flatnonzero(~general), np.flatnonzero(general)):
        findings = quality_findings(rows.select(alike), config.quality, models.perplexity)
        found += [Finding(int(alike[f.index]), f.reason, f.detail) for f in findings]
    account.reject("quality", found)


def _labels(account: Account, config: CleanConfig, task: TaskConfig, models: Models) -> None:
    """Doubtful labels go to review, and out of the data only above a stated confidence."""
    if not config.labels.enabled:
        return
    own = np.flatnonzero(~is_general(account.rows))
    rows = account.rows.select(own)
    prompts, answers = rows.prompts.to_pylist(), rows.answers.to_pylist()
    issues = find_label_issues(rows.column("id").to_pylist(), prompts, answers, task, config.labels)
    outliers: list[LossOutlier] = []
    if task.kind == "generation" and config.labels.score_free_text and models.answer_loss:
        outliers = loss_outliers(prompts, answers, models.answer_loss, config.labels)
    sure = [i for i in issues if _is_sure(i, config)]
    account.review += label_items(rows, issues, {i.index for i in sure}) + loss_items(
        rows, outliers
    )
    account.reject(
        "label",
        [
            Finding(
                int(own[i.index]),
                "wrong_label",
                f"{i.field}: {i.given!r} given, {i.suggested!r} at {i.suggested_probability:.2f}",
            )
            for i in sure
        ],
        bars=dict(
            Counter(
                f"{i.field}: {i.given} \N{RIGHTWARDS ARROW} {i.suggested}" for i in issues
            ).most_common(8)
        ),
        notes=[f"{len({i.index for i in issues}):,} rows in doubt, sent to review."],
    )


def _judge(account: Account, models: Models) -> None:
    if models.judge is None:
        return
    found, figures = models.judge(account.rows)
    account.reject("judge", found, notes=[f"{name}: {value}" for name, value in figures.items()])


def _mix(account: Account, config: CleanConfig) -> None:
    rows = account.rows
    account.reject("mix", mix_findings(rows, rows.column("split"), config.mix))
    for share in shares(account.rows, account.rows.column("split"), config.mix):
        if not share.holds:
            account.cautions[f"mix_{share.name}"] = (
                f"{share.achieved:.0%} of the training rows are {share.name}, wanted are "
                f"{share.low:.0%} to {share.high:.0%}."
            )


def _require_rows(account: Account, num_read: int) -> None:
    if len(account.rows):
        return
    counts = ", ".join(f"{reason}: {n}" for reason, n in account.num_rejected.items())
    first = account.rejected[0]
    raise DataError(
        f"All {num_read} rows were rejected ({counts}). First: {Rows(first).place(0)}: "
        f"{first.column('detail')[0].as_py()}. Correct the rows, or the check in the `clean` "
        "section."
    )


def _require_training_rows(account: Account, config: CleanConfig) -> None:
    num_train = int(pc.sum(pc.equal(account.rows.column("split"), "train")).as_py() or 0)
    if num_train >= config.min_train:
        return
    message = f"{num_train} rows to train on; under {config.min_train} a good prompt does better."
    if "few_examples" not in config.allow:
        raise DataError(
            f"{message} Collect more, or go on regardless with clean.allow: [few_examples]."
        )
    account.cautions["few_examples"] = message


def _weigh_discards(account: Account, num_read: int, config: CleanConfig) -> None:
    share = 1 - len(account.rows) / num_read
    usual = f"{config.discard.low:.0%} to {config.discard.high:.0%} are usual"
    if share > config.discard.high:
        message = f"{share:.0%} of the rows were discarded; {usual}. Look at the largest reasons."
        if config.discard.on_high == "fail":
            counts = ", ".join(f"{reason}: {n}" for reason, n in account.num_rejected.items())
            raise DataError(f"{message} ({counts}). Or raise clean.discard.high.")
        account.cautions["discard_high"] = message
    elif share < config.discard.low:
        account.cautions["discard_low"] = (
            f"Only {share:.0%} of the rows were discarded; {usual}. Are the checks too weak?"
        )


def _moved(findings: Sequence[Finding], gone: Sequence[Finding]) -> list[Finding]:
    """The findings with their indices as they are once the rows of ``gone`` have left."""
    left = np.array(sorted({f.index for f in gone}), dtype=np.int64)
    return [
        Finding(f.index - int(np.searchsorted(left, f.index)), f.reason, f.detail) for f in findings
    ]


def _by_source(rows: Rows) -> dict[str, int]:
    counts = pc.value_counts(rows.column("source"))
    return {c["values"].as_py(): c["counts"].as_py() for c in counts}


def _largest(clusters: Sequence[Cluster], rows: Rows) -> list[str]:
    top = sorted((c for c in clusters if len(c.rows) > 2), key=lambda c: -len(c.rows))[:3]
    return [f"{len(c.rows):,} rows are like {rows.place(c.rows[0])}." for c in top]


def _is_sure(issue: LabelIssue, config: CleanConfig) -> bool:
    limit = config.labels.drop_confidence
    return limit < 1 and issue.suggested_probability >= limit
