"""What becomes of the processes of an earlier daemon: taken over, or ended before anything starts.

Owns the proof that a process is what its record says and still well. Nothing here may leave an
orphan on the memory that others need.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog
import trio

from configschema import Config, Limits, Model, resolve_limits
from supervisor.processes.commands import run_command
from supervisor.processes.groups import end_group
from supervisor.sleep.actions import environment_of
from supervisor.sleep.contact import Contact
from supervisor.sleep.readiness import ReadyCheck
from supervisor.sleep.steps import StepLimits, Steps
from supervisor.states.durations import seconds
from supervisor.states.table import State
from supervisor.succession.adopted import is_left_over, started_at
from supervisor.succession.records import Record, fingerprint

HEALTHY_WITHIN = 5.0  # seconds for a process to prove that it is ready, or asleep, as it was
ADOPTABLE = frozenset({State.READY, State.ASLEEP})

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


async def settle_leftovers(
    records: Iterable[Record], config: Config, contact: Contact
) -> dict[str, Record]:
    """Return those processes that may be taken over, by model; when that is done, no other lives.

    Args:
        records: of the earlier daemon.
        config: of this one; `adopt` says whether anything is taken over.
        contact: the ways to model servers.
    """
    adopted: dict[str, Record] = {}

    async def settle(record: Record) -> None:
        if not is_left_over(record.pid, record.started):
            return
        reason = await _why_not(record, config, contact)
        if reason is None and record.model in adopted:
            reason = "another process of its model is taken over"
        if reason is None:
            adopted[record.model] = record
        else:
            await _end(record, config, reason)

    async with trio.open_nursery() as nursery:
        for record in records:
            nursery.start_soon(settle, record)
    return adopted


async def _why_not(record: Record, config: Config, contact: Contact) -> str | None:
    """Return why a process cannot be taken over, or None."""
    model = config.models.get(record.model)
    if not config.adopt:
        return "adopt is not on"
    if model is None:
        return "its model is not in the configuration any more"
    if fingerprint(model) != record.fingerprint:
        return "its model's configuration has changed"
    if State(record.state) not in ADOPTABLE:
        return f"it was {record.state} when its daemon ended"
    if not record.logs:
        return "it was started without adopt, and its output went to its daemon"
    if not started_at(record.pid, record.started):
        return "its first process has ended"
    if record.state == State.READY.value:
        return await _unhealthy(model, contact)
    return await _not_asleep(record, model, contact)


async def _not_asleep(record: Record, model: Model, contact: Contact) -> str | None:
    """Ask what proves a sleep; the process may have been woken by somebody else."""
    limits = StepLimits(whole=HEALTHY_WITHIN, call=HEALTHY_WITHIN, run=HEALTHY_WITHIN)
    steps = Steps(model.id, record.pid, contact.call, environment_of(model), lambda _: None)
    return await steps.take(model.recipe.asleep, limits)


async def _unhealthy(model: Model, contact: Contact) -> str | None:
    check = ReadyCheck(contact.probe, model)
    with trio.move_on_after(HEALTHY_WITHIN) as scope:
        await check.passed()
    if scope.cancelled_caught:
        return f"it does not answer its check: {check.last_answer}"
    return None


def _stop_command(record: Record, model: Model | None) -> Callable[[], Awaitable[object]] | None:
    """Return the model's cmdStop, if it is meant for this process."""
    if model is None or not model.cmd_stop or fingerprint(model) != record.fingerprint:
        return None
    argv = model.cmd_stop.for_process(record.pid)
    return partial(run_command, argv, env=environment_of(model), on_output=lambda _: None)


async def _end(record: Record, config: Config, reason: str) -> None:
    model = config.models.get(record.model)
    grace = resolve_limits(config, model).unload if model else Limits().unload
    facts = {"model": record.model, "pid": record.pid, "reason": reason}
    log.warning(
        f"<{record.model}> Ending the process {record.pid} of an earlier llamadoze: {reason}",
        **facts,
    )
    if await end_group(record.pid, grace, _stop_command(record, model)):
        log.warning(
            f"<{record.model}> Process {record.pid} did not end within {seconds(grace)} "
            "and was killed",
            **facts,
        )
