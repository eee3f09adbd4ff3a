"""The daemon that a command talks to: the one that you name, else the one that runs.

Owns the order in which places are searched. `whereabouts` owns the files in which daemons publish
their addresses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from proxy.lifecycle.startup import CannotRun, Malformed
from proxy.lifecycle.whereabouts import Whereabouts, living, living_in
from proxy.terminal.asking import Daemon, NotThere, is_address

USUAL = "http://127.0.0.1:8080"
URL, KEY = "LLAMADOZE_URL", "LLAMADOZE_API_KEY"
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- an address to connect to, not to listen on


def find(url: str | None = None, folder: str | None = None, files: Sequence[str] = ()) -> Daemon:
    """Return the daemon: by its address, its state folder, its files, or because it runs.

    Args:
        url: the address from the command line.
        folder: the state folder from the command line.
        files: the configuration from the command line.

    Raises:
        NotThere: no daemon matches the options.
        Malformed: the address is malformed.
        CannotRun: several daemons run, and nothing chooses one.
    """
    key = os.environ.get(KEY, "")
    if url:
        return _given(url, "--url", key)
    found = living_in([Path(folder)]) if folder else living()
    wanted = tuple(str(Path(name).absolute()) for name in files)
    if wanted:
        found = [one for one in found if one.files == wanted]
    if (folder or wanted) and not found:
        what = f"has the state folder {folder}" if folder else f"serves {' '.join(files)}"
        raise NotThere(f"no running llamadoze of this user or of the system {what}")
    if not (folder or wanted) and (named := os.environ.get(URL)):
        return _given(named, URL, key)
    if len(found) > 1:
        found = _nearest(found)
    if not found:
        return Daemon(USUAL, key)
    return Daemon(_reachable(found[0].url), key, found[0].certificate)


def _given(url: str, option: str, key: str) -> Daemon:
    if not is_address(url):
        form = "http://HOST:PORT, https://... or unix:PATH"
        raise Malformed(f"{option} {url}: expected {form}")
    return Daemon(url, key)


def _nearest(found: Sequence[Whereabouts]) -> list[Whereabouts]:
    """Return the daemon that serves a file of the current folder.

    Raises:
        CannotRun: no daemon or several daemons do.
    """
    here = str(Path.cwd())
    near = [one for one in found if any(str(Path(name).parent) == here for name in one.files)]
    if len(near) != 1:
        all_of_them = ", ".join(f"{one.url} ({' '.join(one.files)})" for one in found)
        raise CannotRun(f"several daemons run; choose one with --url or --config: {all_of_them}")
    return near


def _reachable(url: str) -> str:
    """Return an address to connect to, also for a daemon that listens on all addresses."""
    for every, one in EVERY_ADDRESS.items():
        url = url.replace(f"//{every}:", f"//{one}:")
    return url
