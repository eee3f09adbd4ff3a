"""Idle models sleep while others need the GPUs: strangers, or programs that the file names.

Owns when that begins and ends, and what happens to the models. Requests are served meanwhile as
usual. `room.strangers` tells when strangers have taken a GPU, and `processes.programs` which
programs run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import attrs
import structlog
import trio

from configschema import Config
from configschema.rules.addresses import is_here
from supervisor.model.server import ModelServer
from supervisor.processes.survey import Survey
from supervisor.room.strangers import GpuUse, Strangers
from supervisor.states.causes import Cause, Why
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import AT_REST, HAS_PROCESS, HOLDS_MEMORY, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

MIB = 1 << 20
LOOKS_EVERY = 2.0  # seconds
LOOKS_TO_BEGIN = 2  # in a row; the memory of an ending process is a stranger's for a moment
IDLE_FOR = 5.0  # seconds without a request before a model yields
CALM_FOR = 10.0  # seconds without a reason to yield before yielding is over


@attrs.frozen(kw_only=True)
class Sight:
    """What was seen at one moment that models may yield to.

    Attributes:
        programs: the programs that run, of those that the file names.
        gpus: who holds what on each GPU.
    """

    programs: tuple[str, ...] = ()
    gpus: tuple[GpuUse, ...] = ()

    @property
    def why(self) -> str:
        """What models yield to, in an operator's words; empty if there is no reason."""
        if self.programs:
            return f"'{self.programs[0]}' runs (yieldTo)"
        taken = [gpu.title for gpu in self.gpus if gpu.is_theirs]
        return f"other programs take the memory of {taken[0]} (yield)" if taken else ""


def is_over(sight: Sight) -> bool:
    """Whether there is nothing to yield to."""
    return not sight.why


def who_yields(
    snapshots: Iterable[Snapshot], sight: Sight, now: float, idle_for: float = IDLE_FOR
) -> list[str]:
    """Return the idle models that make room: all for a program, those on its GPU for a stranger.

    Args:
        snapshots: all models.
        sight: what was seen.
        now: on Trio's clock.
        idle_for: seconds that a model must be idle already.
    """
    idle = [one.model for one in snapshots if _is_idle(one) and now - one.idle_since >= idle_for]
    if sight.programs:
        return idle
    there = {name for gpu in sight.gpus if gpu.is_theirs for name in gpu.models}
    return [name for name in idle if name in there]


def _is_idle(model: Snapshot) -> bool:
    return model.serving and not (model.in_flight or model.waiting or model.pin)


