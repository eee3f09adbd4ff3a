"""What all pages share: how you reach them, the event stream, the keyboard, the wall."""

from __future__ import annotations

import http.client
import re
import signal
from collections.abc import Mapping
from contextlib import closing

import pytest
from playwright.sync_api import Browser, expect

from tests.page.conftest import Open, Serve, model
from tests.page.prefix import below_a_path
from tests.system.daemon import Process, started

pytestmark = pytest.mark.page
PAGES = {
    "now": "Now",
    "timeline": "Timeline",
    "sleep": "Sleep",
    "requests": "Requests",
    "models": "Models",
    "logs": "Logs",
    "machine": "Machine",
    "config": "Configuration",
    "playground": "Playground",
}


def test_a_browser_is_led_to_the_page_and_curl_gets_text(serve: Serve, opened: Open) -> None:
    """The root, the log and the path of the models' own pages lead a browser to the page."""
    daemon = serve({"chat": model()})
    page = opened(daemon, "").page
    for path, where in (("/", ""), ("/logs", "#logs"), ("/upstream", "#models")):
        page.goto(f"http://127.0.0.1:{daemon.port}{path}")
        expect(page).to_have_url(re.compile(f"/ui/{where}$"))
    assert b"/ui/" in daemon.ask("GET", "/")[1]


def test_every_page_is_reached_by_the_keyboard(serve: Serve, opened: Open) -> None:
    """Each page shows its name as a heading."""
    page = opened(serve({"chat": model()})).page
    for title in PAGES.values():
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=title).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name=title)).to_be_attached()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_the_page_comes_back_when_the_daemon_does(
    serve: Serve, opened: Open, tmp_path: str
) -> None:
    """The page marks old data as old, and reconnects without being reloaded."""
    found = opened(serve({"chat": model()}))
    daemon, page = found.daemon, found.page
    daemon.chat("chat")
    expect(page.get_by_role("region", name="Who has the GPU")).to_contain_text("chat")
    daemon.end(signal.SIGTERM)
    expect(page.get_by_text("This page shows old data")).to_be_visible()
    file = f"{tmp_path}/config.yaml"
    with started("--config", file, port=daemon.port):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        who = page.get_by_role("region", name="Who has the GPU")
        expect(who).to_contain_text("No model has the GPU")
    found.errors.clear()  # the browser reports that the daemon did not answer


def test_the_page_works_below_a_path(serve: Serve, opened: Open) -> None:
    """All addresses of the page are relative, so a reverse proxy can serve it below a path."""
    daemon = serve({"chat": model()})
    with below_a_path("/llm", daemon.port) as port:
        page = opened(daemon, "").page
        page.goto(f"http://127.0.0.1:{port}/llm/")
        expect(page).to_have_url(re.compile("/llm/ui/$"))
        page.get_by_role("button", name="Load chat").click()
        expect(page.get_by_role("status").filter(has_text="chat is ready")).to_be_visible()


def test_without_script_the_state_is_plain_html(serve: Serve, browser: Browser) -> None:
    """The daemon renders the models and their states as HTML."""
    daemon = serve({"chat": model()})
    daemon.chat("chat")
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{daemon.port}/ui/")
        expect(page.get_by_role("row", name="chat ready 0 0")).to_be_visible()


def test_the_wall_has_nothing_to_press(serve: Serve, opened: Open) -> None:
    """The wall is for people who pass by, so it has no buttons and no navigation."""
    daemon = serve({"chat": model(), "bad": model("--exit", "3", sleeps=False)})
    daemon.chat("bad")
    daemon.chat("chat")
    page = opened(daemon, "wall").page
    expect(page.get_by_text(re.compile("chat\\s+awake"))).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("navigation")).to_have_count(0)


