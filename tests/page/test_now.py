"""Now: which model has the GPU, who waits, what is wrong, and what you can do."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Open, Serve, model
from tests.page.requests import streams

pytestmark = pytest.mark.page


def test_who_has_the_gpu_is_read_at_a_glance(serve: Serve, opened: Open) -> None:
    """The page shows a swap as it happens: one model falls asleep, the other becomes awake."""
    daemon = serve({"chat": model(), "code": model()})
    page = opened(daemon).page
    who = page.get_by_role("region", name="Who has the GPU")
    expect(who).to_contain_text("No model has the GPU")
    daemon.chat("chat")
    expect(who).to_contain_text(re.compile("chat\\s+awake"))
    expect(who).to_contain_text("requested by 127.0.0.1")
    daemon.chat("code")
    expect(who).to_contain_text(re.compile("code\\s+awake"))
    tiles = page.get_by_role("region", name="Models", exact=True).get_by_role("listitem")
    expect(tiles.filter(has_text="chat")).to_contain_text("asleep")
    expect(page).to_have_title(re.compile("code"))


def test_a_queue_of_five_is_told_with_its_reasons(serve: Serve, opened: Open) -> None:
    """The queue shows each model's place and what it waits for, and which model runs meanwhile."""
    names = ["a", "b", "c", "d", "e", "f"]
    daemon = serve({name: model() for name in names}, maxWait=600)
    page = opened(daemon).page
    with streams(daemon, *names):
        queue = page.get_by_role("list", name="Waiting models").get_by_role("listitem")
        expect(queue).to_have_count(5)
        expect(queue.first).to_contain_text("waits for 1 request of a to end")
        expect(page.get_by_role("region", name="Who has the GPU")).to_contain_text("1 request")


def test_who_is_served_waits_no_longer(serve: Serve, opened: Open) -> None:
    """A page that was opened during the wait also shows when the wait ends."""
    daemon = serve({"chat": model("--ready-after", "6")})  # a browser may take seconds to open
    with streams(daemon, "chat"):
        page = opened(daemon).page
        expect(page.get_by_role("list", name="Waiting models")).to_contain_text("chat")
        expect(page.get_by_text("Nothing waits")).to_be_visible(timeout=20_000)


def test_a_failing_model_is_told_of_with_a_way_out(serve: Serve, opened: Open) -> None:
    """The page says why the model failed and when it may start again, and can start it at once."""
    daemon = serve({"bad": model("--exit", "3", sleeps=False)})
    found = opened(daemon)
    page = found.page
    for _ in range(3):
        daemon.chat("bad")
    strip = page.get_by_role("list", name="What is wrong")
    expect(strip).to_contain_text("bad failed")
    expect(strip).to_contain_text("status 3")
    expect(strip).to_contain_text("It may start again in")
    strip.get_by_role("button", name="Start bad now").click()
    expect(page.get_by_role("status").filter(has_text="model 'bad' failed")).to_be_visible()
    assert found.errors  # the browser reports each answer that is not a success
    assert all("502" in error for error in found.errors)
    found.errors.clear()


def test_sleep_that_is_not_trusted_is_told_of(serve: Serve, opened: Open) -> None:
    """If a model's sleep is no longer trusted, the page says so."""
    faults = '{"/sleep": {"status": 500}}'
    daemon = serve({"a": model("--faults", faults), "b": model()}, maxSleepFailures=1)
    page = opened(daemon).page
    daemon.chat("a")
    daemon.chat("b")
    strip = page.get_by_role("list", name="What is wrong")
    expect(strip).to_contain_text("a no longer sleeps")


def test_a_model_is_loaded_put_to_sleep_woken_and_unloaded(serve: Serve, opened: Open) -> None:
    """Each action has a button, and the page confirms the result."""
    page = opened(serve({"chat": model()})).page
    tile = page.get_by_role("region", name="Models", exact=True).get_by_role("listitem")
    for button, done, state in (
        ("Load chat", "chat is ready", "awake"),
        ("Put chat to sleep", "chat sleeps", "asleep"),
        ("Wake chat", "chat is awake", "awake"),
        ("Unload chat", "chat is unloaded", "stopped"),
    ):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("status").filter(has_text=done)).to_be_visible()
        expect(tile).to_contain_text(state)


