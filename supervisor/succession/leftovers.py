"""What happens to the servers of an earlier daemon: taken over, or ended before anything starts.

Owns the proof that a server is the one in its record and still well. Nothing here may leave an
orphan on memory that others need, whether the state file names the orphan or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import attrs
import structlog
import trio

from configschema import Config, Limits, Model, resolve_limits
from supervisor.places.addresses import shown_address
from supervisor.places.containers import is_outside, stop_command
from supervisor.places.elsewhere import Elsewhere, ServerElsewhere
from supervisor.places.handles import ElsewhereHandle, HereHandle, StepHandle
from supervisor.places.here import Here, name_in_tokens
from supervisor.places.localserver import STUCK, LocalServer
from supervisor.places.running import Left, Order, RunningServer
from supervisor.processes.adopted import GONE, recognised, started_at
from supervisor.processes.census import owned_by, table_now
from supervisor.processes.child import Child
from supervisor.processes.commands import run_command
from supervisor.processes.kin import end_alone
from supervisor.processes.output import NO_OUTPUT, LogRing
from supervisor.sleep.actions import Actions, environment_of
from supervisor.sleep.contact import Contact
from supervisor.sleep.readiness import ReadyCheck
from supervisor.states.durations import seconds
from supervisor.states.table import BETWEEN_SLEEP_AND_WAKE, State
from supervisor.succession.records import Record, fingerprint

HEALTHY_WITHIN = 5.0  # seconds for a server to prove that it is ready or asleep, as it was before
ADOPTABLE = frozenset({State.READY, State.ASLEEP})

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


async def settle_leftovers(
    records: Iterable[Record], config: Config, contact: Contact, owner: str = ""
) -> dict[str, Record]:
    """Return the servers that may be taken over, by model; no other server lives after that.

    Args:
        records: the records of the earlier daemon.
        config: the configuration of this daemon; `adopt` says whether processes are taken over.
        contact: the ways to model servers.
        owner: the beginning of the tokens of that daemon's processes.
    """
    settling = _Settling(config, contact, Here(owner, contact.probe))
    async with trio.open_nursery() as nursery:
        for record in records:
            nursery.start_soon(settling.settle, record)
    if owner:
        await settling.end_all_others()
    async with trio.open_nursery() as nursery:
        for model in config.models.values():
            if model.is_elsewhere and model.id not in settling.adopted:
                nursery.start_soon(settling.find, model)
    return settling.adopted


@attrs.define(eq=False)
class _Settling:
    """Settles all records.

    Attributes:
        config: the configuration of this daemon.
        contact: the ways to model servers.
        here: the place where processes are ended.
        adopted: the servers that may be taken over, by model.
    """

    config: Config
    contact: Contact
    here: Here
    adopted: dict[str, Record] = attrs.field(factory=dict, init=False)

    async def settle(self, record: Record) -> None:
        """Take a server over, or end it."""
        model = self.config.models.get(record.model)
        if isinstance(record.handle, ElsewhereHandle):
            if model is None or model.is_elsewhere:
                await self._settle_elsewhere(record, record.handle, model)
            else:  # it was the rest of a process
                await self._end_what_it_led_to(record, model)
            return
        if isinstance(record.handle, StepHandle):
            self._settle_step(record, model)
            return
        handle = record.handle
        if not await handle.kin.members():
            await self._end_what_it_led_to(record, model)
            return
        reason = await self._why_not(record, handle, model)
        if reason is None and record.model in self.adopted:
            reason = "another process of its model is taken over"
        if reason is None and model is not None:
            with self._server(handle, model) as server:
                self.adopted[record.model] = await self._as_it_is(record, model, server)
        else:
            ask = self._stop_of(record, model)
            await self._end(record.model, handle, reason or "", ask)

    def _settle_step(self, record: Record, model: Model | None) -> None:
        """Let a step be taken over if that is allowed; its cluster's rounds end all other steps.

        The step is asked for its state only later, so that a slow cluster delays no other model. If
        a model has no question that proves a sleep, its step must have been ready or asleep.
        """
        if model is None or model.holding is None or fingerprint(model) != record.fingerprint:
            return
        state = State(record.state)
        if state in ADOPTABLE or (model.recipe.asleep and state in BETWEEN_SLEEP_AND_WAKE):
            self.adopted[record.model] = record

    async def _as_it_is(self, record: Record, model: Model, server: RunningServer) -> Record:
        """Return the record of a server, which something else may have put to sleep."""
        actions = self._actions(model, server)
        if record.state == State.READY.value and await actions.sleeps_already(HEALTHY_WITHIN):
            return attrs.evolve(record, state=State.ASLEEP.value)
        return record

    def _actions(self, model: Model, server: RunningServer) -> Actions:
        limits = resolve_limits(self.config, model)
        return Actions(model, limits, self.contact, LogRing(), server)

    def _order(self, model: Model) -> Order:
        limits, env = resolve_limits(self.config, model), environment_of(model)
        return Order(model=model, limits=limits, env=env, hear=lambda _: None)

    @contextmanager
    def _server(self, handle: HereHandle, model: Model) -> Iterator[RunningServer]:
        """Have a process of the earlier daemon to ask, without owning it."""
        with recognised(handle.pid, handle.started) as leader:
            child = Child(leader or GONE, NO_OUTPUT, 0, handle.kin)
            yield LocalServer(child, self._order(model), self.contact.probe, self.contact.weigh)

    async def _settle_elsewhere(
        self, record: Record, handle: ElsewhereHandle, model: Model | None
    ) -> None:
        """End the command that is left; the server itself is found by its model, if it is well."""
        command = handle.command
        if command and started_at(command.pid, command.started):
            await end_alone(command.pid, command.started, self._grace_of(model))
        if model and model.check_endpoint == "none" and self._may_be_kept(record, model):
            self.adopted[model.id] = record
            return
        there = model and await Elsewhere(self.contact.probe).find(model)
        if not there and (ask := self._stop_of(record, model)):
            await ask()  # it may be there, and not answer yet

    def _may_be_kept(self, record: Record, model: Model) -> bool:
        """Whether a server was let go for this daemon, as far as its record tells."""
        known = fingerprint(model) == record.fingerprint
        return self.config.adopt and known and State(record.state) in ADOPTABLE

    async def find(self, model: Model) -> None:
        """Take a server that lives without llamadoze, if it is there: awake or asleep, as it is."""
        if not await Elsewhere(self.contact.probe).find(model):
            return
        record = Record(
            model=model.id,
            handle=ElsewhereHandle(),
            port=model.port,
            state=State.READY.value,
            fingerprint=fingerprint(model),
            logs=True,
        )
        server = ServerElsewhere(
            self._order(model), self.contact.probe, self.contact.weigh, was_there=True
        )
        self.adopted[model.id] = await self._as_it_is(record, model, server)

    async def _end_what_it_led_to(self, record: Record, model: Model | None) -> None:
        """Stop a server that outlives its command, as a container does; it may not answer yet."""
        if model is None or not is_outside(model):
            return
        if ask := self._stop_of(record, model):
            await ask()
        if await Elsewhere(self.contact.probe).find(model):
            log.warning(
                f"<{model.id}> A server that an earlier llamadoze has started still answers at "
                f"{shown_address(model)}",
                model=model.id,
            )
            left = attrs.evolve(record, handle=ElsewhereHandle(), state=State.STOPPING.value)
            self.adopted[record.model] = left

    async def _why_not(self, record: Record, handle: HereHandle, model: Model | None) -> str | None:
        """Return why a process cannot be taken over, or None."""
        if not self.config.adopt:
            return "adopt is not on"
        if model is None:
            return "its model is not in the configuration any more"
        if fingerprint(model) != record.fingerprint:
            return "its model's configuration has changed"
        if State(record.state) not in ADOPTABLE:
            return f"it was {record.state} when its daemon ended"
        if not record.logs:
            return "it was started without adopt, and its output went to its daemon"
        if not started_at(handle.pid, handle.started):
            return "its first process has ended"
        if record.state == State.READY.value:
            return await self._unhealthy(model)
        return await self._not_asleep(handle, model)

    async def _not_asleep(self, handle: HereHandle, model: Model) -> str | None:
        """Ask what proves a sleep; something else may have woken the process."""
        with self._server(handle, model) as server:
            actions = self._actions(model, server)
            return await actions.prove_asleep(trio.current_time() + HEALTHY_WITHIN)

    async def _unhealthy(self, model: Model) -> str | None:
        check = ReadyCheck(self.contact.probe, model)
        with trio.move_on_after(HEALTHY_WITHIN) as scope:
            await check.passed()
        if scope.cancelled_caught:
            return f"it does not answer its check: {check.last_answer}"
        return None

    def _stop_of(self, record: Record, model: Model | None) -> Callable[[], Awaitable[None]] | None:
        """Return the model's stop command, if it is meant for this process."""
        if model is None or fingerprint(model) != record.fingerprint:
            return None
        pid = record.handle.pid if isinstance(record.handle, HereHandle) else None
        return self._stop(model, pid)

    def _stop(self, model: Model, pid: int | None) -> Callable[[], Awaitable[None]] | None:
        limits = resolve_limits(self.config, model)
        command = stop_command(model, limits, pid)
        if command is None:
            return None
        argv, limit = command.argv, command.limit
        run = partial(run_command, argv, env=environment_of(model), on_output=lambda _: None)

        async def ask() -> None:
            with trio.move_on_after(limit):
                await run()

        return ask

    async def end_all_others(self) -> None:
        """End every process with a token of the earlier daemon that is not taken over."""
        kept = {
            one.handle.token for one in self.adopted.values() if isinstance(one.handle, HereHandle)
        }
        found = owned_by(self.here.owner, await table_now()) - kept
        names = {name_in_tokens(name): name for name in self.config.models}
        async with trio.open_nursery() as nursery:
            for token in found:
                name = names.get(token.split(".")[1], "")
                ask = self._stop(self.config.models[name], None) if name else None
                handle = HereHandle(0, 0, token)
                reason = "its state file does not name it"
                nursery.start_soon(self._end, name or "(unknown)", handle, reason, ask)

    def _keep_out(self, name: str, handle: HereHandle) -> None:
        """Make a model wait for what could not be ended."""
        if model := self.config.models.get(name):
            self.adopted.setdefault(
                name,
                Record(
                    model=name,
                    handle=handle,
                    port=model.port,
                    state=State.STOPPING.value,
                    fingerprint=fingerprint(model),
                    logs=False,
                ),
            )

    def _grace_of(self, model: Model | None) -> float:
        return resolve_limits(self.config, model).unload if model else Limits().unload

    async def _end(
        self,
        name: str,
        handle: HereHandle,
        reason: str,
        ask: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """End a process with its kin, and log it."""
        grace = self._grace_of(self.config.models.get(name))
        what = f"process {handle.pid}" if handle.pid else "processes"
        facts = {"model": name, "pid": handle.pid or None, "reason": reason}
        log.warning(f"<{name}> Ending the {what} of an earlier llamadoze: {reason}", **facts)
        try:
            ended = await self.here.end(handle, grace, ask)
        except trio.Cancelled:
            text = f"<{name}> The {what} may not have ended yet; the next llamadoze tries again"
            log.warning(text, **facts)
            raise
        if ended.left:
            log.error(f"<{name}> {Left(ended.left)} could not be ended: {STUCK}", **facts)
            self._keep_out(name, HereHandle.of(ended.kin))
        elif ended.was_killed:
            what = what.capitalize()
            log.warning(f"<{name}> {what} did not end within {seconds(grace)}; killed", **facts)
