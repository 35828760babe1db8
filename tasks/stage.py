"""``@stage``: the one place for a stage's retries, time-out, cache key, result storage and timing.

A stage is a plain function from records and configs to a record. The decorator makes it a Prefect
task whose result, a few hundred bytes, is kept in the flow's result storage under a key made of
the stage's inputs by digest, its config, its source and the versions of its libraries. A hit is
believed only after the artifact behind it was found whole.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.results import ResultStore, get_result_store
from prefect.runtime import flow_run, task_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from tasks.artifacts import Artifact, StageRun, StageState, fingerprint
from tasks.errors import is_transient
from tasks.objects import open_store
from tasks.storage import digest_of, is_intact

_PARSINGS = 5
P = ParamSpec("P")
R = TypeVar("R")
Device = Literal["cpu", "gpu"]
logger = logging.getLogger(__name__)

# What stages say of their progress is meant to be seen; a worker's root logger stops at WARNING.
logging.getLogger("tasks").setLevel(logging.INFO)
_runs: dict[str, list[StageRun]] = defaultdict(list)


def stage(
    name: str,
    *,
    timeout_seconds: float,
    libraries: tuple[str, ...] = (),
    device: Device = "cpu",
    cached: bool = True,
    subject: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
    depends: Callable[[Mapping[str, Any]], object] = lambda _: None,
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a function a stage.

    ``libraries``: distributions whose versions belong in the cache key. ``device``: what it is
    worth giving it, and its tag in Prefect, by which its runs are found and can be limited
    (``prefect concurrency-limit create gpu 1``). ``cached=False``: for work on the outside world
    that must be done each time. ``subject``: names one of several calls of a stage, from its
    arguments. ``depends``: what else decides the result, such as a key in the environment.
    """

    def decorate(body: Callable[P, R]) -> Stage[P, R]:
        return Stage(body, name, timeout_seconds, libraries, device, cached, subject, depends)

    return decorate


def one_at_a_time() -> TaskRunner[PrefectFuture[Any]]:
    """Runs the tasks of ``Stage.map`` one after the other."""
    return ThreadPoolTaskRunner(max_workers=1)  # type: ignore[return-value]


