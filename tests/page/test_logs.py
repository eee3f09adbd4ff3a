"""Logs of the daemon and of each model: searched and paused; a flood costs no memory."""

from __future__ import annotations

import os
import time

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Open, Serve, model

pytestmark = pytest.mark.page
FLOOD = float(os.environ.get("PAGE_FLOOD_SECONDS", "10"))


def test_lines_come_as_they_are_written_and_are_searched(serve: Serve, opened: Open) -> None:
    """Lines can be filtered by source, by lowest level and by a word that they contain."""
    daemon = serve({"chat": model(), "bad": model("--exit", "3", sleeps=False)})
    page = opened(daemon, "logs").page
    log = page.get_by_role("log")
    daemon.chat("bad")
    expect(log).to_contain_text("the stub gives up")
    expect(log).to_contain_text("<bad> Model failed")
    page.get_by_role("combobox", name="Level").select_option("error")
    expect(log).not_to_contain_text("Listening on")
    expect(log).to_contain_text("<bad> Model failed")
    page.get_by_role("combobox", name="Level").select_option("debug")
    page.get_by_role("searchbox", name="Search").fill("listening")
    expect(log.locator("p")).to_have_count(1)
    page.get_by_role("searchbox", name="Search").fill("")
    page.get_by_role("combobox", name="Source").select_option("bad")
    expect(log).to_contain_text("the stub gives up")
    expect(log).not_to_contain_text("Listening on")


def test_a_pause_holds_what_is_shown(serve: Serve, opened: Open) -> None:
    """Lines that arrive during the pause appear when the log continues."""
    daemon = serve({"chat": model()})
    page = opened(daemon, "logs").page
    log = page.get_by_role("log")
    expect(log).to_contain_text("Listening on")
    page.get_by_role("button", name="Pause").last.click()
    daemon.chat("chat")
    page.wait_for_timeout(700)
    expect(log).not_to_contain_text("Model ready")
    page.get_by_role("button", name="Continue").click()
    expect(log).to_contain_text("Model ready")


def test_a_flood_is_cut_counted_and_costs_no_memory(serve: Serve, opened: Open) -> None:
    """The page stays responsive, its heap does not grow, and it says how much was left out."""
    daemon = serve({"loud": model("--flood", str(FLOOD + 5), sleeps=False)})
    page = opened(daemon, "logs").page
    daemon.chat("loud")
    expect(page.get_by_text("left out because they came too fast")).to_be_visible()
    page.wait_for_timeout(3000)
    before = heap(page)
    until = time.monotonic() + FLOOD
    slowest = 0.0
    while time.monotonic() < until:
        began = time.monotonic()
        page.get_by_role("searchbox", name="Search").fill(str(began)[-3:])
        slowest = max(slowest, time.monotonic() - began)
        page.wait_for_timeout(300)
    grown = heap(page) - before
    print(
        f"flood of {FLOOD:.0f} s: heap {before >> 20} MiB, {grown >> 20} MiB more; {slowest:.2f} s"
    )
    assert grown < 8 << 20
    assert slowest < 2
    assert daemon.ask("GET", "/health")[0] == 200


def heap(page: Page) -> int:
    """Return the bytes of the page's heap after a garbage collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return int(used)
