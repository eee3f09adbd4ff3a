"""``llamadoze ps`` and ``status``: the state of the models and the daemon, as tables.

Owns the columns. The daemon's answer of ``/api/status`` has the same facts as JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.terminal.words import NOTHING, clock, since, size, span

Row = dict[str, Any]
STOPPED = "stopped"
COLORS = {
    "ready": "green",
    "asleep": "blue",
    "failed": "bold red",
    "queued": "yellow",
    "starting": "yellow",
    "waking": "yellow",
    "sleepPending": "yellow",
    "stopping": "yellow",
}
WORDS = {"sleepPending": "falling asleep"}
IN_A_PIPE = 1000  # columns: without a terminal, nothing is cut


def console(*, errors: bool = False) -> Console:
    """Return the console: as wide as its terminal, or wide enough without a terminal."""
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() else IN_A_PIPE
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def put(*parts: RenderableType) -> None:
    """Print tables, without the spaces with which rich fills their last column."""
    screen = console()
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    lines = captured.get().splitlines()
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))
    sys.stdout.flush()


def models(rows: Sequence[Row], told: Row, *, everything: bool) -> RenderableType:
    """Return the table of the models, and the number of models that are left out."""
    shown = [row for row in rows if everything or is_of_interest(row)]
    parts: list[RenderableType] = [_table(shown, told)] if shown else []
    parts += [
        Text(f"{row['id']}: {row['failure']}; see 'llamadoze logs {row['id']}'", style="red")
        for row in shown
        if row["state"] == "failed" and row.get("failure")
    ]
    parts += [Text(f"{row['id']}: {row['queue']}") for row in shown if row.get("queue")]
    if left := len(rows) - len(shown):
        rest = f"{left} stopped {'model' if left == 1 else 'models'}: 'llamadoze ps --all'"
        parts.append(Text(f"{'' if shown else 'No model runs. '}{rest}", style="dim"))
    return Group(*parts)


def is_of_interest(row: Row) -> bool:
    """Whether a model has a process, has failed, or has waiting requests."""
    return row["state"] != STOPPED or bool(row["waiting"])


def _table(rows: Iterable[Row], told: Row) -> Table:
    memory = {one["model"]: one for one in (told.get("memory") or {}).get("models", [])}
    table = plain("MODEL", "STATE", "SINCE", ">IN FLIGHT", ">WAITING", ">MEMORY", "READY IN")
    for row in rows:
        table.add_row(
            Text(row["id"]),
            state(row),
            since(row["since"], told["now"]) if row["state"] != STOPPED else NOTHING,
            str(row["in_flight"]),
            str(row["waiting"]),
            _held(memory.get(row["id"])),
            ready_in(row),
        )
    return table


def plain(*heads: str) -> Table:
    """Return an empty table without lines. A head with ``>`` aligns its column to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        justify: Any = "right" if head.startswith(">") else "left"
        table.add_column(head.lstrip(">"), justify=justify, overflow="ellipsis", no_wrap=True)
    return table


def state(row: Row) -> Text:
    """Return a model's state, with notes that an operator needs."""
    name = row["state"]
    text = Text(str(WORDS.get(name, name)), style=COLORS.get(name, ""))
    notes = []
    if node := (row.get("cluster") or {}).get("node"):
        notes.append(f"on {node}")
    if row.get("pin"):
        notes.append("pinned")
    if row.get("sleep") and not row["sleep"]["trusted"]:
        notes.append("sleep is switched off")
    if row.get("leftover"):
        notes.append("some of its processes have not ended")
    if row.get("retryIn") and name == "failed":
        notes.append(f"next start possible in {span(row['retryIn'])}")
    return text.append(f" ({', '.join(notes)})" if notes else "", style="dim")


def _held(row: Row | None) -> str:
    """Return a model's memory: GPU and host memory, or host memory if it uses no GPU."""
    if row is None:
        return NOTHING
    if gpu := row.get("gpu"):
        return f"{size(gpu)} GPU, {size(row['host'])}"
    return size(row["host"])


def ready_in(row: Row) -> str:
    """Return when a model will be ready that starts, wakes, or has waiting requests."""
    if row["state"] == "ready":
        return "now"
    if row["readyIn"] is None:
        return NOTHING
    about = "" if row["readyInMeasured"] else "about "
    return f"{about}{span(row['readyIn'])}"


def daemon(told: Row, url: str) -> Iterator[RenderableType]:
    """Yield the facts about the daemon as a whole."""
    counts: dict[str, int] = {}
    for row in told["models"]:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    facts = plain("", "")
    facts.show_header = False
    facts.add_row("llamadoze", f"{told['version']} at {url}, process {told['pid']}")
    facts.add_row("up", since(told["began"], told["now"]))
    facts.add_row("state", _standing(told))
    names = [f"{count} {WORDS.get(name, name)}" for name, count in sorted(counts.items())]
    facts.add_row("models", ", ".join(names) or "none")
    facts.add_row("requests", f"{told['inFlight']} in flight, {told['waiting']} waiting")
    facts.add_row("rule", told["rule"])
    if told.get("profile"):
        facts.add_row("profile", told["profile"])
    for one in (told.get("memory") or {}).get("devices", []):
        facts.add_row(*_device(one))
    yield facts


def _standing(told: Row) -> str:
    if told["ending"]:
        return "ending"
    return "paused: requests wait until 'llamadoze resume'" if told["paused"] else "serving"


def _device(one: Row) -> tuple[str, str]:
    parts = {name: one.get(name, 0) for name in ("awake", "asleep", "others", "free")}
    said = ", ".join(f"{size(count)} {name}" for name, count in parts.items())
    return one["title"], f"{said} of {size(one['total'])}"


def queue(rows: Sequence[Row], now: float, most: int) -> Table:
    """Return the table of waiting requests."""
    table = plain("WAITS FOR", "SINCE", "READY IN", "BEHIND", "CLIENT")
    for row in rows[:most]:
        behind = ", ".join(one["model"] for one in row["behind"]) or NOTHING
        who = row["key"] or row["client"] or row["why"]
        table.add_row(row["model"], since(row["since"], now), ready_in(row), behind, who)
    return table


def decisions(rows: Sequence[Row], most: int) -> Table:
    """Return the table of the last decisions, newest first."""
    table = plain("AT", "MODEL", "MADE ROOM", ">WAITED", "READY AFTER", "ASKED BY")
    for row in sorted(rows, key=lambda one: -one["at"])[:most]:
        gone = ", ".join(map(_left, row["victims"]))
        ready = row.get("ready")
        took = span(ready - row["at"]) if ready else NOTHING
        who = row["key"] or row["client"] or row["why"]
        table.add_row(
            clock(row["at"]), row["model"], gone or NOTHING, span(row["waited"]), took, who
        )
    return table


def _left(victim: Row) -> str:
    """Return a model that made room, and how it did."""
    if "took" not in victim:
        return f"{victim['model']} (making room)"
    return f"{victim['model']} ({'slept' if victim.get('proved') else 'stopped'})"