class Stage(Generic[P, R]):
    """A callable stage; calling it inside a flow runs the task and records a ``StageRun``."""

    def __init__(
        self,
        body: Callable[P, R],
        name: str,
        timeout_seconds: float,
        libraries: tuple[str, ...],
        device: Device,
        cached: bool,
        subject: Callable[[Mapping[str, Any]], str | None],
        depends: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self.body = body
        self.name = name
        self._libraries = libraries
        self._subject = subject
        self._depends = depends
        self._work_seconds: dict[str, float] = defaultdict(float)
        self._task: Task[..., Any] = task(
            name=name,
            description=inspect.getdoc(body),
            tags=[device],
            retries=4,
            retry_delay_seconds=exponential_backoff(backoff_factor=3),
            retry_jitter_factor=0.5,
            retry_condition_fn=_is_worth_retrying,
            timeout_seconds=timeout_seconds,
            cache_key_fn=self._cache_key if cached else None,
            persist_result=cached,
            result_serializer="json" if cached else None,
        )(self._timed)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        arguments = inspect.signature(self.body).bind(*args, **kwargs).arguments
        subject = self._subject(arguments)
        prefect_task = self._named(subject)
        started = time.monotonic()
        state = cast("State[R]", prefect_task(**arguments, return_state=True))
        return self._result(prefect_task, arguments, state, subject, started)

    def known(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """The kept result of a call inside a flow, where it can be taken; nothing is made."""
        arguments = inspect.signature(self.body).bind(*args, **kwargs).arguments
        found = get_result_store().update_for_task(self._task, _sync=True)  # type: ignore[call-arg]
        results = cast("ResultStore", found)
        key = self.cache_key(arguments)
        if not results.exists(key):
            return None
        result = cast("R", results.read(key).result)
        return None if _unusable(result) else result

    def map(self, calls: Sequence[Mapping[str, Any]]) -> list[R]:
        """Several calls, each a task of its own, by the task runner of the flow."""
        subjects = [str(number) for number in range(1, len(calls) + 1)]
        tasks = [self._named(subject) for subject in subjects]
        futures = [named.submit(**call) for named, call in zip(tasks, calls, strict=True)]
        results = []
        for named, call, future, subject in zip(tasks, calls, futures, subjects, strict=True):
            started = time.monotonic()
            future.wait()
            state = cast("State[R]", future.state)
            results.append(self._result(named, call, state, subject, started))
        return results

    def _named(self, subject: str | None) -> Task[..., Any]:
        run_name = f"{self.name}-{subject}" if subject else self.name
        return self._task.with_options(task_run_name=run_name)

    def _result(
        self,
        prefect_task: Task[..., Any],
        arguments: Mapping[str, Any],
        state: State[R],
        subject: str | None,
        started: float,
    ) -> R:
        """The result of a task that ended; made again where what is cached cannot be taken."""
        if _is_cached(state) and (why := _unusable(state.result())):
            logger.warning("%s: %s; making it again", self.name, why)
            again = prefect_task.with_options(refresh_cache=True)
            state = cast("State[R]", again(**arguments, return_state=True))
        self._record(state, subject, time.monotonic() - started)
        return state.result()

    @property
    def _timed(self) -> Callable[P, R]:
        """The body, its own time kept apart from Prefect's round it."""

        @functools.wraps(self.body)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started = time.monotonic()
            try:
                return self.body(*args, **kwargs)
            finally:
                self._work_seconds[str(task_run.get_id())] += time.monotonic() - started

        return timed

    def cache_key(self, arguments: Mapping[str, Any]) -> str:
        """The key under which the result of these arguments is kept."""
        parts = {
            "inputs": {name: fingerprint(value) for name, value in arguments.items()},
            "source": _source_digest(Path(inspect.getfile(self.body)).parent),
            "libraries": {name: importlib.metadata.version(name) for name in self._libraries},
            "depends": self._depends(arguments),
        }
        return f"{self.name}-{digest_of(parts)}"

    def _cache_key(self, _context: TaskRunContext, arguments: dict[str, Any]) -> str:
        return self.cache_key(arguments)

    def _record(self, state: State[R], subject: str | None, seconds: float) -> None:
        result = state.result(raise_on_failure=False)
        failed = isinstance(result, BaseException)
        how: StageState = "failed" if failed else "cached" if _is_cached(state) else "completed"
        run = StageRun(
            name=self.name,
            subject=subject,
            state=how,
            seconds=round(seconds, 3),
            work_seconds=round(self._work_seconds[str(state.state_details.task_run_id)], 3),
            num_in=getattr(result, "num_in", None),
            num_out=getattr(result, "num_out", None),
            uri=getattr(result, "uri", None),
            error=f"{type(result).__name__}: {result}" if failed else None,
        )
        _runs[str(flow_run.get_id())].append(run)


def stage_runs() -> list[StageRun]:
    """What the stages of the current flow run did so far, in order."""
    return list(_runs[str(flow_run.get_id())])


def stage_runs_of(flow_run_id: str) -> list[StageRun]:
    """The same for a named flow run of this process: for hooks, which run outside the flow."""
    return list(_runs[flow_run_id])


def _is_cached(state: State[Any]) -> bool:
    return state.name == "Cached"


def _unusable(result: object) -> str | None:
    """Why a cached result cannot be taken, if it cannot."""
    if not isinstance(result, Artifact):
        return None
    if not result.is_lasting:
        return "a service that it needs was away the last time"
    return None if is_intact(open_store(), result) else "its artifact is gone from storage"


def _is_worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retries are for what passes; a stage that ran out of its own time would do so again."""
    error = state.result(raise_on_failure=False)
    return state.name != "TimedOut" and isinstance(error, BaseException) and is_transient(error)


@functools.cache
def _source_digest(package: Path, floor: Path = Path(__file__).parent) -> str:
    """Digest of the syntax trees of a stage's package and of what it imports of the shared floor.

    Comments, docstrings and layout cost nothing; an edited line of code does.
    """
    files = sorted(package.rglob("*.py"))
    trees = {f.relative_to(package).as_posix(): _tree(f) for f in files}
    digests = [[name, _syntax(tree)] for name, tree in trees.items()]
    found: dict[str, str] = {}
    waiting = [name for tree in trees.values() for name in _imported(tree)]
    while waiting:
        name = waiting.pop()
        file = floor / f"{name}.py"
        if name in found or name == Path(__file__).stem or not file.is_file():
            continue  # this module only decides when a stage runs
        tree = _tree(file)
        found[name] = _syntax(tree)
        waiting += _imported(tree)
    return digest_of([*digests, *sorted(found.items())])


def _tree(file: Path) -> ast.Module:
    source = file.read_text(encoding="utf-8")
    for _ in range(_PARSINGS - 1):
        # Python 3.11 miscounts while other threads parse (github.com/python/cpython/issues/106905).
        # Prefect would go on without a key, and keep no result of a training of hours.
        with contextlib.suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules directly in ``tasks`` that a module imports, wherever in its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "tasks" and rest:
                yield rest.partition(".")[0]


def _syntax(tree: ast.Module) -> str:
    """The tree without docstrings."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


@functools.cache
def code_digest() -> str:
    """Digest of the syntax trees of all stages and the shared floor: the code of a run."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    names = [f.relative_to(folder).as_posix() for f in files]
    trees = [_syntax(_tree(f)) for f in files]
    return digest_of(list(zip(names, trees, strict=True)))
