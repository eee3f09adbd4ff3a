"""The root: one nursery for signals, the supervisor, and serving, closed in the right order.

Owns how the daemon begins and ends. At the end first no more connections, then a grace for open
answers, then the model servers.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import resource
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from math import inf
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from configschema import Config
from proxy.daemon.application import Application, open_application
from proxy.forwarding.modelcalls import CONTACT
from proxy.http.addresses import Address, open_listeners, removed_at_end, shown
from proxy.http.listening import serve_http
from proxy.lifecycle.certificates import Certificate
from proxy.lifecycle.clearing import clear_abandoned
from proxy.lifecycle.preload import preload
from proxy.lifecycle.reloading import Files, Reloader
from proxy.lifecycle.signals import Told
from proxy.lifecycle.systemd import READY, STOPPING, Systemd
from proxy.lifecycle.whereabouts import Whereabouts, tell_in, ticks_of
from proxy.observing.counters import Metrics
from proxy.observing.logbook import LogBook
from supervisor import State, Supervisor, open_supervisor
from supervisor.places.handles import HereHandle, StepHandle
from supervisor.processes.brood import BROOD
from supervisor.processes.kin import end_orphans
from supervisor.processes.memory import OF_DRIVER
from supervisor.room.nvml import why_not_known
from supervisor.states.journal import Journals
from supervisor.states.racing import race
from supervisor.succession.leftovers import settle_leftovers
from supervisor.succession.records import Record, Records

DEFAULT_GRACE = 10.0
Task = Callable[[], Awaitable[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.frozen(kw_only=True)
class Setup:
    """What a daemon is started with, beside its configuration.

    Attributes:
        address: where it listens.
        grace: seconds that open answers have to end.
        files: where the configuration is read again.
        named: those files and folders, as the command line has them.
        records: of the processes, for the next daemon.
        watch: whether the files are read whenever they change.
        book: keeps the last lines of the log.
        certificate: to serve HTTPS.
        systemd: the manager that has started it.
    """

    address: Address
    grace: float = DEFAULT_GRACE
    files: Files | None = None
    named: tuple[str, ...] = ()
    records: Records | None = None
    watch: bool = False
    book: LogBook = attrs.field(factory=LogBook)
    certificate: Certificate | None = None
    systemd: Systemd = attrs.field(factory=Systemd.of_environment)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """How connections are encrypted; None if they are not."""
        return self.certificate.context if self.certificate else None

    def whereabouts(self, url: str) -> Whereabouts:
        """Return what commands are told that look for this daemon."""
        return Whereabouts(
            url=url,
            pid=os.getpid(),
            started=ticks_of(os.getpid()),
            files=self.named,
            certificate=str(Path(self.certificate.chain).absolute()) if self.certificate else "",
        )


async def run_daemon(config: Config, setup: Setup) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends everything at once.

    After SIGTERM, models live on for the next daemon, if the configuration says so.

    Args:
        config: the models.
        setup: what else the daemon is started with.

    Raises:
        OSError: the address cannot be listened on.
    """
    listeners = await open_listeners(setup.address)
    with removed_at_end(listeners, setup.address):
        await _run(config, setup, listeners)


