"""The training itself: rows and a base model in, the best checkpoint's weights out.

Runs in the flow's own process, or in each of several (``tasks.train.launch``).
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

from transformers import EarlyStoppingCallback, PrinterCallback, TrainerState, set_seed

from tasks.base_model import load_tokenizer, stop_ids
from tasks.errors import PreemptedError
from tasks.objects import open_store
from tasks.train.adapters import save_adapter, save_full
from tasks.train.answers import Examiner, check_metric
from tasks.train.arguments import arguments
from tasks.train.batches import load_split
from tasks.train.estimate.plan import schedule
from tasks.train.guards import LossGuard, stopped_early
from tasks.train.job import Job, Training
from tasks.train.model import keep_float32
from tasks.train.model import prepare as prepare_model
from tasks.train.resume.checkpoints import CheckpointStore, Restored
from tasks.train.resume.codec import TRAINER_STATE
from tasks.train.resume.preemption import Preemption, PreemptionCallback
from tasks.train.resume.uploads import CheckpointCallback, Uploader
from tasks.train.trainer import AnswerTrainer
from tasks.train.watch import Report, Watch

logger = logging.getLogger(__name__)
CHECKPOINTS, UPLOADS = "checkpoints", "uploads"


def finetune(job: Job, report: Report) -> Training:
    """Train, from where an earlier attempt ended, and write the best weights to ``job.output``.

    Raises BadBatchError at a loss that is no number or explodes, PreemptedError after SIGTERM,
    ConfigError for what cannot be trained.
    """
    started = time.monotonic()
    set_seed(job.config.seed)
    checkpoints = CheckpointStore(open_store(), job.key)
    uploader = Uploader(checkpoints, job.output / f"{UPLOADS}-{_rank()}")
    try:
        with Preemption() as preemption:
            trainer, watch = _trainer(job, report, started, uploader, preemption)
            _train(trainer, watch, checkpoints)
            if preemption.came:
                raise PreemptedError(
                    f"SIGTERM came; the checkpoint of step {trainer.state.global_step} was kept, "
                    "and the next attempt goes on from it."
                )
        _save(trainer, job)
    finally:
        # What an interrupted training had is what the next attempt goes on from.
        uploader.close(wait=True, timeout=600.0)
    return _result(job, trainer, watch, uploader, checkpoints)


def _trainer(
    job: Job, report: Report, started: float, uploader: Uploader, preemption: Preemption
) -> tuple[AnswerTrainer, Watch]:
    config = job.config
    tokenizer = load_tokenizer(job.base)
    train, validation = load_split(job.data, "train"), load_split(job.data, "validation")
    metric = check_metric(config, job.task)
    steps = schedule(len(train), config)
    settings = arguments(config, steps, metric, job.output / CHECKPOINTS)
    set_seed(config.seed)  # the adapter's weights are drawn next
    model = prepare_model(job.base, config, tokenizer)
    examiner = Examiner(
        list(validation),
        tokenizer,
        stop_ids(job.base),
        config,
        job.task,
        (settings.process_index, settings.world_size),
    )
    trainer = AnswerTrainer(
        packing=config.packing,
        micro_rows=job.micro_rows or config.batch_size,
        examine=examiner,
        model=model,
        args=settings,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        callbacks=[
            EarlyStoppingCallback(config.early_stopping_patience),
            LossGuard(config.guards.max_loss_factor),
            PreemptionCallback(preemption),
            CheckpointCallback(uploader),
        ],
    )
    keep_float32(model)
    watch = Watch(report, started, trainer.total_tokens)
    trainer.figures = watch.figures
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)  # it prints what Watch logs
    if config.compile:
        trainer.compile_layers()
    return trainer, watch


def _train(trainer: AnswerTrainer, watch: Watch, checkpoints: CheckpointStore) -> None:
    """Train what is left to train, and load the best checkpoint."""
    restored = _restored(trainer, checkpoints, Path(str(trainer.args.output_dir)))
    if restored is None:
        trainer.train()
        return
    trainer.notes.append(f"Resumed from the checkpoint of step {restored.step}.")
    state = TrainerState.load_from_json(str(restored.folder / TRAINER_STATE))
    watch.go_on(state)
    if trainer.is_world_process_zero():  # the state is that of whoever saved it, in all processes
        watch.tell_again(state)
    if stopped_early(state):  # a Trainer would make a step before it looks
        trainer.state = state
        trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=str(restored.folder))


def _restored(
    trainer: AnswerTrainer, checkpoints: CheckpointStore, folder: Path
) -> Restored | None:
    """The checkpoint to go on from, fetched by the first process of each machine."""
    with trainer.args.main_process_first(desc="fetching the checkpoint"):
        if trainer.args.local_process_index == 0:
            return checkpoints.restore(folder)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return Restored(int(found[-1].name.split("-")[1]), found[-1], None) if found else None


def _save(trainer: AnswerTrainer, job: Job) -> None:
    """Write the weights; of a model that is sharded over processes, all have to gather it."""
    sharded = trainer.is_fsdp_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    save = save_full if job.config.method == "full" else save_adapter
    save(model, job.base, job.output, state)


def _rank() -> int:
    """This process's number among those that train together, before any of them has met."""
    return int(os.environ.get("RANK", "0"))


def _result(
    job: Job,
    trainer: AnswerTrainer,
    watch: Watch,
    uploader: Uploader,
    checkpoints: CheckpointStore,
) -> Training:
    state, config = trainer.state, job.config
    figures = watch.figures()
    history = [dict(line) for line in state.log_history if {"loss", "eval_loss"} & set(line)]
    best_step = state.best_global_step or state.global_step
    best = next((line for line in history if line["step"] == best_step and "eval_loss" in line), {})
    metric = str(trainer.args.metric_for_best_model)
    early = stopped_early(state)
    notes = [*trainer.notes, *checkpoints.notes, *uploader.notes, *([early] if early else [])]
    losses = [line["loss"] for line in history if "loss" in line]
    return Training(
        num_steps=state.global_step,
        best_step=best_step,
        train_loss=losses[-1] if losses else math.nan,
        validation_loss=best.get("eval_loss", math.nan),
        metric=metric.removeprefix("eval_") if metric != "eval_loss" else metric,
        metric_value=best.get(metric, math.nan),
        tokens=int(figures["num_tokens"]),
        tokens_per_second=figures["tokens_per_second"],
        seconds=figures["seconds"],
        memory_gib=figures["memory_gib"],
        micro_batch=min(trainer.micro_rows, config.batch_size),
        accumulation=-(-config.batch_size // trainer.micro_rows) * config.gradient_accumulation,
        num_processes=trainer.args.world_size,
        first_step_seconds=watch.first_step_seconds,
        checkpoint_seconds={
            "held": round(trainer.save_seconds + uploader.held_seconds, 3),
            "upload": round(uploader.upload_seconds, 3),
        },
        notes=notes,
        history=history,
    )
