"""The golden set's sealed rows, opened for a candidate that passed on the open ones.

The same contestants answer, the same scores are taken, and the gains must show once more.
"""

from __future__ import annotations

from flows.config import RetrainConfig
from tasks.artifacts import Contestant
from tasks.evaluate.task import choose_shots, compare_answers, evaluate, generate_answers
from tasks.gate.task import confirm
from tasks.report.summary import RunRecords


def confirmed(records: RunRecords, config: RetrainConfig) -> RunRecords:
    """The records with what the sealed rows say, or as they are where nothing is to be opened."""
    rules = config.gate.on_sealed
    if not (records.decision.promotes and records.golden.num_sealed and rules):
        return records
    sealed, base_model = records.golden.sealed, records.adapter.base_model
    shots = choose_shots(records.dataset, sealed, config.evaluate.few_shot)
    reports = {}
    for contestant in Contestant.of(base_model, shots, records.model, records.adapter):
        answers = generate_answers(contestant, sealed, config.evaluate.decoding)
        reports[contestant.role] = evaluate(contestant, answers, None, config.evaluate, config.task)
    comparison = compare_answers(reports, config.evaluate)
    decision = confirm(records.decision, reports, comparison, rules)
    return records.model_copy(update={"decision": decision})
