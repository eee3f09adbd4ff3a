"""A command's orders to a daemon about a model, and the reports while they run.

Owns these reports: a start may take minutes, and the user should see what happens. It knows which
route does what.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxy.terminal.asking import Daemon, in_path
from proxy.terminal.tables import STOPPED, WORDS, Row, console, ready_in
from proxy.terminal.words import span

BETWEEN_LOOKS = 0.3  # seconds
UP = ("load", "wake")
FAILED = "failed"
HOLDER = "llamadoze pin"


def step(daemon: Daemon, name: str, model: str) -> Row:
    """Load or wake a model, or put it to sleep, and return its state after that.

    Args:
        daemon: the daemon.
        name: the step: load, wake or sleep.
        model: the model's id or another name of it.

    Raises:
        Refused: the step failed, or there is no such model.
    """
    if name in UP:
        say_of_pause(daemon)
    with narrated(daemon, model):
        path = f"/api/models/{name}/{in_path(model)}"
        return daemon.told(path, "state", method="POST", limit=None)


def unload(daemon: Daemon, model: str) -> Row:
    """Stop a model, and return its state after that."""
    with narrated(daemon, model):
        daemon.ask(f"/api/models/unload/{in_path(model)}", "POST", limit=None)
    found = (one for one in _failed(daemon) if model in (one["id"], *one["aliases"]))
    return _ended(model, next(found, None))


def unload_all(daemon: Daemon) -> list[Row]:
    """Stop all models, and return the states of those that are not stopped after that."""
    daemon.ask("/api/models/unload", "POST", limit=None)
    return [_ended(one["id"], one) for one in _failed(daemon)]


def _failed(daemon: Daemon) -> list[Row]:
    """Return the models that have failed: an end that fails, or an earlier start, stays so."""
    return [one for one in daemon.status()["models"] if one["state"] == FAILED]


def _ended(model: str, failed: Row | None) -> Row:
    if failed is None:
        return {"model": model, "state": STOPPED}
    return {"model": model, "state": FAILED, "failure": failed["failure"]}


def pin(daemon: Daemon, model: str, seconds: float, holder: str, reason: str) -> Row:
    """Load a model and keep it awake for some time. Return the lease."""
    wanted = {"model": model, "seconds": seconds, "holder": holder, "reason": reason}
    say_of_pause(daemon)
    with narrated(daemon, model):
        return daemon.told("/api/leases", "id", method="POST", body=wanted, limit=None)


def unpin(daemon: Daemon, model: str) -> list[Row]:
    """End all leases of a model, and return them.

    Raises:
        Refused: there is no such model.
    """
    name = id_of(daemon, model)
    leases = daemon.told("/api/leases", "leases")["leases"]
    found = [one for one in leases if one["model"] == name]
    for lease in found:
        daemon.ask(f"/api/leases/{lease['id']}", "DELETE")
    return found


def pause(daemon: Daemon, *, refuse: bool) -> Row:
    """Pause all models. Requests wait, or are refused."""
    told: Row = daemon.ask(
        f"/api/pause?requests={'refuse' if refuse else 'hold'}", "POST", limit=None
    )
    return told


def resume(daemon: Daemon) -> Row:
    """End the pause, and load the models that were awake before it."""
    told: Row = daemon.ask("/api/resume", "POST", limit=None)
    return told


def say_of_pause(daemon: Daemon) -> None:
    """If there is a pause, say so on standard error: requests wait for its end or are refused."""
    if daemon.status()["paused"]:
        console(errors=True).print("llamadoze is paused; 'llamadoze resume' ends the pause")


@contextmanager
def narrated(daemon: Daemon, model: str) -> Iterator[Callable[[], None]]:
    """Report a model's state while the block runs, if standard error is a terminal.

    Yields a function that ends the report before the block does.
    """
    screen = console(errors=True)
    if not screen.is_terminal:
        yield lambda: None
        return
    over = threading.Event()
    with screen.status(model) as status:

        def look() -> None:
            # If the daemon cannot be reached, the block itself fails and reports that.
            name = model
            with contextlib.suppress(Exception):
                name = id_of(daemon, model)
            while not over.wait(BETWEEN_LOOKS):
                with contextlib.suppress(Exception):
                    status.update(said(model, name, daemon.status()))

        def end() -> None:
            over.set()
            status.stop()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield end
        finally:
            over.set()


def id_of(daemon: Daemon, model: str) -> str:
    """Return the id of a model, given any of its names.

    Raises:
        Refused: no model of the configuration has this name.
    """
    return str(daemon.told(f"/api/config/models/{in_path(model)}", "model")["model"])


def said(model: str, name: str, told: Row) -> str:
    """Return a model's state in one line.

    Args:
        model: the model's name in the command.
        name: its id.
        told: the daemon's status.
    """
    row = next((row for row in told["models"] if row["id"] == name), None)
    if row is None or row["state"] == STOPPED:
        return f"{model}: waits for {'llamadoze resume' if told['paused'] else 'room'}"
    state = WORDS.get(row["state"], row["state"])
    when = f", ready in {ready_in(row)}" if row["readyIn"] else ""
    retry = f", next start possible in {span(row['retryIn'])}" if row["retryIn"] else ""
    return f"{model}: {state}{when}{retry}"
