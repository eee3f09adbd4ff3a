"""What a daemon leaves to the next one: a small file of its processes, and their logs.

Owns the folder, the file's form, and the lock that tells a living daemon's file from a dead one's.
`leftovers` decides what is done with a record.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import structlog

from configschema import Model
from supervisor.places.handles import (
    ElsewhereHandle,
    Handle,
    HereHandle,
    StepHandle,
    as_data,
    boot,
    handle_in,
)
from supervisor.processes.plainfiles import text_of
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import HAS_PROCESS, State

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

STATE = "state.json"
LARGEST_FILE = 10_000_000  # characters


@attrs.frozen(kw_only=True)
class Record:
    """One model server.

    Attributes:
        model: the id of its model.
        handle: what it is found by.
        port: the port that it was given, if any.
        state: its state; the value of a `State`.
        fingerprint: the fingerprint of what it was started with.
        logs: whether it writes to its log file, so that it can live without its daemon.
    """

    model: str
    handle: Handle
    port: int | None
    state: str
    fingerprint: str
    logs: bool


@attrs.define(eq=False)
class Records:
    """The folder of one daemon.

    Attributes:
        folder: the path of the folder.
        found: what the earlier daemon has left.
    """

    folder: Path
    found: tuple[Record, ...] = ()
    _noted: dict[str, str] = attrs.field(factory=dict, init=False)
    _fingerprints: dict[str, tuple[Model, str]] = attrs.field(factory=dict, init=False)
    _is_written: bool = attrs.field(default=False, init=False)
    _has_told: bool = attrs.field(default=False, init=False)

    @property
    def file(self) -> Path:
        """The state file."""
        return self.folder / STATE

    @property
    def knowledge_file(self) -> Path:
        """The file of what was learned of the models."""
        return self.folder / "learned.json"

    def log_file(self, model: str) -> Path:
        """Return the file that a model's process writes to, if it may outlive the daemon."""
        return self.folder / f"{hashlib.sha256(model.encode()).hexdigest()[:16]}.log"

    @property
    def owner(self) -> str:
        """The beginning of the tokens of all daemons with this folder, and of no others.

        It must stay the same even if the folder was emptied. Two containers may have the same path.
        """
        return _owner(self.folder)

    @property
    def owner_in_clusters(self) -> str:
        """The same for clusters, whichever machine the daemon runs on next.

        Login nodes may share a folder, and machines of one image may each have their own.
        """
        file = self.folder / "clusters"
        try:
            with file.open("x") as opened:
                opened.write(secrets.token_hex(8))
        except OSError:
            pass  # it exists already, or cannot be written
        try:
            return file.read_text().strip() or self.owner
        except (OSError, ValueError):
            return self.owner

    def keep(self, record: Record) -> None:
        """Keep the record of a server that is not taken over yet, until its model is noted."""
        self._noted[record.model] = _text(record)

    def note(self, model: Model, snapshot: Snapshot, *, logs: bool) -> bool:
        """Write down a server's state, if that has changed; return whether everything is written.

        A full disk is logged once; the models are served anyway.

        Args:
            model: the server's model.
            snapshot: its present state.
            logs: whether the server could outlive its daemon.
        """
        if snapshot.state is State.QUEUED and not snapshot.handle:  # keeps the earlier record
            return self._is_written
        record = self._record(model, snapshot, logs) if snapshot.state in HAS_PROCESS else None
        text = _text(record) if record else None
        if self._noted.get(model.id) == text and self._is_written:
            return True
        self._noted.pop(model.id, None)
        if text:
            self._noted[model.id] = text
        self._is_written = self._write()
        return self._is_written

    def _write(self) -> bool:
        try:
            write_anew(self.file, f'{{"models": [{", ".join(self._noted.values())}]}}')
        except OSError as error:
            if not self._has_told:
                log.warning(
                    f"Cannot write {self.file}: {error.strerror}; until that is fixed, adopt "
                    "keeps no model processes"
                )
            self._has_told = True
            return False
        self._has_told = False
        return True

    def _record(self, model: Model, snapshot: Snapshot, logs: bool) -> Record | None:
        handle = snapshot.handle
        if not isinstance(handle, HereHandle | ElsewhereHandle | StepHandle):
            return None
        return Record(
            model=model.id,
            handle=handle,
            port=model.port,
            state=snapshot.state.value,
            fingerprint=self._fingerprint(model),
            logs=logs,
        )

    def _fingerprint(self, model: Model) -> str:
        known = self._fingerprints.get(model.id)
        if known is None or known[0] is not model:
            known = self._fingerprints[model.id] = model, fingerprint(model)
        return known[1]


