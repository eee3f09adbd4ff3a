"""Jobs of a cluster as a place for model servers: wait for an allocation, then start a step.

Owns the way from a model to its step, and what happens if that ends half way. `stepserver` is the
step while it runs. The keeper holds the allocation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from configschema import Holding, Model
from supervisor.clusters import slurm
from supervisor.clusters.keeper import Keeper, NoAllocation
from supervisor.clusters.launching import (
    LOOPBACK,
    Report,
    ReportReader,
    launch_command,
    launch_environment,
    new_key,
    without_gpus_of_others,
)
from supervisor.clusters.slurm import Job, NotAnswered
from supervisor.places.handles import Handle, StepHandle
from supervisor.places.here import new_token
from supervisor.places.running import CannotRun, NotWanted, Order, PlaceLost, RunningServer
from supervisor.places.stepserver import LONGEST_ABSENCE, StepServer
from supervisor.processes.child import CannotStart, Child, open_child
from supervisor.processes.commands import describe_exit
from supervisor.processes.output import LogFile
from supervisor.states.durations import seconds
from supervisor.states.racing import race

LONGEST_LAUNCH = 60.0  # seconds for a step to begin in a running job
AFTER_ITS_END = 0.5  # seconds to read the last output of srun
LAST_WORDS = 2.0  # seconds for srun to end after its step


@attrs.frozen
class InCluster:
    """The clusters of a configuration.

    Attributes:
        keeper: the keeper of their allocations.
    """

    keeper: Keeper

    async def fitted(self, model: Model, taken: Callable[[], set[int]]) -> Model:
        """Leave the model as it is: its port is found on its node."""
        await trio.lowlevel.checkpoint()
        return model

    async def obstacle(self, model: Model) -> str | None:
        """Return what is missing, or None."""
        await trio.lowlevel.checkpoint()
        return None if model.cmd else "cmd is empty"

    async def find(self, model: Model) -> Handle | None:
        """Find nothing: each server in a cluster has a daemon that started it."""
        await trio.lowlevel.checkpoint()
        return None

    def _of(self, model: Model) -> tuple[Holding, Keeper]:
        if model.holding is None:
            raise CannotRun("its cluster is not in the configuration any more")
        return self.keeper.claim(model.holding).holding, self.keeper  # as configured now

    @asynccontextmanager
    async def start(self, order: Order) -> AsyncIterator[RunningServer]:
        """Wait for the allocation, and start a step in it."""
        holding, keeper = self._of(order.model)
        held = keeper.held(holding, order.model.id, order.waits, order.unwanted)
        try:
            async with (
                held as job,
                _named(keeper, new_token(keeper.owner, order.model.id)) as token,
            ):
                order.begins()
                async with _launched(order, holding, keeper, job, token) as server:
                    yield server
        except NoAllocation as error:
            raise CannotRun(str(error)) if str(error) else NotWanted from error

    @asynccontextmanager
    async def take_over(self, order: Order, handle: Handle) -> AsyncIterator[RunningServer]:
        """Own a step that an earlier daemon has started."""
        if not isinstance(handle, StepHandle):
            raise CannotRun("the server of the earlier llamadoze does not run in a cluster")
        holding, keeper = self._of(order.model)
        is_there = False
        async with (
            keeper.taken_over(holding, order.model.id, handle.job),
            _named(keeper, handle.token),
            _followed(order),
        ):
            server = StepServer(order, handle, holding, keeper)
            async with _watched(server):
                with trio.move_on_after(LONGEST_ABSENCE):
                    await race(server.control.has_been_reached.wait, server.exited)
                is_there = server.control.has_been_reached.is_set() and not server.has_ended
                if is_there:
                    yield server
        if server.has_ended and not is_there:
            raise NotWanted  # it has ended with its daemon
        if not is_there:
            raise CannotRun(f"step {handle.step} of the earlier llamadoze cannot be reached")


@asynccontextmanager
async def _named(keeper: Keeper, token: str) -> AsyncIterator[str]:
    """Give a step an owner for as long as the block lasts."""
    keeper.tokens.add(token)
    try:
        yield token
    finally:
        keeper.tokens.discard(token)


@asynccontextmanager
async def _followed(order: Order) -> AsyncIterator[None]:
    """Pass on what srun writes to a file, if it lives."""
    if order.log_file is None:
        yield
        return
    output = LogFile(order.log_file)
    async with trio.open_nursery() as nursery:
        reader = ReportReader(order.hear)
        nursery.start_soon(output.follow, reader.write)
        try:
            yield
        finally:
            await output.aclose()


@asynccontextmanager
async def _watched(server: StepServer) -> AsyncIterator[None]:
    """Stay in touch with a server; leaving the block ends it, or lets it go."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.watch)
        try:
            yield
        finally:
            if not server.is_let_go:
                # Shielded: the server must be gone before its owner is. Its grace bounds this.
                with trio.CancelScope(shield=True):
                    await server.finish()
            server.leave()


