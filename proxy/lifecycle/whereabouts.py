"""The state folders and addresses of this machine's daemons, each published in a file.

Owns the file ``daemon.json`` in a state folder, and finding the daemons that run. `proxy.terminal`
sends requests to them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs

NAME = "daemon.json"
ELSEWHERE = "at-"  # prefix of a folder for a daemon whose state folder is elsewhere
OF_SYSTEM = Path("/var/lib/llamadoze")
LARGEST_FILE = 100_000  # characters
READABLE = 0o644  # an address is no secret: other users of this machine may read it


@attrs.frozen(kw_only=True)
class Whereabouts:
    """A daemon's address and process.

    Attributes:
        url: its address: ``http://HOST:PORT``, or ``unix:PATH``.
        pid: its process id.
        started: when the process started, in the kernel's ticks; 0 if unknown.
        files: the configuration's files and folders, as named.
        certificate: the file of its certificate; empty without TLS.
        folder: its state folder.
        host: the name of its machine, because machines may share home folders.
    """

    url: str
    pid: int
    started: int
    files: tuple[str, ...] = ()
    certificate: str = ""
    folder: str = ""
    host: str = attrs.field(factory=lambda: os.uname().nodename)

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs on this machine, and is not another one with its id."""
        if self.host not in ("", os.uname().nodename):
            return False
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass
        except OSError:
            return False
        return ticks_of(self.pid) in (0, self.started)


def ticks_of(pid: int) -> int:
    """Return when a process started, in ticks since the boot; 0 if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def state_home() -> Path | None:
    """Return the parent of this user's state folders (XDG Base Directory); None without a home."""
    try:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    except RuntimeError:  # the home folder is unknown
        return None
    return home / "llamadoze"


def tell_in(folder: Path | None, here: Whereabouts) -> None:
    """Publish a daemon's address in its state folder. Without a folder, do nothing.

    If the operator chose the folder, this user's own state folders get a copy. What cannot be
    written is skipped, because clients can be given the address. The file remains when the daemon
    ends, so its readers check whether the daemon is alive.
    """
    if folder is None:
        return
    _write(folder, here)
    home = state_home()
    if home is not None and folder.parent != home and not os.environ.get("STATE_DIRECTORY"):
        name = hashlib.sha256(os.fsencode(str(folder))).hexdigest()[:12]
        with contextlib.suppress(OSError):
            (home / f"{ELSEWHERE}{name}").mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(home / f"{ELSEWHERE}{name}", attrs.evolve(here, folder=str(folder)))


def _write(folder: Path, here: Whereabouts) -> None:
    file = folder / NAME
    with contextlib.suppress(OSError):
        beside = file.with_suffix(".new")
        beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(beside, flags, READABLE), "w") as opened:
            os.fchmod(opened.fileno(), READABLE)  # whatever the umask says
            opened.write(json.dumps({**attrs.asdict(here), "folder": here.folder or str(folder)}))
        beside.replace(file)


def living_in(folders: Iterable[Path]) -> list[Whereabouts]:
    """Return the running daemons that have their state in some folders."""
    found = (read(folder / NAME) for folder in folders)
    return [one for one in found if one is not None and one.is_alive]


def living() -> list[Whereabouts]:
    """Return the running daemons of this user, and that of the system."""
    home = state_home()
    of_user = sorted(home.iterdir()) if home is not None and home.is_dir() else []
    given = [Path(one) for one in os.environ.get("STATE_DIRECTORY", "").split(":") if one]
    found = living_in(dict.fromkeys([*of_user, *given, OF_SYSTEM]))
    return list({one.pid: one for one in found}.values())


def read(file: Path) -> Whereabouts | None:
    """Return the content of a file; None if it cannot be read, or has other content."""
    try:
        with file.open() as opened:
            data = json.loads(opened.read(LARGEST_FILE))
        return Whereabouts(
            url=str(data["url"]),
            pid=int(data["pid"]),
            started=int(data["started"]),
            files=tuple(map(str, data["files"])),
            certificate=str(data["certificate"]),
            folder=str(data["folder"]),
            host=str(data.get("host", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
