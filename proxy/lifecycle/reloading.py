"""From changed files to a changed daemon: reloading them, and watching them.

Owns when the files are read, and what is logged. A file with a fault changes nothing. The
supervisor decides what a change does to the models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import structlog
import trio

from configschema import Config, ConfigError, Loaded, Problem
from configschema.rules.showing import Difference, differences
from proxy.http.errors import BadRequest, needs_restart
from proxy.lifecycle.certificates import Certificate
from proxy.lifecycle.startup import CannotRun
from supervisor import Changes, Supervisor
from supervisor.succession.changes import changes

BETWEEN_LOOKS = 0.5  # seconds

T = TypeVar("T")
UNREADABLE = (ConfigError, CannotRun, OSError, RuntimeError)
"""What reading files can raise. RuntimeError means a cycle of links, or no thread to read in."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.frozen
class Files:
    """The source of the configuration.

    Attributes:
        find: returns the files; in a given folder, they may differ each time.
        read: reads them. Models keep the ports that it gets.
        apply: applies the settings of the daemon itself.
    """

    find: Callable[[], list[Path]]
    read: Callable[[list[Path], Mapping[str, int]], Loaded]
    apply: Callable[[Config], None] = lambda _: None


@attrs.frozen(kw_only=True)
class Preview:
    """The present content of the files, and what a reload would change.

    Attributes:
        changes: what would change; None if the files cannot be used.
        problems: why they cannot be used.
        warnings: probable mistakes.
        differences: the settings that would change.
        texts: the files without secrets.
    """

    changes: Changes | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    differences: Sequence[Difference] = ()
    texts: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Reloader:
    """Reloads the files of a supervisor's configuration.

    Attributes:
        files: the files; None if the configuration did not come from files.
        supervisor: the supervisor of the models.
        certificate: the certificate for clients, which is reloaded, too.
        on_reload: called when a new configuration is in effect.
        is_in_effect: whether the last reload put the files into effect.
        in_effect_since: when files last took effect, in seconds since 1970.
    """

    files: Files | None
    supervisor: Supervisor
    certificate: Certificate | None = None
    on_reload: Callable[[], None] = lambda: None
    is_in_effect: bool = attrs.field(default=True, init=False)
    in_effect_since: float = attrs.field(factory=time.time, init=False)
    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)

    async def reload(self) -> Changes:
        """Read the files and put them into effect, or report the problems and change nothing.

        Raises:
            BadRequest: the files have problems; the error lists them all.
        """
        if self.certificate is not None:
            await _in_thread(self.certificate.renew)
        if self.files is None:
            raise BadRequest("the configuration did not come from a file", code="no_file")
        async with self._one:  # the files that are read last must take effect last
            try:
                loaded = await _in_thread(partial(_read, self.files, self._ports()))
            except ImportError as error:  # another version was installed meanwhile
                raise self._refused(needs_restart("the configuration", error)) from error
            except UNREADABLE as error:
                raise self._refused(error) from None
            tell_warnings(loaded)
            self.files.apply(loaded.config)
            found = self.supervisor.reload(loaded.config)
            self.is_in_effect, self.in_effect_since = True, time.time()
            self.on_reload()
        log.info(
            f"Configuration reloaded: {found}",
            kept=found.kept,
            adjusted=found.adjusted,
            replaced=found.replaced,
            removed=found.removed,
            added=found.added,
            settings=found.settings,
        )
        return found

    async def preview(self) -> Preview:
        """Read the files, and return what a reload would change. Nothing takes effect."""
        if self.files is None:
            raise BadRequest("the configuration did not come from a file", code="no_file")
        try:
            loaded = await _in_thread(partial(_read, self.files, self._ports()))
        except ConfigError as error:
            return Preview(
                problems=error.problems,
                warnings=error.warnings,
                texts=await _in_thread(error.texts),
            )
        except (CannotRun, OSError, RuntimeError, ImportError) as error:
            return Preview(problems=(Problem("", 1, 1, "", str(error)),))
        old, new = self.supervisor.config, loaded.config
        return Preview(
            changes=changes(old, new),
            warnings=loaded.warnings,
            differences=await _in_thread(partial(differences, old, new)),
            texts=await _in_thread(loaded.texts),
        )

    def _ports(self) -> Mapping[str, int]:
        """Return the ports of models. A model that had to move to another port keeps that one."""
        leaving = {name: one.model for name, one in self.supervisor.servers.items()}
        models = {**leaving, **self.supervisor.config.models}
        return {name: model.port for name, model in models.items() if model.port}

    def _refused(self, error: Exception) -> BadRequest:
        self.is_in_effect = False
        problems = error.problems if isinstance(error, ConfigError) else (error,)
        for problem in problems:
            at = (
                {"file": problem.file, "line": problem.line} if isinstance(problem, Problem) else {}
            )
            log.error(f"{problem}", **at)
        log.error(
            "Configuration not reloaded: fix the above; the old configuration stays in effect"
        )
        text = "\n".join(map(str, problems))
        message = f"the present configuration stays in effect: {text}"
        return BadRequest(message, status=422, code="invalid_configuration")

    async def try_reload(self) -> None:
        """Reload without a client that waits for the answer. Problems are in the log."""
        try:
            await self.reload()
        except BadRequest as error:
            if error.code == "no_file":
                log.warning(f"Nothing to reload: {error}")

    async def follow(self, wanted: trio.MemoryReceiveChannel[None]) -> None:
        """Reload at each SIGHUP."""
        async for _ in wanted:
            await self.try_reload()

    async def watch(self) -> None:
        """Reload whenever the files have changed, and have had the same content twice in a row.

        The files are polled: network and container file systems report no changes, and an editor
        may put another file or link in their place.
        """
        if self.files is None:
            return
        known = before = await _look(self.files)
        while True:
            await trio.sleep(BETWEEN_LOOKS)
            found = await _look(self.files)
            if found != known and found == before:
                known = found
                await self.try_reload()
            before = found


def tell_warnings(loaded: Loaded) -> None:
    """Log the warnings about the files."""
    for warning in loaded.warnings:
        log.warning(f"{warning} (warning)", file=warning.file, line=warning.line)


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _read(files: Files, ports: Mapping[str, int]) -> Loaded:
    loaded = files.read(files.find(), ports)
    if not loaded.config.models:  # more likely a half-written file than an intention
        raise CannotRun("the files have no model; to stop all models, unload or pause them")
    return loaded


async def _look(files: Files) -> dict[Path, bytes | None]:
    try:
        return await _in_thread(partial(_contents, files))
    except UNREADABLE:
        return {}


def _contents(files: Files) -> dict[Path, bytes | None]:
    """Return the content of the files, with None for a file that cannot be read now."""
    found: dict[Path, bytes | None] = {}
    for path in files.find():
        try:
            found[path] = path.read_bytes()
        except OSError:
            found[path] = None
    return found
