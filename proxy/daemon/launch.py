"""From the command's options to a running daemon: its log, its state folder, its files.

Owns the order of what must exist before the first task, and the place of the state.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import attrs
import trio

from configschema import Config
from proxy.daemon.root import DEFAULT_GRACE, Setup, run_daemon
from proxy.http.addresses import Address
from proxy.lifecycle.certificates import Certificate
from proxy.lifecycle.reloading import Files, tell_warnings
from proxy.lifecycle.startup import CannotRun
from proxy.lifecycle.whereabouts import state_home
from proxy.observing.logbook import LogBook, shown_in
from proxy.observing.logformat import Format, configure, flush
from supervisor.succession.records import open_records, ports_of


@attrs.frozen(kw_only=True)
class Options:
    """The command line's options for a daemon.

    Attributes:
        listen: the address, as given.
        named: the configuration's files and folders, as given.
        log_format: the log's format: auto, json or text.
        log_level: the lowest level to log; None for the file's own.
        state_dir: the folder for the state; None for the usual one.
        certificate: the PEM file for HTTPS.
        key: the PEM file of the certificate's key.
        watch: whether to reload the files whenever they change.
    """

    listen: str
    named: tuple[str, ...]
    log_format: Format = "auto"
    log_level: str | None = None
    state_dir: str | None = None
    certificate: str | None = None
    key: str | None = None
    watch: bool = False


def launch(
    options: Options,
    address: Address,
    files: Files,
    grace: float = DEFAULT_GRACE,
) -> None:
    """Run the daemon in the foreground until it is told to end.

    Args:
        options: the command line's options.
        address: the address to listen on.
        files: the configuration's files.
        grace: seconds that open answers have to end.

    Raises:
        ConfigError, CannotRun: the configuration cannot be used, or the address is taken.
    """

    book, certificate = LogBook(), Certificate.load(options.certificate, options.key)

    def apply(config: Config) -> None:
        book.shown = shown_in(config.log_to_stdout)
        configure(options.log_format, options.log_level or config.log_level, book)

    # The file's own level is not known yet.
    configure(options.log_format, options.log_level or "info", book)
    folder = _folder(options.state_dir, options.named)
    with open_records(folder) as records:
        loaded = files.read(files.find(), ports_of(records.found) if records else {})
        apply(loaded.config)
        tell_warnings(loaded)
        setup = Setup(
            address=address,
            grace=grace,
            files=Files(files.find, files.read, apply),
            named=tuple(str(Path(name).absolute()) for name in options.named),
            records=records,
            watch=options.watch,
            book=book,
            certificate=certificate,
        )
        try:
            trio.run(run_daemon, loaded.config, setup)
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"cannot listen on {options.listen}: {reason}"
            raise CannotRun(f"{where}; choose another with --listen") from error
        finally:
            flush()


def _folder(given: str | None, named: Iterable[str]) -> Path | None:
    """Return the folder for the state; None if there is no place for it.

    That is the given one, else systemd's ``STATE_DIRECTORY``, else a folder at the place of the XDG
    Base Directory Specification, one for each name of a configuration. Links are not followed, and
    a folder's files do not matter: both may change from one daemon to the next.
    """
    if given:
        return Path(given)
    if systemds := os.environ.get("STATE_DIRECTORY"):
        return Path(systemds.partition(":")[0])
    home = state_home()
    names = "\n".join(str(Path(name).absolute()) for name in named)
    return home and home / hashlib.sha256(os.fsencode(names)).hexdigest()[:12]
