"""A real Label Studio server, the real receiver, and what becomes of what people annotate.

`make test-label-studio` installs the server, in an environment of its own, and runs these tests.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pyarrow.parquet as pq
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deployments import environment, stack
from tasks import collected
from tasks.artifacts import TaskConfig
from tasks.collect import inbox
from tasks.ingest.config import SourceConfig
from tasks.ingest.snapshot import read_source
from tasks.objects import open_store
from tests import label_studio
from tests.conftest import free_port
from tests.deployments.test_hardened import await_put_away
from tests.flows.conftest import tiny_configs
from tests.label_studio import LabelStudio, result

# The first test has the two servers to wait for, and a run.
pytestmark = [pytest.mark.label_studio, pytest.mark.timeout(1800)]

NAME = "annotated"
MIN_ROWS = 6  # one test makes as many, all others together fewer
HEADER = "X-Retune-Secret"
TEXTS = [f"question number {number} of them all" for number in range(16)]

Found = TypeVar("Found")


@dataclass(frozen=True)
class Place:
    """A project whose webhook goes to the receiver of a stack of its own; ``tasks`` are free."""

    studio: LabelStudio
    project: int
    tasks: list[int]
    folder: Path
    config: Path
    secrets: dict[str, str]

    @property
    def webhook(self) -> str:
        return f"{environment.addresses()['Webhook']}/webhooks/label-studio"

    def annotate(self, says: str) -> tuple[int, int]:
        """A task that nobody annotated, and the annotation that it now has."""
        task = self.tasks.pop()
        return task, self.studio.annotate(task, says)

    def row(self, task: int) -> str:
        return f"{self.project}/{task}"


@pytest.fixture(scope="module")
def studio() -> Iterator[LabelStudio]:
    with label_studio.running(free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def place(
    studio: LabelStudio,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Callable[[], dict[str, str]],
) -> Iterator[Place]:
    folder, models = tmp_path_factory.mktemp("annotated"), environment.models()
    rows = folder / "rows"
    rows.mkdir()
    project = studio.make_project("support")
    tasks = studio.import_texts(project, TEXTS)
    reads = {"columns": {"user": "prompt", "assistant": "completion"}}
    sources = [{"path": str(rows / "rows.jsonl"), **reads}, {"collected": "label-studio"}]
    weekly = folder / "weekly.yaml"
    weekly.write_text(
        tiny_configs(rows, tiny_model, NAME, 11)(ingest={"sources": sources}).to_yaml()
    )
    hook = {
        "min_rows": MIN_ROWS,
        "label_studio_url": studio.url,
        "label_studio_project": project,
    }
    config = folder / "webhook.yaml"
    config.write_text(yaml.safe_dump({"hooks": {"label-studio": hook}}))
    known = {
        "RETUNE_WEBHOOK_LABEL_STUDIO_SECRET": secrets.token_hex(20),
        "LABEL_STUDIO_API_KEY": studio.ask("POST", "token/")["token"],  # a personal access token
    }
    local = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **free_ports(),
            "RETUNE_LOCAL": str(local),
            "RETUNE_MODELS": str(models),
            "RETUNE_WEEKLY_CONFIG": str(weekly),
            "RETUNE_WEBHOOK_CONFIG": str(config),
            **known,
        }.items():
            patch.setenv(name, value)
        for name in ("RETUNE_STORE", "RETUNE_DATA", "RETUNE_AUTH", "RETUNE_POSTGRESQL"):
            patch.delenv(name, raising=False)
        try:
            stack.up()
            for name, value in environment.environment().items():
                patch.setenv(name, value)
            made = Place(studio, project, tasks, local, config, known)
            headers = {HEADER: known["RETUNE_WEBHOOK_LABEL_STUDIO_SECRET"]}
            studio.register(project, made.webhook, headers)
            eventually(lambda: asked(made))  # what comes now is told by its webhook alone
            yield made
        finally:
            stack.down()


def test_annotations_start_one_run_and_a_model_names_them(place: Place) -> None:
    before = answers()
    done = [place.annotate("yes")[0] for _ in range(MIN_ROWS - 1)]
    eventually(lambda: set(map(place.row, done)) <= ready().keys())
    assert runs() == []
    done.append(place.annotate("yes")[0])
    (run,) = eventually(runs)
    assert answers() == {**before, "accepted": before.get("accepted", 0) + MIN_ROWS}
    assert run["parameters"]["config"]["name"] == NAME

    ended = eventually(lambda: [r for r in runs() if r["state_type"] in ENDED], seconds=1500)
    assert [run["state_type"] for run in ended] == ["COMPLETED"]
    summary = json.loads((place.folder / "runs" / run["id"] / "summary.json").read_text())
    (ingest,) = (stage for stage in summary["stages"] if stage["name"] == "ingest")
    assert ingest["num_out"] == 60 + MIN_ROWS
    generation = int(summary["lineage"]["collected"].removeprefix("label-studio "))
    store = open_store()
    events = [collected.load(store, "label-studio", n + 1).consumed for n in range(generation)]
    assert len(frozenset().union(*events)) == MIN_ROWS
    version = champion()
    assert version["version"] == summary["model"]["version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["collected"] == f"label-studio {generation}"
    assert len(runs()) == 1


def test_what_is_changed_and_deleted_is_so_in_the_rows(place: Place) -> None:
    changed, annotation = place.annotate("yes")
    emptied, taken_back = place.annotate("yes")
    deleted, _ = place.annotate("yes")
    eventually(lambda: {place.row(t) for t in (changed, emptied, deleted)} <= ready().keys())
    place.studio.ask("PATCH", f"annotations/{annotation}", {"result": result("no")})
    place.studio.ask("DELETE", f"annotations/{taken_back}")
    # As the interface does it.
    chosen = {"selectedItems": {"all": False, "included": [deleted]}}
    place.studio.ask("POST", f"dm/actions?id=delete_tasks&project={place.project}", chosen)
    eventually(lambda: not {place.row(emptied), place.row(deleted)} & ready().keys())
    (part,) = ready()[place.row(changed)]["annotations"]
    assert (part["id"], part["result"]) == (annotation, result("no"))
    examples, unread = read_source(SourceConfig(collected="label-studio"), TaskConfig())
    assert unread == []
    said = {example.meta["task"]: (example.answer, example.label) for example in examples}
    assert said[str(changed)] == ("no", "no")
    assert not {str(emptied), str(deleted)} & said.keys()


def test_a_task_in_the_place_of_a_deleted_one_is_annotated_anew(place: Place) -> None:
    (first,) = place.studio.import_texts(place.project, ["the wrong question"])
    place.studio.annotate(first, "yes")
    eventually(lambda: place.row(first) in ready())
    place.studio.ask("DELETE", f"tasks/{first}")
    eventually(lambda: place.row(first) not in ready())
    (second,) = place.studio.import_texts(place.project, ["the right question"])
    assert second == first, "Label Studio gives ids of deleted tasks no longer: drop this test"
    place.studio.annotate(second, "no")
    eventually(lambda: place.row(second) in ready())
    assert ready()[place.row(second)]["data"] == {"text": "the right question"}


def test_who_has_another_secret_leaves_nothing_behind(place: Place) -> None:
    project = place.studio.make_project("a stranger's")
    (task,) = place.studio.import_texts(project, ["whose is it"])
    place.studio.register(project, place.webhook, {HEADER: "guessed"})
    before, store = answers(), open_store()
    place.studio.annotate(task, "yes")
    refused = before.get("not genuine", 0) + 1
    eventually(lambda: answers().get("not genuine") == refused)
    assert answers() == {**before, "not genuine": refused}
    eventually(lambda: not inbox.keys(store, "label-studio"))
    assert not [row for row in rows_now() if row.startswith(f"{project}/")]


def test_what_happened_while_the_receiver_was_down_is_found_once(place: Place) -> None:
    taken_from, annotation = place.annotate("yes")
    eventually(lambda: place.row(taken_from) in ready())
    stack.down()
    missed = [place.annotate("no")[0] for _ in range(2)]
    place.studio.ask("DELETE", f"annotations/{annotation}")
    config = yaml.safe_load(place.config.read_text())
    config["hooks"]["label-studio"]["reconcile_minutes"] = 0.02
    place.config.write_text(yaml.safe_dump(config))
    stack.up()
    found = eventually(lambda: asked(place) if len(asked(place)) > 3 else [])
    assert found == [3, *[0] * (len(found) - 1)]
    for task in missed:
        (part,) = ready()[place.row(task)]["annotations"]
        assert part["result"] == result("no")
    assert place.row(taken_from) not in ready()
    assert len(runs()) <= 1, "the rows that were there started a run again"


def test_the_projects_token_and_the_secrets_are_kept_nowhere(place: Place) -> None:
    with listening() as (url, heard):
        place.studio.register(place.project, url, {})
        task, _ = place.annotate("yes")
        (body,) = eventually(lambda: heard)
    token = body["project"]["token"]
    assert len(token) >= 20
    store = open_store()
    eventually(lambda: place.row(task) in ready() and not inbox.keys(store, "label-studio"))
    await_put_away(place.folder)
    searched = 0
    for secret in (token, *place.secrets.values()):
        needle = secret.encode()
        for key in store.keys_under(""):
            assert needle not in plain(key, store.get_bytes(key)), key
            searched += 1
        for file in filter(Path.is_file, place.folder.rglob("*")):
            assert needle not in file.read_bytes(), file.relative_to(place.folder)
    assert searched > 0
    # It was looked for in the right way: what may be kept is found so.
    kept = [plain(key, store.get_bytes(key)) for key in store.keys_under("collected/")]
    assert any(f'"id":{task}'.encode() in body for body in kept)


ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def eventually(what: Callable[[], Found], seconds: float = 300) -> Found:
    """What it answers once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)
    return found