def _text(record: Record) -> str:
    facts = {name: getattr(record, name) for name in attrs.fields_dict(Record)}
    return json.dumps({**facts, "handle": as_data(record.handle)})


def _owner(folder: Path) -> str:
    root = Path("/").stat()
    text = f"{folder.absolute()}\n{os.getuid()}\n{root.st_dev}\n{root.st_ino}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def fingerprint(model: Model) -> str:
    """Return a fingerprint of what a process was started with, and how it sleeps and wakes."""
    model = model.as_written
    facts = attrs.asdict(model, recurse=True)
    known: list[object] = [model.holding.asked] if model.holding else []
    known += [facts[name] for name in ("cmd", "env", "port", "proxy", "check_endpoint", "detached")]
    text = repr([*known, model.recipe.way])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@contextmanager
def open_records(folder: Path | None) -> Iterator[Records | None]:
    """Lock a folder and use it; yield None if that is impossible, and log why."""
    if folder is None:
        log.warning("There is no folder for the state; give a folder with --state-dir")
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning(
            f"Cannot use {folder}: {error.strerror}; after a crash, model processes will not be "
            "found. Give another folder with --state-dir"
        )
        yield None
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        log.warning(
            f"Another llamadoze has the state folder {folder}. This one serves without it: it "
            "takes no models over, and after a crash its models are not found. If the other one "
            "is ending, restart this one after that; otherwise give it another --state-dir"
        )
        yield None
    else:
        yield Records(folder.absolute(), read_records(folder / STATE))
    finally:
        os.close(lock)  # this releases the lock


def write_anew(file: Path, text: str) -> None:
    """Replace a file with a new one, at once.

    The text is first written to a new file that nothing else has put there: opening a named pipe
    would wait for its reader.

    Raises:
        OSError: the file cannot be written; the old one stays.
    """
    beside = file.with_suffix(".new")
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(beside, flags, 0o600), "w") as opened:
        opened.write(text)
    beside.replace(file)


def read_records(file: Path) -> tuple[Record, ...]:
    """Return the records in a state file, without unreadable ones and those without meaning now."""
    try:
        data = json.loads(text_of(file, LARGEST_FILE))
        found = [_of_today(one, data) for one in data["models"]]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning(f"Cannot read {file}: {error!r}; llamadoze finds model processes without it")
        return ()
    records = [_checked(one) for one in found]
    if None in records:
        log.warning(f"{file} contains entries that are no servers of this boot; they are ignored")
    return tuple(record for record in records if record)


def may_tell_of_life(file: Path) -> bool:
    """Whether a state file may name a process that lives; an unreadable file may."""
    try:
        models = json.loads(text_of(file, LARGEST_FILE))["models"]
        return not all(_is_of_an_earlier_boot(one["handle"]) for one in models)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def _is_of_an_earlier_boot(handle: Mapping[str, object]) -> bool:
    return handle["place"] == "here" and handle["boot"] not in ("", boot())


def _of_today(record: object, data: Mapping[str, object]) -> object:
    """Return a record in its present form; until 0.2 all were processes of this machine."""
    if not isinstance(record, dict) or "pid" not in record:
        return record
    numbers = {"pid": record["pid"], "started": record.get("started")}
    marks = {"token": "", "boot": data.get("boot"), "members": []}
    handle = {"place": "here", **numbers, **marks}
    rest = {key: value for key, value in record.items() if key not in numbers}
    return {**rest, "handle": handle}


def _checked(data: object) -> Record | None:
    """Return a record if it is valid; anything else must not reach a signal."""
    fields = attrs.fields_dict(Record)
    if not isinstance(data, dict) or data.keys() != fields.keys():
        return None
    handle = handle_in(data["handle"])
    texts = [data["model"], data["state"], data["fingerprint"]]
    right = (
        handle is not None
        and (data["port"] is None or type(data["port"]) is int)
        and isinstance(data["logs"], bool)
        and all(isinstance(text, str) for text in texts)
        and data["state"] in {state.value for state in HAS_PROCESS}
    )
    return Record(**{**data, "handle": handle}) if right else None


def ports_of(records: Iterable[Record]) -> Mapping[str, int]:
    """Return the ports of models, so that the configuration keeps them."""
    return {record.model: record.port for record in records if record.port}
