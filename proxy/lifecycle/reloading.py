"""From changed files to a changed daemon: reading them again, and watching them.

Owns when the files are read and what is said of it. A file with a fault changes nothing. What a
change does to the models is the supervisor's.
"""

from __future__ import annotations

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
"""What reading files can raise: a circle of links, or no thread to read in, is a RuntimeError."""

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


@attrs.frozen(kw_only=True)
class Preview:
    """What is in the files now, and what a reload would change.

    Attributes:
        changes: what would change; None if the files cannot be used.
        problems: why they cannot.
        warnings: what is hardly meant.
        differences: the settings that would change.
        texts: the files, as far as they may be shown.
    """

    changes: Changes | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    differences: Sequence[Difference] = ()
    texts: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Reloader:
    """Read the files of a supervisor's configuration again.

    Attributes:
        files: where they are; None if the configuration did not come from files.
        supervisor: whose they are.
        certificate: that clients are shown; it is read again, too.
        on_reload: called when another configuration is in effect.
    """

    files: Files | None
    supervisor: Supervisor
    certificate: Certificate | None = None
    on_reload: Callable[[], None] = lambda: None
    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)

    async def reload(self) -> Changes:
        """Read the files and put them into effect, or say why not and change nothing.

        Raises:
            BadRequest: with every problem of the files.
        """
        if self.certificate is not None:
            await _in_thread(self.certificate.renew)
        if self.files is None:
            raise BadRequest("the configuration did not come from a file", code="no_file")
        async with self._one:  # what is read last must be in effect last
            try:
                loaded = await _in_thread(partial(_read, self.files, self._ports()))
            except ImportError as error:  # the files of another version lie there now
                raise self._refused(needs_restart("the configuration", error)) from error
            except UNREADABLE as error:
                raise self._refused(error) from None
            tell_warnings(loaded)
            self.files.apply(loaded.config)
            found = self.supervisor.reload(loaded.config)
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
        """Read the files, and say what a reload would change; nothing is put into effect."""
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
        """Return the ports that models have: one that had to move to another is not changed."""
        leaving = {name: one.model for name, one in self.supervisor.servers.items()}
        models = {**leaving, **self.supervisor.config.models}
        return {name: model.port for name, model in models.items() if model.port}

    def _refused(self, error: Exception) -> BadRequest:
        problems = error.problems if isinstance(error, ConfigError) else (error,)
        for problem in problems:
            at = (
                {"file": problem.file, "line": problem.line} if isinstance(problem, Problem) else {}
            )
            log.error(f"{problem}", **at)
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

    async def follow(self, wanted: trio.MemoryReceiveChannel[None]) -> None:
        """Reload whenever that is wanted."""
        async for _ in wanted:
            await self.try_reload()

    async def watch(self) -> None:
        """Reload whenever the content of the files has changed, and is the same for two looks.

        It is looked at now and then: network and container file systems tell of no changes, and an
        editor may put another file, or another link, in its place.
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
    """Write what is hardly meant into the log."""
    for warning in loaded.warnings:
        log.warning(f"{warning} (warning)", file=warning.file, line=warning.line)


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _read(files: Files, ports: Mapping[str, int]) -> Loaded:
    loaded = files.read(files.find(), ports)
    if not loaded.config.models:  # a file that is being written, more likely than a wish
        raise CannotRun("the files hold no model; to stop all models, unload or pause them")
    return loaded


async def _look(files: Files) -> dict[Path, bytes | None]:
    try:
        return await _in_thread(partial(_contents, files))
    except UNREADABLE:
        return {}


def _contents(files: Files) -> dict[Path, bytes | None]:
    """Return what is in the files; nothing of one that cannot be read now."""
    found: dict[Path, bytes | None] = {}
    for path in files.find():
        try:
            found[path] = path.read_bytes()
        except OSError:
            found[path] = None
    return found
