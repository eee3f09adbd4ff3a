"""From changed files to a changed daemon: reading them again, and watching them.

Owns when the files are read and what is said of it. A file with a fault changes nothing. What a
change does to the models is the supervisor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs
import structlog
import trio

from configschema import Config, ConfigError, Loaded
from proxy.errors import BadRequest
from proxy.startup import CannotRun
from supervisor import Changes, Supervisor

AT_ONCE = 300  # milliseconds in which several changes of a file count as one

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.frozen
class Files:
    """Where the configuration comes from.

    Attributes:
        find: names the files, which may be others each time where a folder was given.
        read: reads them; models keep the ports they are given with.
        apply: puts into effect what the daemon itself takes from a configuration.
    """

    find: Callable[[], list[Path]]
    read: Callable[[list[Path], Mapping[str, int]], Loaded]
    apply: Callable[[Config], None] = lambda _: None


@attrs.define(eq=False)
class Reloader:
    """Read the files of a supervisor's configuration again.

    Attributes:
        files: where they are; None if the configuration did not come from files.
        supervisor: whose they are.
    """

    files: Files | None
    supervisor: Supervisor
    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)

    async def reload(self) -> Changes:
        """Read the files and put them into effect, or say why not and change nothing.

        Raises:
            BadRequest: with every problem of the files.
        """
        if self.files is None:
            raise BadRequest("the configuration did not come from a file", code="no_file")
        try:
            loaded = await trio.to_thread.run_sync(self._read, self.files, limiter=self._one)
        except (ConfigError, CannotRun, OSError) as error:
            raise self._refused(error) from None
        for warning in loaded.warnings:
            log.warning(f"{warning}", file=warning.file, line=warning.line)
        self.files.apply(loaded.config)
        found = self.supervisor.reload(loaded.config)
        log.info(f"Configuration reloaded: {found}", **attrs.asdict(found))
        return found

    def _read(self, files: Files) -> Loaded:
        models = self.supervisor.servers.items()
        ports = {name: server.model.port for name, server in models if server.model.port}
        return files.read(files.find(), ports)

    def _refused(self, error: ConfigError | CannotRun | OSError) -> BadRequest:
        problems = error.problems if isinstance(error, ConfigError) else (error,)
        for problem in problems:
            log.error(f"{problem}")
        log.error("Configuration not reloaded: mend the above; the present one stays in effect")
        text = "\n".join(map(str, problems))
        message = f"the present configuration stays in effect: {text}"
        return BadRequest(message, status=422, code="invalid_configuration")

    async def try_reload(self) -> None:
        """Reload where nobody waits for an answer: what is wrong is in the log."""
        try:
            await self.reload()
        except BadRequest as error:
            if error.code == "no_file":
                log.warning(f"Nothing to reload: {error}")

    async def watch(self) -> None:
        """Reload whenever the content of the files has changed."""
        # Only who watches pays for the import.
        from watchfiles import awatch

        if self.files is None:
            return
        known = _contents(self.files.find())
        folders = {path.absolute().parent for path in self.files.find()}
        # Folders, not files: editors and container platforms replace files by others.
        async for _ in awatch(
            *folders, watch_filter=None, debounce=AT_ONCE, recursive=False, raise_interrupt=False
        ):
            found = _contents(self._found())
            if found != known:
                known = found
                await self.try_reload()

    def _found(self) -> list[Path]:
        """Return the files as far as they can be found now."""
        try:
            return self.files.find() if self.files else []
        except CannotRun:
            return []


def _contents(paths: Iterable[Path]) -> dict[Path, bytes]:
    found = {}
    for path in paths:
        try:
            found[path] = path.read_bytes()
        except OSError:
            found[path] = b""
    return found
