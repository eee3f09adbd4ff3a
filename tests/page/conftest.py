"""The page in a real browser, Debian's chromium: an error on its console fails a test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.conftest import stub_command
from tests.system.daemon import Process, started, write

CHROMIUM = shutil.which("chromium")
PICTURES = Path(os.environ.get("PAGE_PICTURES", Path(__file__).parents[2] / ".page-pictures"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NVML = Path(__file__).parents[1] / "peers" / "nvml"
CURL = "curl -fsS -X POST http://127.0.0.1:${PORT}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def model(*options: str, sleeps: bool = True, **keys: object) -> dict[str, object]:
    """Return a model served by the stub."""
    body: dict[str, object] = {
        "cmd": stub_command("--port", "${PORT}", *options),
        "proxy": "http://127.0.0.1:${PORT}",
        **keys,
    }
    if sleeps:
        body |= {"cmdSleep": f"{CURL}/sleep?level=1", "cmdWake": f"{CURL}/wake_up"}
    return body


@attrs.define(eq=False)
class Opened:
    """The page of one daemon, opened in a browser.

    Attributes:
        daemon: the daemon.
        page: the page in the browser.
        errors: what the page's console said; tests that provoke an error empty this.
    """

    daemon: Process
    page: Page
    errors: list[str] = attrs.field(factory=list)

    def at(self, where: str) -> Page:
        """Go to a part of the page, and wait until it is connected to the daemon."""
        self.page.goto(f"http://127.0.0.1:{self.daemon.port}/ui/#{where}")
        self.page.get_by_text("Live", exact=True).first.wait_for()
        return self.page

    def hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")


Serve = Callable[..., Process]
Open = Callable[..., Opened]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start daemons that end with the test."""
    with ExitStack() as stack:

        def start(models: dict[str, Any], gpus: str = "", **whole: Any) -> Process:
            if gpus:
                (tmp_path / "gpus").mkdir(exist_ok=True)
                monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path / "gpus"))
                monkeypatch.setenv("CUDA_STAND_IN_GPUS", gpus)
                monkeypatch.setenv("PYTHONPATH", str(NVML))
            state = str(tmp_path / "state")
            file = write(tmp_path, models=models, **whole)
            return stack.enter_context(started("--config", file, "--state-dir", state))

        yield start


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open pages; at the end, the consoles of all pages must be without errors."""
    pages: list[Opened] = []
    contexts: list[BrowserContext] = []

    def open_page(daemon: Process, where: str = "now", **options: Any) -> Opened:
        options = {
            "viewport": {"width": 1280, "height": 900},
            "reduced_motion": "reduce",
            **options,
        }
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        found = Opened(daemon, context.new_page())
        found.page.on("console", lambda message: found.hear(message))
        found.page.on("pageerror", lambda error: found.errors.append(str(error)))
        pages.append(found)
        if where:
            found.at(where)
        return found

    yield open_page
    for context in contexts:
        context.close()
    assert [error for one in pages for error in one.errors] == []
