"""The other pages: sleep, requests, models, the machine, the configuration."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from tests.pace import slowness
from tests.page.conftest import Open, Serve, model
from tests.page.requests import streams

pytestmark = pytest.mark.page


def test_sleep_says_what_it_freed_and_saved(serve: Serve, opened: Open) -> None:
    """The page shows each cycle, the time of each step, and what wakes saved against starts."""
    slow = model("--gpu", "4096", "--gpu-rest", "256", "--ready-after", "1")
    daemon = serve({"chat": slow, "code": slow, "old": model(sleeps=False)}, gpus="24")
    for name in ("chat", "code", "chat", "code"):
        daemon.chat(name)
    page = opened(daemon, "sleep").page
    expect(page.get_by_text(re.compile(r"Today sleep saved [12]\.\d s"))).to_be_visible()
    chat = page.get_by_role("article", name="Sleep of chat")
    expect(chat).to_contain_text("2 cycles of GPU memory; the last freed 3.8 GiB and left 256 MiB")
    expect(chat.get_by_role("table")).to_contain_text("A wake takes")
    expect(page.get_by_text("1 model cannot sleep")).to_be_visible()


def test_requests_are_found_sorted_and_looked_into(serve: Serve, opened: Open) -> None:
    """The page lists ended requests with tokens, failures with reasons, and a request's bodies."""
    daemon = serve({"chat": model("--talk", "0"), "bad": model("--exit", "3", sleeps=False)})
    daemon.chat("chat", stream=True)
    daemon.chat("bad")
    page = opened(daemon, "requests").page
    finished = page.get_by_role("region", name="Finished")
    rows = finished.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="42.5")).to_contain_text("chat")
    expect(rows.filter(has_text="bad")).to_contain_text("status 3")
    finished.get_by_role("checkbox", name="failed only").check()
    expect(rows).to_have_count(2)
    finished.get_by_role("checkbox", name="failed only").uncheck()
    expect(rows).to_have_count(3)
    finished.get_by_role("button", name="Model").click()
    expect(rows.nth(1)).to_contain_text("chat")
    finished.get_by_role("button", name="Open request 1").click()
    capture = page.get_by_role("dialog", name="Request 1 to chat")
    expect(capture.get_by_role("region", name="Answer")).to_contain_text("Some **bold** words")
    expect(capture.get_by_role("region", name="Request")).to_contain_text('"model": "chat"')
    capture.get_by_role("button", name="Close").click()
    expect(capture).to_have_count(0)


def test_requests_are_exported(serve: Serve, opened: Open, tmp_path: Path) -> None:
    """The export is JSON in llama-swap's form."""
    daemon = serve({"chat": model()})
    daemon.chat("chat")
    page = opened(daemon, "requests").page
    with page.expect_download() as found:
        page.get_by_role("button", name="Export this page as JSON").click()
    found.value.save_as(tmp_path / "requests.json")
    (row,) = json.loads((tmp_path / "requests.json").read_text())
    assert row["model"] == "chat"


def test_finished_requests_follow_under_load(serve: Serve, opened: Open) -> None:
    """The list keeps up even if requests end in quick succession."""
    daemon = serve({"chat": model()})
    page = opened(daemon, "requests").page
    until = time.monotonic() + 5
    while time.monotonic() < until:
        daemon.chat("chat")
    count = daemon.ask("GET", "/api/metrics/stats")[1]["total_requests"]
    shown = page.get_by_role("region", name="Finished").get_by_role("heading").inner_text()
    assert int(shown.split()[-1]) > count / 3 / slowness()
    expect(page.get_by_role("region", name="Finished")).to_contain_text(f"Finished {count}")


def test_a_request_that_runs_is_cancelled(serve: Serve, opened: Open) -> None:
    """After a question the request ends, and the list says that an operator cancelled it."""
    daemon = serve({"chat": model(), "code": model()})
    page = opened(daemon, "requests").page
    with streams(daemon, "chat", "code"):
        expect(page.get_by_role("region", name="Queue")).to_contain_text("waits for 1 request")
        flight = page.get_by_role("region", name="In flight").get_by_role("row").nth(1)
        flight.get_by_role("button", name=re.compile("Cancel request")).click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
        finished = page.get_by_role("region", name="Finished").get_by_role("row").nth(1)
        expect(finished).to_contain_text("an operator cancelled it")