def test_who_has_unloaded_a_model_is_told(serve: Serve, opened: Open) -> None:
    """The timeline names the key and the address of the operator."""
    keys = [{"name": "ann", "key": "sk-of-ann"}]
    daemon = serve({"code": model()}, apiKeys=keys)
    daemon.key = "sk-of-ann"
    daemon.chat("code")
    daemon.ask("POST", "/api/models/unload/code")
    credentials = {"username": "x", "password": "sk-of-ann"}
    page = opened(daemon, "timeline", http_credentials=credentials).page
    changes = page.get_by_role("region", name="Changes").get_by_role("row")
    expect(changes.nth(1)).to_contain_text("an operator asked for it (from 127.0.0.1, key ann)")


def test_requests_are_not_cut_without_a_question(serve: Serve, opened: Open) -> None:
    """The question says how many requests will be cut; Cancel changes nothing."""
    daemon = serve({"chat": model()})
    page = opened(daemon).page
    tile = page.get_by_role("region", name="Models", exact=True).get_by_role("listitem")
    with streams(daemon, "chat"):
        expect(tile).to_contain_text("1 request")
        page.get_by_role("button", name="Unload chat").click()
        question = page.get_by_role("dialog")
        expect(question).to_contain_text("1 request will be cut")
        question.get_by_role("button", name="Cancel").click()
        assert daemon.running()["chat"]["state"] == "ready"
        page.get_by_role("button", name="Unload chat").click()
        page.get_by_role("button", name="Unload it").click()
        expect(page.get_by_role("status").filter(has_text="chat is unloaded")).to_be_visible()


def test_a_pause_is_begun_and_ended_from_the_frame(serve: Serve, opened: Open) -> None:
    """Every viewer sees that llamadoze is paused and how to resume."""
    daemon = serve({"chat": model()})
    page = opened(daemon).page
    daemon.chat("chat")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("region", name="Who has the GPU")).to_contain_text("Paused")
    page.get_by_role("banner").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("region", name="Who has the GPU")).to_contain_text("chat")


def test_the_focus_comes_back_after_an_action_and_a_question(serve: Serve, opened: Open) -> None:
    """The focus returns to the button that opened the question, for people who use the keyboard."""
    daemon = serve({"chat": model()})
    page = opened(daemon).page
    pause = page.get_by_role("button", name="Pause")
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(pause).to_be_focused()


def test_each_device_has_a_bar_of_who_holds_it(serve: Serve, opened: Open) -> None:
    """The bar names its parts in words, for people who cannot see its colours."""
    sizes = {"chat": "8192", "code": "4096"}
    models = {name: model("--gpu", size, "--gpu-rest", "512") for name, size in sizes.items()}
    daemon = serve(models, gpus="24")
    daemon.chat("code")
    daemon.chat("chat")
    page = opened(daemon).page
    bar = page.get_by_role("img", name=re.compile("GPU 0"))
    expect(bar).to_have_attribute("aria-label", re.compile("8.0 GiB awake, 512 MiB left by sleep"))
    expect(page.get_by_role("region", name="Memory")).to_contain_text("15.5 GiB free")


def test_profiles_are_chosen_in_the_frame(serve: Serve, opened: Open) -> None:
    """The choice reaches the daemon, and the daemon sends it to all open pages."""
    profiles = {"work": {"pins": {"best": "chat"}}}
    daemon = serve({"chat": model()}, profiles=profiles)
    page = opened(daemon).page
    page.get_by_role("combobox", name="Profile").select_option("work")
    other = opened(daemon).page
    expect(other.get_by_role("combobox", name="Profile")).to_have_value("work")
    assert daemon.ask("GET", "/api/profiles")[1]["active"] == "work"