@attrs.define(eq=False)
class Yielding:
    """Lets idle models sleep for others, and brings back those that were awake before.

    Attributes:
        servers: all model servers by id.
        config: returns the configuration, which says what to yield to.
        survey: measures the memory; returns None if that is impossible now.
        bring_back: starts or wakes a model, whichever models make room for it.
        programs: returns which of some programs run.
    """

    servers: Mapping[str, ModelServer]
    config: Callable[[], Config]
    survey: Callable[[], Awaitable[Survey | None]]
    bring_back: Callable[[str, Why], object]
    programs: Callable[[Collection[str]], Awaitable[tuple[str, ...]]]
    _strangers: Strangers = attrs.field(factory=Strangers, init=False)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _why: str = attrs.field(default="", init=False)
    _in_a_row: int = attrs.field(default=0, init=False)
    _last_reason_at: float = attrs.field(default=0.0, init=False)
    _before: frozenset[str] = attrs.field(default=frozenset(), init=False)
    _yielded: dict[str, int] = attrs.field(factory=dict, init=False)

    def stir(self) -> None:
        """Take note that a model's state, or the configuration, has changed."""
        self._stirred.set()

    async def run(self) -> None:
        """Look at intervals, while a model is awake or has yielded."""
        if self.config().yield_:
            await self._look_first()
        while True:
            if not self._must_look():
                await self._stirred.wait()
                self._stirred = trio.Event()
                continue
            self._decide(await self._look())
            await trio.sleep(LOOKS_EVERY)

    async def _look_first(self) -> None:
        """See what strangers hold before any model runs: usually they hold no less later."""
        seen = await self.survey()
        if seen is not None and any(one.held is not None for one in seen.readings):
            self._uses(seen)
        else:
            log.warning(
                "No GPU tells which processes hold its memory, so models cannot yield to strangers "
                "(yield). Name the programs that they are to yield to with yieldTo"
            )

    def _must_look(self) -> bool:
        config = self.config()
        is_wanted = config.yield_ or bool(config.yield_to)
        return bool(self._why) or (is_wanted and bool(self._awake()))

    def _awake(self) -> frozenset[str]:
        servers = self.servers.items()
        return frozenset(name for name, one in servers if one.at.state in HOLDS_MEMORY)

    async def _look(self) -> Sight:
        config = self.config()
        programs = await self.programs(config.yield_to) if config.yield_to else ()
        seen = await self.survey() if config.yield_ else None
        return Sight(programs=programs, gpus=() if seen is None else self._uses(seen))

    def _uses(self, seen: Survey) -> tuple[GpuUse, ...]:
        if self._hides_a_model(seen):
            return ()
        reserve = self.config().routing.router.settings.memory.reserve * MIB
        held = {name: one.by_gpu for name, one in seen.held.items()}
        return self._strangers.note(seen.readings, held, self._yielded, reserve)

    def _hides_a_model(self, seen: Survey) -> bool:
        """Whether some memory of this machine's models is not visible: it would seem strangers'."""
        running = [one for one in self.servers.values() if one.at.state in HAS_PROCESS]
        hidden = (one.model for one in running if one.model.id not in seen.held)
        told = (held.gpu for held in seen.held.values())
        return None in told or any(not one.is_elsewhere or is_here(one.proxy) for one in hidden)

    # What follows from a look.

    def _decide(self, sight: Sight) -> None:
        now = trio.current_time()
        if not is_over(sight):
            self._in_a_row, self._last_reason_at = self._in_a_row + 1, now
            if not self._why and (sight.programs or self._in_a_row >= LOOKS_TO_BEGIN):
                self._begin(sight.why)
            if self._why:
                self._let_rest(sight, now)
            return
        self._in_a_row = 0
        if self._why and now >= self._last_reason_at + CALM_FOR:
            self._end()

    def _begin(self, why: str) -> None:
        self._why, self._before = why, self._awake()
        log.info(f"Yielding: {why}. Idle models sleep until that is over", reason=why)

    def _let_rest(self, sight: Sight, now: float) -> None:
        """Put idle models to sleep; stop those that cannot sleep."""
        snapshots = [one.snapshot() for one in self.servers.values()]
        for name in who_yields(snapshots, sight, now, IDLE_FOR):
            server = self.servers[name]
            what = "Sleeping model" if server.can_sleep else "Stopping model, as it cannot sleep"
            log.info(f"<{name}> {what}: {sight.why}", model=name, reason=sight.why)
            self._yielded[name] = server.unloads
            cause = Cause(why=Why.YIELD, text=sight.why)
            server.wish(Wish.SLEEP if server.can_sleep else Wish.DRAIN, cause)

    def _end(self) -> None:
        """Bring back the models that were awake before, unless another model has their room now."""
        newcomers = sorted(self._awake() - self._before)
        names = sorted(name for name in self._yielded if self._comes_back(name))
        what = f"starting or waking: {', '.join(names) or 'nothing'}"
        if newcomers and names:
            what = f"'{newcomers[0]}' was loaded meanwhile, so these models wait for a request: "
            what += ", ".join(names)
        log.info(f"Yielding is over (the reason was: {self._why}); {what}", models=names)
        self._why, self._yielded = "", {}
        for name in () if newcomers else names:
            self.bring_back(name, Why.YIELD)

    def _comes_back(self, name: str) -> bool:
        """Whether a model that has yielded was awake before, and was not unloaded since."""
        server = self.servers.get(name)
        if server is None or name not in self._before or name not in self.config().models:
            return False
        return server.at.state in AT_REST and server.unloads == self._yielded[name]