async def _run(config: Config, setup: Setup, listeners: list[trio.SocketListener]) -> None:
    records, book = setup.records, setup.book
    _raise_file_limit()
    _spare_pauses()
    told = Told()
    BROOD.gather()
    async with trio.open_nursery() as root:
        root.start_soon(BROOD.reap)
        root.start_soon(setup.systemd.keep_telling)
        await root.start(told.follow, setup.grace)
        inherited = await _settle(config, records, told)
        metrics, journals = Metrics(), Journals()
        journals.all = (metrics, book)
        if not told.stop.is_set():  # else nothing is owned yet, and nothing must be noted
            async with open_supervisor(
                config,
                CONTACT,
                records=records,
                inherited=inherited,
                journal=journals,
            ) as supervisor:
                reloader = Reloader(setup.files, supervisor, setup.certificate)
                root.start_soon(reloader.follow, told.hangups)
                beside: list[Task] = [reloader.watch] if setup.watch else []
                # It would make those leave that were to be kept.
                if not any(_is_kept(one) for one in inherited.values()):
                    beside.append(partial(preload, supervisor, CONTACT.one_token))
                if records:
                    beside.append(partial(clear_abandoned, records.folder))
                with open_application(supervisor, reloader, metrics, book, told.stop) as app:
                    journals.all = (metrics, book, app.history.recorder, app)
                    serve = partial(
                        serve_http,
                        app.handle,
                        listeners,
                        grace=setup.grace,
                        tls=setup.tls,
                        patience=lambda: supervisor.config.client_timeout or inf,
                    )
                    url = shown(listeners[0], tls=setup.tls is not None)
                    tell_in(records.folder if records else None, setup.whereabouts(url))
                    setup.systemd.tell(READY, f"STATUS=Listening on {url}")
                    log.info(
                        f"Listening on {url}",
                        address=url.partition("://")[2] or url,
                        models=len(config.models),
                        files=list(setup.named),
                    )
                    await _serve(root, app, url, serve, told, beside)
                setup.systemd.tell(STOPPING)
                left = supervisor.let_go() if told.lets_go else 0
                others = f"; {left} live on for the next llamadoze (adopt)" if left else ""
                log.info(f"Stopping all models{others}", left=left)
        root.cancel_scope.cancel()
    await end_orphans()
    log.info("Stopped")


def _is_kept(record: Record) -> bool:
    """Whether a process lives on from the earlier daemon, and is of use."""
    return (
        isinstance(record.handle, HereHandle | StepHandle)
        and State(record.state) is not State.STOPPING
    )


async def _settle(config: Config, records: Records | None, told: Told) -> dict[str, Record]:
    """Return the processes to take over; of what was not settled, the state file still tells."""
    found, owner = (records.found, records.owner) if records else ((), "")
    settle = partial(settle_leftovers, found, config, CONTACT, owner)

    async def called_off() -> dict[str, Record]:
        await told.stop.wait()
        return {}

    return await race(settle, called_off)


async def _serve(
    root: trio.Nursery,
    application: Application,
    url: str,
    serve: Callable[..., Awaitable[None]],
    told: Told,
    beside: Iterable[Task],
) -> None:
    """Serve until told to stop, and do what goes on beside it."""
    supervisor = application.resolver.supervisor
    async with trio.open_nursery() as serving:
        root.start_soon(_hurry, told, serving.cancel_scope, supervisor)
        _warn_if_open(urlsplit(url).hostname or "", supervisor.config)
        serving.start_soon(_warn_if_blind, supervisor.config)
        serving.start_soon(application.run, told.stop)
        for task in beside:
            serving.start_soon(task)
        await serve(stop=told.stop)
        serving.cancel_scope.cancel()


def _warn_if_open(host: str, config: Config) -> None:
    """Say that whoever reaches the port may use and control everything."""
    if not host:  # a unix socket: the system says who may use it
        return
    if not config.api_keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        log.warning(
            f"Listening on {host} without apiKeys: whoever reaches the port is served, and may "
            "unload models and read the log. Set apiKeys, or listen on 127.0.0.1",
            address=host,
        )


async def _warn_if_blind(config: Config) -> None:
    """Say that nobody looks whether a sleep frees GPU memory. A driver may take its time."""
    if not any(model.can_sleep for model in config.models.values()):
        return
    reason: str | None = None
    with contextlib.suppress(RuntimeError):  # there is no thread left; that is no reason to end
        reason = await trio.to_thread.run_sync(
            why_not_known, abandon_on_cancel=True, limiter=OF_DRIVER.limiter
        )
    if reason:
        log.warning(f"GPU memory is not measured, so no sleep is proved by it: {reason}")


async def _hurry(told: Told, serving: trio.CancelScope, supervisor: Supervisor) -> None:
    """End everything at once, at whatever point of the end a second signal comes."""
    await told.hurry.wait()
    serving.cancel()
    supervisor.cut()


def _spare_pauses() -> None:
    """Let the garbage collector not look again and again at what stays for ever.

    Its look at all modules takes 50 ms, in which no stream moves on.
    """
    gc.freeze()


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a container may refuse; we can do with less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