def test_a_key_is_asked_for_where_keys_are_set(serve: Serve, browser: Browser) -> None:
    """The browser's own dialog asks for the key, and the page works after it."""
    file_keys = ["sk-a-key"]
    daemon = serve({"chat": model()}, apiKeys=file_keys)
    options = {"http_credentials": {"username": "me", "password": "sk-a-key"}}
    with browser.new_context(**options) as context:  # type: ignore[arg-type] # as documented
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{daemon.port}/ui/")
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.get_by_role("button", name="Load chat").click()
        expect(page.get_by_role("status").filter(has_text="chat is ready")).to_be_visible()
    assert fetched(daemon, "/ui/app.js")[0] == 401


def test_a_key_that_only_reads_has_nothing_to_press(serve: Serve, opened: Open) -> None:
    """The page does not offer actions that the daemon would refuse."""
    keys = [{"key": "sk-all"}, {"name": "eyes", "key": "sk-reads", "read": True}]
    daemon = serve({"chat": model()}, apiKeys=keys)
    credentials = {"username": "x", "password": "sk-reads"}
    page = opened(daemon, http_credentials=credentials).page
    expect(page.get_by_role("button", name="Load chat")).to_have_count(0)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    daemon.key = "sk-reads"
    assert daemon.ask("GET", "/api/access")[1] == {"key": "eyes", "changes": False}


def test_files_are_safe_and_asked_for_once(serve: Serve) -> None:
    """Files have a strict script policy, allow no frames, and get a 304 if nothing changed."""
    daemon = serve({"chat": model()})
    _, headers, _ = fetched(daemon, "/ui/app.js")
    for part in ("script-src 'self'", "frame-ancestors 'none'"):
        assert part in headers["content-security-policy"]
    assert headers["content-type"].startswith("text/javascript")
    status, _, body = fetched(daemon, "/ui/app.js", {"If-None-Match": headers["etag"]})
    assert (status, body) == (304, b"")
    for path in ("/ui/../config.yaml", "/ui/%2e%2e/views/pagefiles.py", "/ui/nothing.js"):
        assert fetched(daemon, path)[0] == 404


def fetched(
    daemon: Process, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Request a path exactly as it is written; return the status, the headers and the body."""
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port)) as connection:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def test_colours_follow_the_system_and_can_be_chosen(serve: Serve, opened: Open) -> None:
    """The browser remembers the choice."""
    daemon = serve({"chat": model()})
    page = opened(daemon, color_scheme="dark").page
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Colours: system default").click()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.get_by_text("Live", exact=True).first.wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_odd_addresses_and_ids_do_no_harm(serve: Serve, opened: Open) -> None:
    """An unknown address leads to the page; an id that would form another path is refused."""
    daemon = serve({"chat": model(), "x/../chat": model(), "a b#c%d/é": model()})
    daemon.chat("chat")
    page = opened(daemon, "models/50%").page
    expect(page.get_by_role("link", name="All models")).to_be_visible()
    page.goto(f"http://127.0.0.1:{daemon.port}/ui/#models")
    page.get_by_role("button", name="Load x/../chat").click()
    expect(page.get_by_text("cannot be part of an address")).to_be_visible()
    page.get_by_role("button", name="Load a b#c%d/é").click()
    expect(page.get_by_role("status").filter(has_text="a b#c%d/é is ready")).to_be_visible()


def test_an_image_unloads_nothing(serve: Serve, opened: Open) -> None:
    """An image address, for example one in a model's answer, cannot trigger an action."""
    daemon = serve({"chat": model()})
    daemon.chat("chat")
    found = opened(daemon)
    found.page.evaluate("""() => new Promise((done) => {
        const image = new Image();
        image.onerror = done;
        image.src = "/unload";
    })""")
    assert daemon.running()["chat"]["state"] == "ready"
    found.errors.clear()  # the browser reports the 403


def test_a_missing_model_is_no_dead_end(serve: Serve, opened: Open) -> None:
    """An outdated link to a model leads back to the list of all models."""
    page = opened(serve({"chat": model()}), "models/gone").page
    expect(page.get_by_role("link", name="All models")).to_be_visible()