@asynccontextmanager
async def _launched(
    order: Order, holding: Holding, keeper: Keeper, job: Job, token: str
) -> AsyncIterator[RunningServer]:
    """Start a step with its launcher; leaving the block ends both, or lets them go."""
    key, reader, failure = new_key(), ReportReader(order.hear), ""
    seen = keeper.claim(holding).gpus.get(job.id, frozenset())
    env = without_gpus_of_others(order.env, seen)
    process = open_child(
        launch_command(holding, job, token),
        env=launch_environment(env, order.model, holding, key, order.limits.unload),
        on_output=reader.write,
        grace=LAST_WORDS,
        log_file=order.log_file,
    )
    server: StepServer | None = None
    try:
        async with process as srun:
            try:
                found = await _report(reader, srun, order)
                if isinstance(found, str):
                    failure = found
                else:
                    handle = await _handle(found, holding, keeper, token, key)
                    server = StepServer(order, handle, holding, keeper, srun)
                    async with _watched(server):
                        yield server
            except NotAnswered as error:
                failure = f"the address of its node is not known: {error}"
            finally:
                if server is None:
                    # Shielded: the step may have begun anyway. Slurm's answers bound this.
                    with trio.CancelScope(shield=True):
                        await _end_by_name(token)
    except CannotStart as error:
        raise CannotRun(f"srun cannot be started: {error}") from error
    if failure and not await keeper.has(holding, job.id):
        raise PlaceLost(f"job {job.id} ended before its step began")
    if failure:
        raise CannotRun(failure)


async def _report(reader: ReportReader, srun: Child, order: Order) -> Report | str:
    """Return the launcher's report; if there is none, the reason."""
    status: list[int | None] = []

    async def ended() -> None:
        status.append(await srun.exited())
        await trio.sleep(AFTER_ITS_END)  # its last output may not be read yet

    async def in_file() -> None:
        if order.log_file is None:
            await trio.sleep_forever()
        else:
            await reader.find_in(order.log_file)

    with trio.move_on_after(LONGEST_LAUNCH):
        await race(reader.there.wait, in_file, ended)
        if reader.report and not reader.report.failure:
            return reader.report
        if reader.report:
            return reader.report.failure
        return f"its step was not started: srun {describe_exit(status[0])}"
    return f"its step was not started within {seconds(LONGEST_LAUNCH)}"


async def _handle(
    report: Report, holding: Holding, keeper: Keeper, token: str, key: str
) -> StepHandle:
    return StepHandle(
        cluster=holding.cluster,
        job=report.job,
        step=f"{report.job}.{report.step}",
        token=token,
        node=report.node,
        host=LOOPBACK,
        port=report.port,
        address=await slurm.address_of(report.node),
        entrance=report.entrance,
        key=key,
    )


async def _end_by_name(token: str) -> None:
    """End a step that is known only by name; the next look for orphaned steps finds the rest."""
    try:
        found = [one.id for one in await slurm.steps() if one.name == token]
        await slurm.cancel(found, "KILL")
    except NotAnswered:
        return
