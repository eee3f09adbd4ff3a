"""What a command tells a daemon to do with a model, and what is said while that goes on.

Owns the words in between: a start takes minutes, and nobody should wonder. Which route does what is
known here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxy.terminal.asking import Daemon, Refused, in_path
from proxy.terminal.tables import STOPPED, WORDS, Row, console, ready_in
from proxy.terminal.words import span

BETWEEN_LOOKS = 0.3  # seconds
UP = ("load", "wake")
HOLDER = "llamadoze pin"


def step(daemon: Daemon, name: str, model: str) -> Row:
    """Load, wake, put to sleep or unload a model; return how it stands after that.

    Args:
        daemon: to ask.
        name: of the step: load, wake, sleep or unload.
        model: its id, or another name of it.

    Raises:
        Refused: the step failed, or there is no such model.
    """
    if name in UP:
        say_of_pause(daemon)
    with narrated(daemon, model):
        found = daemon.ask(f"/api/models/{name}/{in_path(model)}", "POST", limit=None)
    return found if isinstance(found, dict) else {"model": model, "state": "stopped"}


def unload_all(daemon: Daemon) -> None:
    """Stop all models."""
    daemon.ask("/api/models/unload", "POST", limit=None)


def pin(daemon: Daemon, model: str, seconds: float, holder: str, reason: str) -> Row:
    """Load a model, and keep it awake for some time; return the lease."""
    wanted = {"model": model, "seconds": seconds, "holder": holder, "reason": reason}
    say_of_pause(daemon)
    with narrated(daemon, model):
        return daemon.told("/api/leases", "id", method="POST", body=wanted, limit=None)


def unpin(daemon: Daemon, model: str) -> list[Row]:
    """End all leases of a model; return them."""
    name = id_of(daemon, model)
    leases = daemon.told("/api/leases", "leases")["leases"]
    found = [one for one in leases if one["model"] == name]
    for lease in found:
        daemon.ask(f"/api/leases/{lease['id']}", "DELETE")
    return found


def pause(daemon: Daemon, *, refuse: bool) -> Row:
    """Put all models to rest; requests wait, or are refused."""
    told: Row = daemon.ask(
        f"/api/pause?requests={'refuse' if refuse else 'hold'}", "POST", limit=None
    )
    return told


def resume(daemon: Daemon) -> Row:
    """Bring up again what was awake before the pause."""
    told: Row = daemon.ask("/api/resume", "POST", limit=None)
    return told


def say_of_pause(daemon: Daemon) -> None:
    """Say, on standard error, that there is a pause: requests wait for its end, or are refused."""
    if daemon.status()["paused"]:
        console(errors=True).print("llamadoze is paused; 'llamadoze resume' ends that")


@contextmanager
def narrated(daemon: Daemon, model: str) -> Iterator[Callable[[], None]]:
    """Say how a model stands while the block goes on, if somebody looks: on standard error.

    Yields what ends the words before the block does.
    """
    screen = console(errors=True)
    if not screen.is_terminal:
        yield lambda: None
        return
    over = threading.Event()
    with screen.status(model) as status:

        def look() -> None:
            name = id_of(daemon, model)
            while not over.wait(BETWEEN_LOOKS):
                # A daemon that cannot be asked is told of by what the block asks it.
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
    """Return the id of a model that may be called by another name; the name itself if no model of
    the configuration has it.
    """
    with contextlib.suppress(Refused):
        return str(daemon.told(f"/api/config/models/{in_path(model)}", "model")["model"])
    return model


def said(model: str, name: str, told: Row) -> str:
    """Return how a model stands, in a line.

    Args:
        model: what it is called here.
        name: its id.
        told: the daemon's status.
    """
    row = next((row for row in told["models"] if row["id"] == name), None)
    if row is None or row["state"] == STOPPED:
        return f"{model}: waits for {'llamadoze resume' if told['paused'] else 'room'}"
    state = WORDS.get(row["state"], row["state"])
    when = f", ready in {ready_in(row)}" if row["readyIn"] else ""
    retry = f", can be tried again in {span(row['retryIn'])}" if row["retryIn"] else ""
    return f"{model}: {state}{when}{retry}"