def rows_now() -> dict[str, collected.CollectedRow]:
    store = open_store()
    return collected.load(
        store, "label-studio", collected.newest_number(store, "label-studio")
    ).rows


def ready() -> dict[str, dict[str, Any]]:
    """The rows that hold something, as an export would have them."""
    return {row.id: row.row for row in collected.ready(rows_now().values())}


def runs() -> list[dict[str, Any]]:
    wanted = {"tags": {"all_": ["on-data", "label-studio"]}}
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/filter"
    answer = httpx.post(url, json={"flow_runs": wanted}, trust_env=False, timeout=60)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def champion() -> dict[str, Any]:
    url = f"{environment.addresses()['MLflow']}/api/2.0/mlflow/registered-models/alias"
    alias = {"name": NAME, "alias": "champion"}
    answer = httpx.get(url, params=alias, trust_env=False, timeout=60).raise_for_status()
    found: dict[str, Any] = answer.json()["model_version"]
    return found


def answers() -> dict[str, float]:
    """How many times the receiver answered what."""
    url = f"{environment.addresses()['Webhook']}/metrics"
    text = httpx.get(url, trust_env=False, timeout=60).raise_for_status().text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "retune_webhook_answers_total"
    }


def asked(place: Place) -> list[int]:
    """How many changes each look at the project found, since the stack was started."""
    log = (place.folder / "logs" / "collect.log").read_text()
    return [int(number) for number in re.findall(r"asked, and (\d+) changes", log)]


def plain(key: str, body: bytes) -> bytes:
    if not key.endswith(".parquet"):
        return body
    return json.dumps(pq.read_table(io.BytesIO(body)).to_pylist(), default=str).encode()


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver that keeps all of what it hears."""
    heard: list[dict[str, Any]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", free_port()), Ear)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
