"""What the page costs: the daemon with three open pages, and a browser with a day of bands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.pace import slowness
from tests.page.conftest import Open, Serve, model
from tests.system.daemon import Process

pytestmark = pytest.mark.page
MODELS, PER_SECOND, SECONDS = 50, 20, 8
MOST = 2.0  # per cent of a core that three pages may cost
BANDS = 12_000
FRAME = 1000 / 60  # milliseconds


@contextmanager
def asked(daemon: Process, names: list[str]) -> Iterator[None]:
    """Send requests to these models in turn, `PER_SECOND` times a second."""
    over = threading.Event()

    def ask() -> None:
        number = 0
        while not over.wait(1 / PER_SECOND):
            daemon.chat(names[number % len(names)])
            number += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def share(daemon: Process) -> float:
    """Return the per cent of a core that the daemon uses, measured for some seconds."""
    process = psutil.Process(daemon.process.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(SECONDS)
    return 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


def test_three_pages_cost_the_daemon_little(serve: Serve, opened: Open) -> None:
    """Three open pages add less than `MOST` per cent with fifty models and twenty requests a
    second."""
    names = [f"m{number:02}" for number in range(MODELS)]
    beside = {"g": {"swap": False, "members": names}}
    daemon = serve({name: model() for name in names}, groups=beside)
    used = names[:5]
    for name in used:
        daemon.chat(name)
    with asked(daemon, used):
        time.sleep(1)
        alone = share(daemon)
        for where in ("now", "timeline", "requests"):
            opened(daemon, where)
        time.sleep(2)
        watched = share(daemon)
    print(f"{alone:.1f} % of a core alone, {watched - alone:.1f} % more with three pages")
    assert watched - alone < MOST * slowness()


def test_a_day_of_bands_is_drawn_within_a_frame(serve: Serve, opened: Open) -> None:
    """Of 12,000 bands one changes each second, and the present moves on."""
    page = opened(serve({"m0": model()}), "timeline").page
    page.get_by_role("button", name="24 h", exact=True).click()
    page.wait_for_timeout(500)
    found = page.evaluate(
        """async (count) => {
        const past = await import("./timeline/past.js");
        const now = Date.now() / 1000, rows = 12, each = count / rows;
        const states = ["starting", "ready", "sleepPending", "asleep", "waking"];
        const wide = 86000 / each;
        const spans = [];
        for (let row = 0; row < rows; row += 1)
          for (let at = 0; at < each; at += 1)
            spans.push({ id: 1e6 + spans.length, model: `m${row}`, state: states[at % 5],
              begin: now - 86000 + at * wide, end: now - 86000 + (at + 1) * wide,
              cause: { why: "request" } });
        const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        const timed = async (told) => {
          const began = performance.now();
          past.heard(told);
          await Promise.resolve();
          await frame();
          return performance.now() - began;
        };
        const first = await timed({ spans });
        const times = [];
        for (let round = 0; round < 30; round += 1)
          times.push(await timed({ spans: [{ ...spans[spans.length - 1], end: now + round }] }));
        times.sort((a, b) => a - b);
        return { first, median: times[15], drawn: document.querySelectorAll(".band").length };
        }""",
        BANDS,
    )
    print(
        f"{found['drawn']} bands: first {found['first']:.0f} ms, then {found['median']:.1f} ms each"
    )
    assert found["median"] < 2 * FRAME * slowness()
