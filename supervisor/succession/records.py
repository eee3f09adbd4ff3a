"""What a daemon leaves to the next one: a small file of the processes it has, and their logs.

Owns the folder, the file's form, and the lock that tells a living daemon's file from a dead one's.
What is done with a record is decided in `leftovers`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import structlog

from configschema import Model
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import HAS_PROCESS
from supervisor.succession.adopted import start_of

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

HIGHEST_PID = 1 << 22  # as proc_sys_kernel(5) has it
LARGEST_FILE = 10_000_000  # characters
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen(kw_only=True)
class Record:
    """One process.

    Attributes:
        model: the id of its model.
        pid: of the leader of its group.
        started: when, in clock ticks since the boot: what tells it from another of the same pid.
        port: that it was given, if any.
        state: where it stood; the value of a `State`.
        fingerprint: of what it was started with.
        logs: whether it writes to its log file, and so can do without its daemon.
    """

    model: str
    pid: int
    started: int
    port: int | None
    state: str
    fingerprint: str
    logs: bool


Noted = tuple[Model, Snapshot, bool]
"""A model, how it stands, and whether its process writes to its log file."""


@attrs.define(eq=False)
class Records:
    """The folder of one daemon.

    Attributes:
        folder: where it is.
        found: what the daemon before this one has left.
    """

    folder: Path
    found: tuple[Record, ...] = ()
    _written: tuple[Record, ...] | None = attrs.field(default=None, init=False)
    _starts: dict[int, int] = attrs.field(factory=dict, init=False)
    _failed: bool = attrs.field(default=False, init=False)

    @property
    def file(self) -> Path:
        """The state file."""
        return self.folder / "state.json"

    def log_file(self, model: str) -> Path:
        """Return where a model's process writes to, if it may outlive the daemon."""
        return self.folder / f"{hashlib.sha256(model.encode()).hexdigest()[:16]}.log"

    def note(self, servers: Iterable[Noted]) -> bool:
        """Write down how the processes stand, if that has changed; return whether that is written.

        A disk that is full is told of once; the models are served all the same.
        """
        found = (self._record(*one) for one in servers if one[1].state in HAS_PROCESS)
        records = tuple(record for record in found if record)
        self._starts = {one.pid: one.started for one in records}
        if records == self._written:
            return True
        text = json.dumps({"boot": _boot(), "models": [attrs.asdict(one) for one in records]})
        beside = self.file.with_suffix(".new")
        try:
            _write_anew(beside, text)
            beside.replace(self.file)
        except OSError as error:
            if not self._failed:
                log.warning(
                    f"Cannot write {self.file}: {error.strerror}; until that is mended, a crash "
                    "leaves model processes behind, and adopt keeps none"
                )
            self._written, self._failed = None, True
            return False
        self._written, self._failed = records, False
        return True

    def _record(self, model: Model, snapshot: Snapshot, logs: bool) -> Record | None:
        pid = snapshot.pid
        started = pid and (self._starts.get(pid) or start_of(pid))
        if not pid or not started:
            return None
        return Record(
            model=model.id,
            pid=pid,
            started=started,
            port=model.port,
            state=snapshot.state.value,
            fingerprint=fingerprint(model),
            logs=logs,
        )


def fingerprint(model: Model) -> str:
    """Return what stands for all that a process was started with, and how it sleeps and wakes."""
    facts = attrs.asdict(model, recurse=True)
    known = [facts[name] for name in ("cmd", "env", "port", "proxy", "check_endpoint")]
    text = repr([*known, model.recipe.way])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@contextmanager
def open_records(folder: Path | None) -> Iterator[Records | None]:
    """Use a folder alone; there is None where that cannot be, and the log says why."""
    if folder is None:
        log.warning("There is no home for the state; give a folder with --state-dir")
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning(
            f"Cannot use {folder}: {error.strerror}; leftovers of a crash will not be found. "
            "Give another folder with --state-dir"
        )
        yield None
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        log.warning(
            f"Another llamadoze serves this configuration ({folder}); "
            "this one takes nothing over and leaves nothing behind. If that one is ending, start "
            "again when it has; else give another --state-dir"
        )
        yield None
    else:
        yield Records(folder, read_records(folder / "state.json"))
    finally:
        os.close(lock)  # which gives the lock back


def _write_anew(file: Path, text: str) -> None:
    """Write a file that nobody else has put there: to open a pipe would wait for its reader."""
    file.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(file, flags, 0o600), "w") as opened:
        opened.write(text)


def read_records(file: Path) -> tuple[Record, ...]:
    """Return what a state file holds; nothing of an earlier boot, and nothing it cannot read."""
    try:
        data = json.loads(_text_of(file))
        if data["boot"] != _boot():
            return ()
        found = list(data["models"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning(f"Cannot read {file}: {error!r}; if models of a crash live on, end them")
        return ()
    records = [_checked(one) for one in found]
    if None in records:
        log.warning(f"{file} holds what is no process; if models of a crash live on, end them")
    return tuple(record for record in records if record)


def _text_of(file: Path) -> str:
    """Return the text of a regular file of a bearable size."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # not to hang on a pipe
    with os.fdopen(descriptor) as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no regular file")
        return opened.read(LARGEST_FILE)


def _checked(data: object) -> Record | None:
    """Return a record if it is one; whatever else stands there must not reach a signal."""
    fields = attrs.fields_dict(Record)
    if not isinstance(data, dict) or data.keys() != fields.keys():
        return None
    numbers = [data["pid"], data["started"], data["port"] or 0]
    texts = [data["model"], data["state"], data["fingerprint"]]
    right = (
        all(type(number) is int for number in numbers)
        and 1 < data["pid"] < HIGHEST_PID
        and data["started"] > 0
        and isinstance(data["logs"], bool)
        and all(isinstance(text, str) for text in texts)
        and data["state"] in {state.value for state in HAS_PROCESS}
    )
    return Record(**data) if right else None


def _boot() -> str:
    """Return what stands for the time since the machine was started: pids mean nothing beyond."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def ports_of(records: Iterable[Record]) -> Mapping[str, int]:
    """Return the ports that models have, for the configuration to keep."""
    return {record.model: record.port for record in records if record.port}
