"""The form of ``retrain-manual`` as its user sees it: filled, refused, run, and its report read.

Screenshots go to the folder that RETUNE_SCREENSHOTS names, by default to one of pytest's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from deployments import environment
from flows.config import RetrainConfig
from tasks.overrides import overridden
from tests.flows.conftest import tiny_configs
from tests.flows.test_resilience import summary_of

pytestmark = pytest.mark.integration

# As the form has them: it shows a field's description above the box to type in.
NAME = "The model's name in the registry: lower case, digits and dashes"
EPOCHS = "Passes over the training rows"
LEARNING_RATE = "Peak learning rate"
# Pages and runs may take this long on a machine that is busy with other things.
PAGE_MS = 300_000
RUN_MS = 600_000


@pytest.fixture(scope="module")
def browser(stack: Path) -> Iterator[Browser]:
    """Debian's Chromium: none is downloaded."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    # Chromium refuses to run as root with its sandbox. The pages are those of our own servers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty tab, wide enough for the README; nothing that it shows may come from elsewhere."""
    elsewhere: list[str] = []

    def watch(request: Request) -> None:
        if request.url.startswith("http") and f"//{environment.LOOPBACK}:" not in request.url:
            elsewhere.append(request.url)

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(PAGE_MS)
        context.on("request", watch)
        yield context.new_page()
    assert not elsewhere, "the pages ask other machines than this one"


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("RETUNE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def config(
    stack: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RetrainConfig]:
    """What the form is filled with at first: a run of seconds in place of the sample's."""
    tiny = tiny_configs(tmp_path_factory.mktemp("rows"), tiny_model, "from-the-form", 11)()
    before = manual()
    set_parameters(before, {"config": tiny.model_dump(mode="json")})
    yield tiny
    set_parameters(before, before.parameters)


def manual() -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name("retrain/retrain-manual")


def set_parameters(deployment: DeploymentResponse, parameters: dict[str, Any]) -> None:
    with get_client(sync_client=True) as client:
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))


def runs() -> list[FlowRun]:
    """The runs of the form's deployment."""
    of_the_form = DeploymentFilter(id=DeploymentFilterId(any_=[manual().id]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(deployment_filter=of_the_form)


def open_form(page: Page) -> None:
    page.goto(f"{environment.addresses()['Prefect']}/deployments")
    page.get_by_role("link", name="retrain-manual").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(page.get_by_text(NAME)).to_be_visible(timeout=PAGE_MS)


def box(page: Page, description: str) -> Locator:
    """The box below a description: the form's labels name no box that they belong to."""
    below = "xpath=following::*[self::input or self::textarea][1]"
    return page.get_by_text(description, exact=True).locator(below)


def submit(page: Page, done: Locator) -> None:
    """Once more where SQLite was busy: the server says 503 then, and the page knows no retry."""
    busy = page.get_by_text("Something went wrong trying to create a flow run").first
    for _ in range(5):
        page.get_by_role("button", name="Submit").click()
        expect(done.or_(busy).first).to_be_visible(timeout=PAGE_MS)
        if not busy.is_visible():
            return
        expect(busy).to_be_hidden(timeout=PAGE_MS)
    pytest.fail("the server took no run in five attempts")


def artifact(page: Page, key: str) -> Locator:
    """The card of an artifact, on the page of its run."""
    page.get_by_role("tablist").get_by_text("Artifacts", exact=True).click()
    return page.get_by_role("link", name=key)


@pytest.mark.parametrize(
    ("description", "typed", "told"),
    [
        (LEARNING_RATE, "5", "'config.train.learning_rate'. Failure reason: 5 is greater than"),
        (EPOCHS, "0", "'config.train.epochs'. Failure reason: 0 is less than"),
        (NAME, "My Model", "'config.name'. Failure reason: 'My Model' does not match"),
        (NAME, "", "'name' is a required property"),
    ],
    ids=["too-high", "too-low", "malformed", "missing"],
)
def test_the_form_refuses_what_is_invalid(
    page: Page,
    config: RetrainConfig,
    screenshots: Path,
    request: pytest.FixtureRequest,
    description: str,
    typed: str,
    told: str,
) -> None:
    before = {run.id for run in runs()}
    open_form(page)
    box(page, description).fill(typed)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text(told).filter(visible=True).first).to_be_visible(timeout=PAGE_MS)
    # What was typed is still there, to be mended.
    expect(box(page, description)).to_have_value(typed)
    box(page, description).scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"refused-{request.node.callspec.id}.png")
    assert {run.id for run in runs()} == before


def test_a_run_is_started_in_the_form_watched_and_its_report_read(
    page: Page, config: RetrainConfig, stack: Path, screenshots: Path
) -> None:
    before = {run.id for run in runs()}
    name = "typed-in-the-form"
    open_form(page)
    page.screenshot(path=screenshots / "form.png")
    proposed = box(page, "Run Name").input_value()
    box(page, NAME).fill(name)
    box(page, EPOCHS).fill("6.5")
    # Called as the form proposed at first, and by what it is for as soon as it is on.
    link = page.get_by_role("link", name=re.compile(f"^({re.escape(proposed)}|{name} .*)$"))
    submit(page, link.first)
    link.first.click()
    state = page.get_by_role("banner").get_by_text(re.compile("^(Completed|Failed|Crashed)$"))
    expect(state).to_be_visible(timeout=RUN_MS)
    assert state.inner_text() == "Completed"
    (run,) = [run for run in runs() if run.id not in before]
    wanted = overridden(config.model_dump(), {"name": name, "train": {"epochs": 6.5}})
    assert run.parameters == {
        "config": RetrainConfig.model_validate(wanted).model_dump(mode="json"),
        "dry_run": False,
    }
    summary = summary_of(run.id, stack)
    assert (summary.name, summary.decision) == (name, "promoted")

    card = artifact(page, f"decision-{name}")
    expect(card).to_contain_text("Promoted, and why", timeout=PAGE_MS)
    card.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "run.png")
    card.click()
    expect(page.get_by_text(f"{name}: promoted")).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text(summary.sentence)).to_be_visible()
    page.screenshot(path=screenshots / "decision.png")

    page.go_back()
    artifact(page, f"report-{name}").click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="The whole report").click()
    mlflow = opened.value
    report = mlflow.frame_locator("iframe")
    expect(report.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=PAGE_MS)
    expect(report.get_by_text(f"Run {summary.flow_run_name}")).to_be_visible()
    expect(report.get_by_text(summary.sentence)).to_be_visible()
    mlflow.screenshot(path=screenshots / "report.png")
