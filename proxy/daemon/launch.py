"""From the command's options to a running daemon: its log, its state folder, its files.

Owns the order of what must be there before the first task, and where the state is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import trio

from configschema import Config, Loaded
from proxy.daemon.root import DEFAULT_GRACE, run_daemon
from proxy.lifecycle.reloading import Files
from proxy.lifecycle.startup import CannotRun
from proxy.observing.logbook import LogBook, shown_in
from proxy.observing.logformat import configure, flush
from supervisor.succession.records import open_records, ports_of


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

    book, tls = LogBook(), _tls(options.tls_cert_file, options.tls_key_file)

    def apply(config: Config) -> None:
        book.shown = shown_in(config.log_to_stdout)
        configure(options.log_format, config.log_level, book)

    configure(options.log_format, "info", book)  # of the file's own level nothing is known yet
    named = [name for name in (options.config, options.config_dir) if name]
    with open_records(_folder(options.state_dir, named)) as records:
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
            book=book,
            tls=tls,
        )
        try:
            trio.run(run)
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"cannot listen on {options.listen}: {reason}"
            raise CannotRun(f"{where}; choose another with --listen") from error
        finally:
            flush()


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return how connections are encrypted; None if they are not.

    Raises:
        CannotRun: one of the files is missing, or they do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise CannotRun("HTTPS needs both --tls-cert-file and --tls-key-file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one, too
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise CannotRun(f"cannot use {certificate} with {key}: {reason}") from error
    return context


def _folder(given: str | None, named: Iterable[str]) -> Path | None:
    """Return where the state is kept; None if there is no place for it.

    That is what is given, else systemd's ``STATE_DIRECTORY``, else a folder where the XDG Base
    Directory Specification has state: one for each name of a configuration. Links are not followed,
    and a folder's files not looked at: both may change from one daemon to the next.
    """
    if given:
        return Path(given)
    if systemds := os.environ.get("STATE_DIRECTORY"):
        return Path(systemds.partition(":")[0])
    try:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    except RuntimeError:  # nobody knows where home is
        return None
    names = "\n".join(str(Path(name).absolute()) for name in named)
    return home / "llamadoze" / hashlib.sha256(os.fsencode(names)).hexdigest()[:12]
