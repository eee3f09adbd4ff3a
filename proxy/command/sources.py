"""The configuration's files: those that are named, else the first of the usual places.

Owns the order of those places. `configschema` reads the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.command.options import CONFIG
from proxy.lifecycle.startup import CannotRun

if TYPE_CHECKING:  # loading it takes longer than asking a daemon
    from configschema import Loaded

NAME = "config.yaml"
OF_SYSTEM = Path("/etc/llamadoze") / NAME


def named(config: str | None, folder: str | None) -> tuple[str, ...]:
    """Return the files and folders of a configuration: those given, else the first found.

    Raises:
        CannotRun: none is given, and none exists at the usual places.
    """
    given = tuple(name for name in (config, folder) if name)
    found = given or ((str(one),) if (one := found_file()) else ())
    if not found:
        raise CannotRun(
            f"no configuration: give one with --config FILE; there is none at {_places()}. "
            "'llamadoze init' writes a first one; 'llamadoze demo' needs none"
        )
    return found


def found_file() -> Path | None:
    """Return the configuration that is used if none is given; None if there is none."""
    if given := os.environ.get(CONFIG):
        return Path(given)
    return next((path for path in usual_places() if path.is_file()), None)


def usual_places() -> list[Path]:
    """Return the usual places of a configuration, in the order of the search."""
    return [Path(NAME), home_file(), OF_SYSTEM]


def home_file() -> Path:
    """Return the place of this user's own configuration (XDG Base Directory)."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 -- raises no error without a home
    return Path(home) / "llamadoze" / NAME


def _places() -> str:
    first, *others = (
        f"./{path}" if not path.is_absolute() else str(path) for path in usual_places()
    )
    return f"{', '.join([first, *others[:-1]])} or {others[-1]}"


def sources(files: Sequence[str], folder: str | None) -> list[Path]:
    """Return the files of a configuration: first the named ones, then those of the folder.

    Raises:
        CannotRun: the folder cannot be read or has no file, or a file is named twice.
    """
    from configschema import files_in

    given = [Path(file) for file in files]
    if folder is None:
        return given
    try:
        found = files_in(folder)
    except OSError as error:
        raise CannotRun(f"cannot read {folder}: {error.strerror}") from error
    for twice in (path for path in given if path.resolve() in [one.resolve() for one in found]):
        raise CannotRun(f"{twice} is in {folder}, too; give it once")
    if not given and not found:
        raise CannotRun(f"{folder} has no file that ends in .yaml or .yml")
    return [*given, *found]


def read(files: Sequence[Path], ports: Mapping[str, int] | None = None, port: int = 8080) -> Loaded:
    """Read a configuration.

    Args:
        files: the configuration's files.
        ports: the ports that models keep.
        port: the port that the daemon listens on, which no model may use.

    Raises:
        ConfigError: the configuration cannot be used; the error lists every problem.
        CannotRun: a file cannot be read.
    """
    from configschema import Here, load

    try:
        return load(*files, ports=ports or {}, place=Here(port))
    except IsADirectoryError as error:
        raise CannotRun(f"{error.filename} is a folder: use --config-dir for folders") from error
    except OSError as error:
        raise CannotRun(f"cannot read {error.filename}: {error.strerror}") from error
