"""The timeline: which model held the memory when, and why the memory changed hands."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page.conftest import Open, Serve, model
from tests.page.requests import streams

pytestmark = pytest.mark.page


def drawing(page: Page) -> Locator:
    return page.get_by_role("application", name=re.compile("Models and memory over time"))


def test_bands_are_drawn_as_it_happens(serve: Serve, opened: Open) -> None:
    """Each of the states starting, awake, falling asleep, asleep and waking has its own band."""
    faults = '{"/sleep": {"delay": 0.3}, "/wake_up": {"delay": 0.3}}'
    slow = model("--ready-after", "0.5", "--faults", faults)
    daemon = serve({"chat": slow, "code": slow})
    page = opened(daemon, "timeline").page
    page.get_by_role("button", name="1 min", exact=True).click()
    for name in ("chat", "code", "chat"):
        daemon.chat(name)
    for state in ("starting", "ready", "asleep", "waking", "sleepPending"):
        expect(page.locator(f".band.{state}").first).to_be_attached()
    expect(page.locator(".busy").first).to_be_attached()


def test_a_swap_says_why_it_was_made(serve: Serve, opened: Open) -> None:
    """The reason names the client, its wait, the rule, the model that made room, and the proof."""
    models = {name: model("--gpu", "4096", "--gpu-rest", "256") for name in ("chat", "code")}
    daemon = serve(models, gpus="24", maxWait=1)
    with streams(daemon, "chat", chunks=15):
        daemon.chat("code")
    page = opened(daemon, "timeline").page
    row = page.get_by_role("region", name="Changes").get_by_role("row")
    row.filter(has=page.get_by_text("falling asleep")).get_by_role("button").first.click()
    why = page.get_by_role("region", name="Why")
    expect(why).to_contain_text("it made room for code")
    expect(why).to_contain_text("closed for newcomers")
    expect(why).to_contain_text("one model runs at a time")
    expect(why).to_contain_text("from 127.0.0.1")
    expect(why).to_contain_text("cmdSleep")
    expect(why).to_contain_text("freed 3.8 GiB of 4.0 GiB GPU memory")
    expect(why.get_by_role("table")).to_contain_text("chat")
    expect(page.locator(".waits").first).to_be_attached()


def test_a_click_on_a_band_says_why(serve: Serve, opened: Open) -> None:
    """A click at any point of the band shows the reason."""
    daemon = serve({"chat": model()})
    daemon.chat("chat")
    page = opened(daemon, "timeline").page
    page.get_by_role("button", name="1 min", exact=True).click()
    expect(page.locator(".band.ready")).to_be_attached()
    box = drawing(page).bounding_box()
    assert box
    drawing(page).click(position={"x": box["width"] - 2, "y": 12})
    expect(page.get_by_role("region", name="Why")).to_contain_text("a request asked for it")


def test_the_wheel_and_the_keys_zoom_and_move(serve: Serve, opened: Open) -> None:
    """You can zoom and move through the timeline; the End key leads back to the present."""
    daemon = serve({"chat": model()})
    daemon.chat("chat")
    page = opened(daemon, "timeline").page
    page.get_by_role("button", name="15 min", exact=True).click()
    readout = page.locator(".readout")
    drawing(page).focus()
    page.keyboard.press("+")
    expect(readout).to_contain_text("(5 min)")
    page.keyboard.press("-")
    page.keyboard.press("-")
    expect(readout).to_contain_text("(1 h 00 min)")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="Live", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )
    page.keyboard.press("End")
    expect(readout).to_contain_text("to now")
    drawing(page).hover()
    page.mouse.wheel(0, -400)
    page.mouse.move(0, 0)
    expect(readout).to_contain_text("(48 min)")


def test_the_same_requests_are_played_with_other_settings(serve: Serve, opened: Open) -> None:
    """The page draws both runs, one below the other, and lists their waits in a table."""
    daemon = serve({"chat": model(), "code": model()})
    for name in ("chat", "code", "chat", "code"):
        daemon.chat(name)
    page = opened(daemon, "timeline").page
    page.get_by_role("button", name="Play with other settings").click()
    form = page.get_by_role("region", name="Play with other settings")
    form.get_by_label("maxWait").fill("30")
    form.get_by_role("button", name="Play", exact=True).click()
    expect(form.get_by_role("table")).to_contain_text("4 requests")
    expect(form.get_by_role("row", name=re.compile("As it was"))).to_be_visible()
    expect(form.locator(".band").first).to_be_attached()


def test_what_happened_is_there_after_a_restart(serve: Serve, opened: Open, tmp_path: str) -> None:
    """With a store, the spans, decisions and requests survive a restart."""
    store = {"path": f"{tmp_path}/history.db"}
    daemon = serve({"chat": model(), "code": model()}, store=store)
    daemon.chat("chat")
    daemon.chat("code")
    daemon.end()
    again = serve({"chat": model(), "code": model()}, store=store)
    page = opened(again, "timeline").page
    changes = page.get_by_role("region", name="Changes")
    expect(changes).to_contain_text("it made room for code")
    page.goto(f"http://127.0.0.1:{again.port}/ui/#requests")
    expect(page.get_by_role("region", name="Finished").get_by_role("row")).to_have_count(3)


def test_colours_are_those_of_the_simulators_picture() -> None:
    """The page and the simulator's picture show each state in the same colour."""
    from proxy.simulation.timeline import COLOURS
    from proxy.views.pagefiles import FILES

    style = (FILES / "style.css").read_text()
    for state, colour in COLOURS.items():
        assert f"--{state.value}: {colour};" in style
