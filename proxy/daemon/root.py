"""The root: one nursery for signals, the supervisor, and serving, closed in the right order.

Owns how the daemon starts and ends. At the end, it first accepts no more connections, then gives
open answers a grace, then ends the model servers.
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
    """What a daemon is started with, in addition to its configuration.

    Attributes:
        address: the address to listen on.
        grace: seconds that open answers have to end.
        files: the files to reload the configuration from.
        named: those files and folders, as on the command line.
        records: the records of processes, for the next daemon.
        watch: whether to reload the files whenever they change.
        book: keeps the last lines of the log.
        certificate: the certificate for HTTPS.
        systemd: the service manager that started the daemon.
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
        """The TLS context of connections; None without TLS."""
        return self.certificate.context if self.certificate else None

    def whereabouts(self, url: str) -> Whereabouts:
        """Return what commands need to find this daemon."""
        return Whereabouts(
            url=url,
            pid=os.getpid(),
            started=ticks_of(os.getpid()),
            files=self.named,
            certificate=str(Path(self.certificate.chain).absolute()) if self.certificate else "",
        )


async def run_daemon(config: Config, setup: Setup) -> None:
    """Serve until SIGTERM or SIGINT. A second signal ends everything at once.

    After SIGTERM, models live on for the next daemon if the configuration says so.

    Args:
        config: the models.
        setup: what else the daemon is started with.

    Raises:
        OSError: the daemon cannot listen on the address.
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
        if not told.stop.is_set():  # else there are no models yet, and nothing to record
            async with (
                trio.open_nursery() as last,  # it goes on while the models stop
                open_supervisor(
                    config,
                    CONTACT,
                    records=records,
                    inherited=inherited,
                    journal=journals,
                ) as supervisor,
            ):
                reloader = Reloader(setup.files, supervisor, setup.certificate)
                root.start_soon(reloader.follow, told.hangups)
                beside: list[Task] = [reloader.watch] if setup.watch else []
                # A preload would evict the models that live on from the earlier daemon.
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
                    last.start_soon(app.send_last_spans, told.hurry)
                setup.systemd.tell(STOPPING)
                left = supervisor.let_go() if told.lets_go else 0
                others = f"; {left} of them live on for the next llamadoze (adopt)" if left else ""
                log.info(f"Stopping all models{others}", left=left)
        root.cancel_scope.cancel()
    await end_orphans()
    log.info("Stopped")


def _is_kept(record: Record) -> bool:
    """Whether a process lives on from the earlier daemon and is usable."""
    return (
        isinstance(record.handle, HereHandle | StepHandle)
        and State(record.state) is not State.STOPPING
    )


async def _settle(config: Config, records: Records | None, told: Told) -> dict[str, Record]:
    """Return the processes to take over. The state file keeps those that are not settled."""
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
    """Serve until told to stop, and run the background tasks."""
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
    """Warn if anyone who reaches the port can use and control everything."""
    if not host:  # a unix socket: file permissions decide who may use it
        return
    if not config.api_keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        log.warning(
            f"Listening on {host} without apiKeys: anyone who reaches the port can use models, "
            "unload them, and read the log. Set apiKeys, or listen on 127.0.0.1",
            address=host,
        )


async def _warn_if_blind(config: Config) -> None:
    """Warn if GPU memory cannot be measured after a sleep. The driver may answer slowly."""
    if not any(model.can_sleep for model in config.models.values()):
        return
    reason: str | None = None
    with contextlib.suppress(
        RuntimeError
    ):  # no thread is left; that is no reason to end the daemon
        reason = await trio.to_thread.run_sync(
            why_not_known, abandon_on_cancel=True, limiter=OF_DRIVER.limiter
        )
    if reason:
        log.warning(f"GPU memory cannot be measured, so it proves no sleep: {reason}")


async def _hurry(told: Told, serving: trio.CancelScope, supervisor: Supervisor) -> None:
    """End everything at once when a second signal arrives, however far the end has come."""
    await told.hurry.wait()
    serving.cancel()
    supervisor.cut()


def _spare_pauses() -> None:
    """Exclude objects that are never freed from garbage collection.

    A collection over all modules takes 50 ms, during which every stream stands still.
    """
    gc.freeze()


def _raise_file_limit() -> None:
    """Raise the limit of open files to the system's maximum: each stream needs two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a container may refuse; fewer files also work
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
