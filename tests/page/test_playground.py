"""The playground: a chat that loads its model first, two chats side by side, images, Stop."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Open, Serve, model
from tests.system.daemon import LLAMADOZE, Process, started

pytestmark = pytest.mark.page
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_chat_shows_markdown_and_how_fast_it_came(serve: Serve, opened: Open) -> None:
    """Before the answer, the page shows how the model starts."""
    daemon = serve({"chat": model("--talk", "0.05", "--ready-after", "1.5")})
    page = opened(daemon, "playground").page
    page.get_by_role("textbox", name="Message").fill("Hello")
    page.keyboard.press("Enter")
    talk = page.get_by_role("region", name="Chat with chat")
    expect(talk.get_by_role("status")).to_contain_text(
        re.compile("chat is (starting|not loaded)|ready")
    )
    expect(talk.get_by_role("heading", name="A heading")).to_be_visible()
    expect(talk.locator("strong")).to_have_text("bold")
    expect(talk).to_contain_text("5 tokens")
    page.get_by_role("link", name="Now").click()
    page.get_by_role("link", name="Playground").click()
    expect(talk.get_by_role("heading", name="A heading")).to_be_visible()


def test_two_models_answer_side_by_side_and_are_stopped(serve: Serve, opened: Open) -> None:
    """One click on Stop ends both requests at once."""
    beside = {"g": {"swap": False, "members": ["chat", "code"]}}
    slow = model("--talk", "2")
    daemon = serve({"chat": slow, "code": slow}, groups=beside)
    page = opened(daemon, "playground").page
    page.get_by_role("combobox", name="Compare with").select_option("code")
    page.get_by_role("textbox", name="Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("region", name="Chat with chat")).to_contain_text("A heading")
    page.get_by_role("button", name="Stop").click()
    for name in ("chat", "code"):
        expect(page.get_by_role("region", name=f"Chat with {name}")).to_contain_text("stopped")


def test_an_image_goes_along(serve: Serve, opened: Open, tmp_path: Path) -> None:
    """The message contains the image as a data URL, as in OpenAI's API."""
    picture = tmp_path / "a.png"
    picture.write_bytes(PIXEL)
    daemon = serve({"chat": model("--talk", "0")})
    page = opened(daemon, "playground").page
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.get_by_role("button", name="Remove image 1")).to_be_visible()
    page.get_by_role("textbox", name="Message").fill("What is it?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("img", name="An image that you sent")).to_be_visible()
    expect(page.get_by_role("region", name="Chat with chat")).to_contain_text("5 tokens")
    body = daemon.ask("GET", "/api/captures/1")[1]["req_body"]
    assert b"data:image/png;base64," in base64.b64decode(body)


EVIL = """<img src="/unload"> ![x](/unload) <video src="/unload"></video>
<div class="said"><p class="bad">Sign in again</p></div> <dialog open>no</dialog>
<form action="/unload"><button class="danger">Press</button></form>
<script>document.title = "owned"</script> <a href="javascript:alert(1)">a</a>

[good](https://x.test/)
"""


def test_what_a_model_says_cannot_act(serve: Serve, opened: Open) -> None:
    """Markup in an answer cannot fetch, press or run anything, and cannot imitate the page."""
    events = [{"choices": [{"delta": {"content": EVIL}}]}]
    stream = "".join(f"data: {json.dumps(one)}\n\n" for one in events)
    found = opened(serve({"chat": model()}), "playground")
    page = found.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=stream, content_type="text/event-stream"),
    )
    page.get_by_role("textbox", name="Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    answer = page.locator(".markdown")
    expect(answer.get_by_role("link", name="good")).to_have_attribute("target", "_blank")
    assert not [url for url in asked if "unload" in url]
    for what in ("img", "video", "form", "button", "dialog", "script", "[class]", "[style]"):
        expect(answer.locator(what)).to_have_count(0)
    assert "javascript:" not in answer.inner_html()
    assert "owned" not in page.title()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = str(tmp_path_factory.mktemp("demo"))
    with started(command=(LLAMADOZE, "demo", "--folder", folder), wait=60) as process:
        yield process


def test_real_servers_are_swapped_from_the_page(demo: Process, opened: Open) -> None:
    """The demo's llama.cpp servers: a chat with one, then the other, then the first again."""
    page = opened(demo, "playground").page
    for name in ("doze-a", "doze-b", "doze-a"):
        page.get_by_role("combobox", name="Model").select_option(name)
        page.get_by_role("textbox", name="Message").fill("Hello")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)
        expect(page.get_by_role("region", name=f"Chat with {name}")).to_contain_text("tokens/s")
    page.goto(f"http://127.0.0.1:{demo.port}/ui/#sleep")
    article = page.get_by_role("article", name="Sleep of doze-a")
    expect(article).to_contain_text(re.compile("cycle of host memory|1 sleep"))
    page.goto(f"http://127.0.0.1:{demo.port}/ui/#requests")
    rows = page.get_by_role("region", name="Finished").get_by_role("row")
    expect(rows).to_have_count(4)
