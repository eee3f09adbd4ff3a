"""A daemon starts and ends without its views, and with views that are loaded late."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, write

# Run the command, and print at its end which modules are loaded.
COMMAND = (
    "import sys; from proxy.__main__ import main; status = main(); "
    "print('LOADED', *sys.modules); sys.exit(status)"
)
OF_VIEWS = {"quart", "quart_trio", "flask", "hypercorn", "jinja2", "proxy.views.composition"}


def loaded(daemon: Process) -> set[str]:
    """Return the modules that the daemon had loaded when it ended."""
    (line,) = (line for line in daemon.lines if line.startswith("LOADED "))
    return set(line.split()[1:])


def test_a_daemon_that_only_forwards_never_loads_its_views(tmp_path: Path) -> None:
    """Without views the daemon starts sooner and is smaller, and it still ends cleanly."""
    file = write(tmp_path, models={"a": stub()})
    with started("--config", file, command=(sys.executable, "-c", COMMAND)) as daemon:
        assert daemon.chat("a")[0] == 200
        for path in ("/health", "/wol-health", "/upstream/a/x"):
            assert daemon.ask("GET", path)[0] == 200
        assert daemon.end()[0] == 0
    assert not loaded(daemon) & OF_VIEWS


def test_the_first_who_asks_for_a_view_lets_them_be_loaded(tmp_path: Path) -> None:
    """The views then serve that request."""
    file = write(tmp_path, models={"a": stub()})
    with started("--config", file, command=(sys.executable, "-c", COMMAND)) as daemon:
        assert daemon.running() == {}
        assert daemon.end()[0] == 0
    assert loaded(daemon) >= {"quart", "proxy.views.composition"}


def test_a_daemon_that_is_told_to_end_while_its_views_are_loaded_ends_well(tmp_path: Path) -> None:
    """The signal may come at any moment of the loading, and a second one may follow."""
    file = write(tmp_path, models={"a": stub()})

    def ask(daemon: Process) -> None:
        with suppress(OSError, HTTPException):  # the daemon may cut the connection
            daemon.ask("GET", "/running", limit=10)

    for signals in (1, 2):
        for pause in (0.0, 0.05, 0.15, 0.3):
            with started("--config", file) as daemon, ThreadPoolExecutor() as pool:
                asking = pool.submit(ask, daemon)
                with suppress(TimeoutError):
                    asking.result(pause)
                for _ in range(signals):
                    daemon.process.send_signal(signal.SIGTERM)
                status = daemon.process.wait(10)
                asking.result()
            assert status == 0, daemon.lines
            assert not any("Traceback" in line for line in daemon.lines)