def test_a_model_has_a_page_of_its_own(serve: Serve, opened: Open) -> None:
    """The page shows settings without secrets, the log and the requests, and can pin the model."""
    steps = [{"endpoint": "/sleep", "headers": {"X-Key": "sk-secret"}}]
    chat = model(sleeps=False, sleepMode="enable", sleepEndpoints=steps, wakeEndpoints=steps)
    chat |= {"name": "A chat", "aliases": ["best"], "env": ["TOKEN=sk-secret"]}
    daemon = serve({"team/chat": chat, "bad": model("--exit", "3", sleeps=False)})
    daemon.chat("best")
    page = opened(daemon, "models").page
    page.get_by_role("link", name="team/chat", exact=True).click()
    expect(page.get_by_role("heading", name="team/chat")).to_be_visible()
    page.get_by_text("Settings in effect").click()
    expect(page.locator("pre").first).to_contain_text("sleepEndpoints")
    assert "sk-secret" not in page.content()
    page.get_by_role("button", name="Pin team/chat for an hour").click()
    expect(page.get_by_text(re.compile("Leases: the page"))).to_be_visible()
    page.get_by_role("button", name="Unpin team/chat").click()
    expect(page.get_by_text(re.compile("Leases: the page"))).to_have_count(0)
    expect(page.get_by_role("region", name="Finished").get_by_role("row")).to_have_count(2)


def test_models_are_searched_and_all_unloaded(serve: Serve, opened: Open) -> None:
    """One search word narrows down fifty models."""
    daemon = serve({f"m{n}": model() for n in range(50)})
    daemon.chat("m7")
    page = opened(daemon, "models").page
    rows = page.get_by_role("row")
    expect(rows).to_have_count(51)
    expect(rows.nth(1)).to_contain_text("m7")
    page.get_by_role("searchbox", name="Search").fill("m4")
    expect(rows).to_have_count(12)
    page.get_by_role("searchbox", name="Search").fill("")
    page.get_by_role("button", name="Unload all").click()
    page.get_by_role("dialog").get_by_role("button", name="Unload all").click()
    expect(page.get_by_role("status").filter(has_text="All models are unloaded")).to_be_visible()


def test_what_a_reload_would_change_is_told_before(
    serve: Serve, opened: Open, tmp_path: Path
) -> None:
    """If the file has an error, the page shows the error at its line."""
    daemon = serve({"chat": model(), "code": model()}, apiKeys=[])
    page = opened(daemon, "config").page
    expect(page.get_by_text("a reload would change nothing")).to_be_visible()
    file = tmp_path / "config.yaml"
    text = file.read_text()
    whole = yaml.safe_load(text)
    whole["models"]["new"] = {"cmd": "x --port ${PORT}"}
    file.write_text(yaml.safe_dump({**whole, "maxWait": 3}))
    page.get_by_role("button", name="Check again").click()
    changes = page.get_by_role("region", name="What a reload would change")
    expect(changes).to_contain_text("new")
    expect(changes.get_by_role("row").filter(has_text="maxWait")).to_contain_text("3")
    page.get_by_role("button", name="Reload the files").click()
    expect(page.get_by_text("a reload would change nothing")).to_be_visible()
    file.write_text(text + "maxWait: soon\n")
    page.get_by_role("button", name="Check again").click()
    problems = page.get_by_role("region", name="Problems")
    expect(problems).to_contain_text("maxWait")
    expect(page.get_by_role("button", name="Reload the files")).to_be_disabled()
    expect(page.locator(".marked")).to_contain_text("maxWait: soon")


def test_the_file_is_shown_without_secrets(serve: Serve, opened: Open) -> None:
    """The page masks the keys of clients, peers and model servers, however short they are."""
    peers = {"other": {"proxy": "http://127.0.0.1:9", "apiKey": "sk-of-a-peer", "models": ["x"]}}
    daemon = serve({"chat": model(controlHeaders={"X-Key": "of-a-server"})}, peers=peers)
    page = opened(daemon, "config").page
    expect(page.get_by_text("a reload would change nothing")).to_be_visible()
    expect(page.locator(".file")).to_contain_text("apiKey: ***")
    for secret in ("sk-of-a-peer", "of-a-server"):
        assert secret not in page.content()


def test_the_machine_is_drawn_and_described(serve: Serve, opened: Open) -> None:
    """The page shows processors and GPUs as charts, and the hardware as text."""
    daemon = serve({"chat": model("--gpu", "4096")}, gpus="24")
    daemon.chat("chat")
    page = opened(daemon, "machine").page
    expect(page.get_by_role("group", name=re.compile("Processors"))).to_be_visible()
    expect(
        page.get_by_role("group", name=re.compile("GPU 0: temperature and power"))
    ).to_be_visible(timeout=15_000)
    expect(page.locator(".uplot canvas").first).to_be_attached()
    expect(page.get_by_role("region", name="Hardware")).to_contain_text("driver 0.0 (made up)")


def test_a_machine_that_is_not_sampled_says_so(serve: Serve, opened: Open) -> None:
    """The page names the configuration key that turns sampling off."""
    daemon = serve({"chat": model()}, performance={"disabled": True})
    found = opened(daemon, "machine")
    expect(found.page.get_by_text("does not sample the machine")).to_be_visible()
    assert all("503" in error for error in found.errors)
    found.errors.clear()
