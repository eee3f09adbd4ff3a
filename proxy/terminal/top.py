"""``llamadoze top``: the memory, the waiting requests, and the last decisions, as a live frame.

Owns the frame and when it is redrawn. `tables` has the tables.
"""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from proxy.terminal.asking import Daemon, NotThere
from proxy.terminal.tables import Row, console, decisions, is_of_interest, models, put, queue
from proxy.terminal.words import since, size

BAR = 32  # columns
PARTS = (("awake", "green", "#"), ("asleep", "blue", "="), ("others", "yellow", "?"))
FREE = "."
KEYS = "q: quit"
MOST_ROWS, FEWEST = 30, 3


def once(daemon: Daemon) -> None:
    """Print one frame."""
    put(frame(daemon.status(), daemon.url, MOST_ROWS))


def live(daemon: Daemon, interval: float) -> None:
    """Redraw the frame until ``q`` or Ctrl-C.

    Args:
        daemon: the daemon.
        interval: seconds between two frames.
    """
    screen = console()
    told: Row = daemon.status()
    with (
        keys() as pressed,
        Live(console=screen, screen=screen.is_terminal, auto_refresh=False) as drawn,
    ):
        trouble = ""
        while True:
            rows = max(FEWEST, screen.height - 12)
            shown = Group(frame(told, daemon.url, rows, trouble), Text(f"\n{KEYS}", style="dim"))
            drawn.update(shown, refresh=True)
            if pressed(interval) in ("q", "Q", "\x03"):
                return
            try:
                told, trouble = daemon.status(), ""
            except NotThere as error:  # the daemon may be restarting
                trouble = str(error)


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key. It returns the key, or an empty text."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed(wait: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], wait)
        return sys.stdin.read(1) if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _no_key(wait: float) -> str:
    time.sleep(wait)
    return ""


def frame(told: Row, url: str, rows: int, trouble: str = "") -> RenderableType:
    """Return the whole frame.

    Args:
        told: the daemon's status.
        url: the daemon's address.
        rows: the number of lines for all tables together.
        trouble: why the shown status is old; empty if it is not.
    """
    parts: list[RenderableType] = [_head(told, url)]
    if trouble:
        parts.append(Text(trouble, style="bold red"))
    parts += [_bar(one) for one in (told.get("memory") or {}).get("devices", [])]
    busy = [one for one in told["models"] if is_of_interest(one)]
    parts += [Text(), models(busy[:rows], told, everything=True)] if busy else [_none(told)]
    if hidden := len(busy) - rows:
        parts += [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
    rest = max(FEWEST, (rows - len(busy)) // 2)
    parts += _titled("Waiting", told["queue"], lambda: queue(told["queue"], told["now"], rest))
    parts += _titled(
        "Last decisions", told["decisions"], lambda: decisions(told["decisions"], rest)
    )
    return Group(*parts)


def _head(told: Row, url: str) -> Text:
    text = Text(f"llamadoze {told['version']}", style="bold")
    text.append(f"  {url}  up {since(told['began'], told['now'])}", style="")
    text.append(f"  {told['inFlight']} in flight, {told['waiting']} waiting")
    if told["paused"]:
        text.append("  paused: 'llamadoze resume' ends it", style="bold yellow")
    return text


def _none(told: Row) -> Text:
    count = len(told["models"])
    return Text(f"\nNo model runs; {count} {'is' if count == 1 else 'are'} stopped", style="dim")


def _titled(
    title: str, rows: Sequence[Row], table: Callable[[], RenderableType]
) -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold underline"), table()] if rows else []


def _bar(device: Row) -> Text:
    """Return a device's memory as a bar of letters and colours."""
    total = device["total"] or 1
    text = Text(f"{device['title'][:24]:<24} ")
    left = BAR
    for name, color, letter in PARTS:
        width = min(left, round(device.get(name, 0) / total * BAR))
        text.append(letter * width, style=color)
        left -= width
    text.append(FREE * left, style="dim")
    said = ", ".join(f"{letter} {size(device.get(name, 0))} {name}" for name, _, letter in PARTS)
    return text.append(f" {said}, {size(device.get('free', 0))} free")
