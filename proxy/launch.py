"""From the command's options to a running daemon: its log, its state folder, its files.

Owns the order of what must be there before the first task, and where the state is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import trio

from configschema import Config, Loaded
from proxy.daemon import DEFAULT_GRACE, run_daemon
from proxy.operatorlog import configure
from proxy.reloading import Files
from proxy.startup import CannotRun
from supervisor.records import open_records, ports_of


def launch(
    options: argparse.Namespace,
    address: tuple[str, int],
    files: Files,
    warn: Callable[[Loaded], None],
    grace: float = DEFAULT_GRACE,
) -> None:
    """Run the daemon in the foreground, until it is told to end.

    Args:
        options: of the command line.
        address: host and port to listen on.
        files: the configuration's.
        warn: tells what is to be said of it at the start.
        grace: seconds that open answers have to end.

    Raises:
        ConfigError, CannotRun: the configuration cannot be used, or the address is taken.
    """

    def apply(config: Config) -> None:
        configure(options.log_format, config.log_level)

    configure(options.log_format, "info")  # of the file's own level nothing is known yet
    folder = Path(options.state_dir) if options.state_dir else state_folder(files.find())
    with open_records(folder) as records:
        loaded = files.read(files.find(), ports_of(records.found) if records else {})
        warn(loaded)
        apply(loaded.config)
        run = partial(
            run_daemon,
            loaded.config,
            *address,
            grace,
            Files(files.find, files.read, apply),
            records,
            watch=options.watch_config,
        )
        try:
            trio.run(run)
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"cannot listen on {options.listen}: {reason}"
            raise CannotRun(f"{where}; choose another with --listen") from error


def state_folder(files: Iterable[Path]) -> Path:
    """Return where the state of the daemon with these files is kept.

    That is systemd's ``STATE_DIRECTORY``, else a folder of these files' own where the XDG Base
    Directory Specification has state.
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    names = "\n".join(str(path.resolve()) for path in files)
    return Path(home) / "llamadoze" / hashlib.sha256(names.encode()).hexdigest()[:12]
