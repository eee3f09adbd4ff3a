"""The root: one nursery for signals, the supervisor, and serving, closed in the right order.

Owns how the daemon begins and ends. First no more connections, then a grace for open answers, then
the model servers.
"""

from __future__ import annotations

import contextlib
import resource
import signal

import attrs
import structlog
import trio

from configschema import Config
from proxy.application import open_application
from proxy.contact import answer_one_token, ask_if_ready, make_call
from proxy.listening import open_listeners, serve_http
from proxy.reloading import Files, Reloader
from supervisor import open_supervisor
from supervisor.preload import preload
from supervisor.records import Records

DEFAULT_GRACE = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.frozen
class Shutdown:
    """How the daemon is told to end: in good order, and then at once; by which signals."""

    stop: trio.Event = attrs.field(factory=trio.Event)
    hurry: trio.Event = attrs.field(factory=trio.Event)
    by: list[int] = attrs.field(factory=list)

    @property
    def lets_go(self) -> bool:
        """Whether models may live on: who restarts a daemon sends SIGTERM, a terminal SIGINT."""
        return self.by == [signal.SIGTERM]


async def run_daemon(
    config: Config,
    host: str,
    port: int,
    grace: float = DEFAULT_GRACE,
    files: Files | None = None,
    records: Records | None = None,
    *,
    watch: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends everything at once.

    After SIGTERM, models live on for the next daemon, if the configuration says so.

    Args:
        config: the models.
        host: address to listen on.
        port: port to listen on; 0 takes any, and the log says which.
        grace: seconds that open answers have to end.
        files: where the configuration is read again.
        records: of the processes, for the next daemon.
        watch: whether the files are read whenever they change.

    Raises:
        OSError: the address cannot be listened on.
    """
    listeners = await open_listeners(host, port)
    _raise_file_limit()
    shutdown = Shutdown()
    async with trio.open_nursery() as root:
        async with open_supervisor(config, ask_if_ready, make_call, records=records) as supervisor:
            reloader = Reloader(files, supervisor)
            await root.start(_watch_signals, shutdown, reloader, grace)
            async with trio.open_nursery() as serving:

                async def cut() -> None:
                    await shutdown.hurry.wait()
                    serving.cancel_scope.cancel()
                    supervisor.cut()

                root.start_soon(cut)
                bound = listeners[0].socket.getsockname()[:2]
                where = f"{bound[0]}:{bound[1]}"
                log.info(f"Listening on http://{where}", address=where, models=len(config.models))
                serving.start_soon(preload, supervisor, answer_one_token)
                if watch:
                    serving.start_soon(reloader.watch)
                with open_application(supervisor, reloader) as application:
                    await serve_http(application, listeners, stop=shutdown.stop, grace=grace)
                serving.cancel_scope.cancel()
            if shutdown.lets_go:
                supervisor.let_go()
            log.info("Stopping all models that do not live on")
        root.cancel_scope.cancel()
    log.info("Stopped")


async def _watch_signals(
    shutdown: Shutdown,
    reloader: Reloader,
    grace: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    for known in SIGNALS:
        # The receiver puts this back at its end: a late signal must not turn success into a death.
        signal.signal(known, signal.SIG_IGN)
    with trio.open_signal_receiver(*SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                await reloader.try_reload()
                continue
            shutdown.by.append(number)
            if not shutdown.stop.is_set():
                log.info(
                    f"{name}: no new requests; open ones have {grace:g}s; "
                    "a second signal ends everything at once"
                )
                shutdown.stop.set()
            else:
                log.warning(f"{name}: ending everything at once")
                shutdown.hurry.set()


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a container may refuse; we can do with less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
