"""Commands that look at a daemon: its state, its log, and a file for a bug report.

Owns their options and their output. `proxy.terminal` has requests, tables and live frames.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.command.daemons import asking, names_of_models
from proxy.command.options import as_json, examples
from proxy.command.printing import say, say_json
from proxy.lifecycle.startup import CannotRun

if TYPE_CHECKING:
    from proxy.terminal.asking import Daemon


@click.command(epilog=examples("llamadoze ps", "llamadoze ps --all", "llamadoze ps chat --json"))
@click.argument("names", metavar="[MODEL]...", nargs=-1, shell_complete=names_of_models)
@click.option("--all", "-a", "everything", is_flag=True, help="Include stopped models.")
@as_json
@asking
def ps(daemon: Daemon, names: tuple[str, ...], *, everything: bool, as_json: bool) -> None:
    """Show the models: states, requests and memory.

    The list also shows since when a state lasts, and when the model will be ready.
    """
    from proxy.terminal import tables

    told = daemon.status()
    known = {name for row in told["models"] for name in (row["id"], *row["aliases"])}
    for name in sorted({*names} - known):
        raise CannotRun(f"no model is called '{name}'; {_meant_by(name, known)}")
    rows = [row for row in told["models"] if not names or {row["id"], *row["aliases"]} & {*names}]
    if as_json:
        say_json([row for row in rows if everything or names or tables.is_of_interest(row)])
    else:
        tables.put(tables.models(rows, told, everything=everything or bool(names)))


def _meant_by(name: str, known: Iterable[str]) -> str:
    from configschema.text.likeness import nearest  # only for errors

    near = nearest(name, sorted(known))
    return f"did you mean '{near}'?" if near else "'llamadoze ps --all' lists all models"


@click.command()
@as_json
@asking
def status(daemon: Daemon, *, as_json: bool) -> None:
    """Show the daemon: address, uptime, requests, memory."""
    from proxy.terminal import tables

    told = daemon.status()
    if as_json:
        say_json({**told, "url": daemon.url})
    else:
        tables.put(*tables.daemon(told, daemon.url))


@click.command(epilog=examples("llamadoze top", "llamadoze top --once"))
@click.option("--once", is_flag=True, help="Print one frame and exit.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two frames.",
)
@as_json
@asking
def top(daemon: Daemon, *, once: bool, interval: float, as_json: bool) -> None:
    """Watch models, memory, queue and decisions. 'q' quits."""
    from proxy.terminal import top as frames

    if as_json:
        say_json(daemon.status())
    elif once or not sys.stdout.isatty():
        frames.once(daemon)
    else:
        frames.live(daemon, interval)


@click.command(
    epilog=examples("llamadoze logs -f", "llamadoze logs chat -n 50", "llamadoze logs -f proxy")
)
@click.argument("source", metavar="[MODEL]", required=False, shell_complete=names_of_models)
@click.option("--follow", "-f", is_flag=True, help="Print new lines until Ctrl-C.")
@click.option(
    "--lines", "-n", type=click.IntRange(0), metavar="N", help="Print only the last N lines."
)
@as_json
@asking
def logs(
    daemon: Daemon, source: str | None, *, follow: bool, lines: int | None, as_json: bool
) -> None:
    """Show the log of the daemon, or the output of a model.

    In place of a model, 'proxy' means the daemon alone, and 'upstream' all models.
    """
    from proxy.terminal import following

    write = following.write_json if as_json else following.write
    (following.follow if follow else following.show)(daemon, source, lines, write)


@click.command(epilog=examples("llamadoze support", "llamadoze support --output -"))
@click.option("--output", "-o", metavar="FILE", help="The file to write; '-' is standard output.")
@as_json
@asking
def support(daemon: Daemon, output: str | None, *, as_json: bool) -> None:
    """Write a file for a bug report, without secrets. Nothing leaves this machine."""
    from proxy.command import sources
    from proxy.terminal.support import report

    if as_json and output == "-":
        raise click.UsageError("--json describes the written file: name it with --output FILE")

    found = sources.found_file()
    text = report(daemon, [found] if found else [])
    if output == "-":
        say(text)
        return
    path = Path(output or time.strftime("llamadoze-support-%Y%m%d-%H%M%S.txt"))
    try:
        path.write_text(text)
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}") from error
    said = f"wrote {path}: read it before you pass it on"
    say_json({"file": str(path)}) if as_json else say(said)
