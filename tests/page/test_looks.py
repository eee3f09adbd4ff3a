"""How all pages look: in both colours, wide and narrow, what axe finds, and how large they are.

The pictures lie in `.page-pictures`, for people to look at.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from proxy.views.pagefiles import FILES
from tests.page.conftest import PICTURES, Open, Serve, model
from tests.page.requests import streams
from tests.page.test_frame import PAGES
from tests.system.daemon import Process

pytestmark = pytest.mark.page
GRAVE = ("serious", "critical")
LONGER = float(os.environ.get("PAGE_BUSY_SECONDS", "0"))
WIDE, NARROW = 1280, 390
MOST_OF_OURS, MOST_OF_OTHERS = 150_000, 30_000  # bytes until the first page is painted


@pytest.fixture
def busy(serve: Serve) -> Iterator[Process]:
    """A daemon at work: swaps, a failure, one running request and two waiting requests."""
    slow = ("--ready-after", "0.4", "--talk", "0", "--faults", '{"/sleep": {"delay": 0.2}}')
    models = {
        name: model(*slow, "--gpu", str(size), "--gpu-rest", str(size // 12))
        for name, size in {"chat": 9000, "code": 7200, "vision": 5000, "embed": 1400}.items()
    }
    models["broken"] = model("--exit", "3", sleeps=False)
    daemon = serve(models, gpus="24", maxWait=2)
    for name in ("chat", "code", "vision", "chat", "code", "broken", "embed", "chat"):
        daemon.chat(name, stream=True)
    until = time.monotonic() + LONGER
    while time.monotonic() < until:  # for pictures that show more
        for name in ("chat", "code", "embed", "chat", "vision", "code"):
            daemon.chat(name, stream=True, delay=random.uniform(0.2, 2.5))
    with streams(daemon, "chat", "code", "vision"):
        yield daemon


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits(busy: Process, opened: Open, scheme: str) -> None:
    """Axe finds nothing serious, no page scrolls sideways, and a picture is taken of each page."""
    found = opened(busy, "", color_scheme=scheme)
    faults: list[str] = []
    for name in [*PAGES, "models/chat", "wall"]:
        for width in (WIDE, NARROW):
            found.page.set_viewport_size({"width": width, "height": 900})
            page = found.at(name)
            page.wait_for_load_state("networkidle") if name == "machine" else None
            page.wait_for_timeout(600)
            open_a_reason(page, name)
            picture(page, f"{name.replace('/', '-')}-{width}-{scheme}")
            faults += [f"{name} {width} {scheme}: {text}" for text in graves(page)]
            wide = page.evaluate("document.documentElement.scrollWidth")
            faults += [f"{name}: {wide} of {width} pixels: {widest(page)}"] if wide > width else []
    assert faults == []


def open_a_reason(page: Page, name: str) -> None:
    """Open a reason, so that the picture of the timeline shows why something happened."""
    if name == "timeline":
        page.get_by_role("button", name="1 min", exact=True).click()
        page.locator("tbody button").filter(has_text="it made room").first.click()


def widest(page: Page) -> str:
    """Return the element that sticks out furthest."""
    return str(
        page.evaluate(
            """() => [...document.querySelectorAll("main *")]
            .filter((one) => !one.closest(".scroll *"))
            .map((one) => [one.getBoundingClientRect().right, one.outerHTML.slice(0, 160)])
            .sort((a, b) => b[0] - a[0])[0].join(" ")"""
        )
    )


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def graves(page: Page) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:120]}, {len(one['nodes'])} times)"
        for one in found
        if one["impact"] in GRAVE
    ]


def test_little_is_loaded_before_the_first_page(serve: Serve, opened: Open) -> None:
    """At most 30 kB of libraries and 150 kB of our code; the rest loads when it is opened."""
    found = opened(serve({"chat": model()}), "")
    sizes: dict[str, int] = {}
    found.page.on(
        "response",
        lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}),
    )
    found.at("now")
    files = {url: size for url, size in sizes.items() if "/ui/" in url}
    others = sum(size for url, size in files.items() if "/vendor/" in url)
    ours = sum(files.values()) - others
    print(f"until the first page: {others} bytes of others, {ours} of ours, {len(files)} files")
    assert 0 < others <= MOST_OF_OTHERS
    assert 0 < ours <= MOST_OF_OURS


def test_libraries_are_those_that_are_listed() -> None:
    """The list has versions, hashes and licences; no other file lies beside the libraries."""
    folder = FILES / "vendor"
    listed = json.loads((folder / "vendor.json").read_text())
    hashes = {name: value for entry in listed for name, value in entry["sha256"].items()}
    there = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name not in ("vendor.json", "LICENSES")
    }
    assert there == hashes
    licences = (folder / "LICENSES").read_text()
    assert all(f"{entry['package']} {entry['version']}" in licences for entry in listed)


def test_the_page_asks_nobody_but_the_daemon() -> None:
    """The page has no address of another host, no inline script, and evaluates no text as code."""
    files = [file for file in FILES.rglob("*") if file.suffix in (".js", ".html", ".css")]
    for file in files:
        text = file.read_text()
        if file.parent.name != "vendor":
            assert not re.search(r"https?://(?!www\.w3\.org)", text), file
            assert not re.search(r"\beval\(|new Function\(", text), file
    assert "<script>" not in (FILES / "index.html").read_text()


def test_every_module_says_what_it_owns() -> None:
    """The first lines of a module state its purpose, and no module is longer than 320 lines."""
    for file in FILES.rglob("*.js"):
        if file.parent.name != "vendor":
            lines = file.read_text().splitlines()
            assert lines[0] == "// @ts-check", file
            assert lines[1].startswith("// "), file
            assert len(lines) <= 320, file
