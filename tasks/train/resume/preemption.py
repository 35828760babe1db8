"""SIGTERM (a spot machine is taken away) -> a last checkpoint, and training that stops.

Transformers' own ``enable_jit_checkpoint`` waits three seconds, acts in the middle of a step, tells
no callback of what it saved and disarms the handler only when training succeeds.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import distributed
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class Preemption:
    """Within it SIGTERM is only remembered, in ``came``; the handler before returns at the end.

    Python handles signals in the main thread alone: in another thread this does nothing.
    """

    def __init__(self) -> None:
        self.came = False
        self._installed = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._remember)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._installed:
            # None: installed by something other than Python, which cannot be put back.
            signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)
            self._installed = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.came = True


class PreemptionCallback(TrainerCallback):
    """After SIGTERM: a checkpoint at the end of the step, or of the validation, and no more steps.

    All processes of a training stop at the same step, whichever of them was told.
    """

    def __init__(self, preemption: Preemption) -> None:
        self._preemption = preemption

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._stop_if_told(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._stop_if_told(args, state, control)

    def _stop_if_told(self, args: Any, state: Any, control: Any) -> None:
        if not _anywhere(self._preemption.came, args.device):
            return
        self._preemption.came = True
        logger.warning("SIGTERM came: saving a checkpoint at step %d.", state.global_step)
        control.should_save = True
        control.should_training_stop = True


def _anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in any process of the training."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags.item())
