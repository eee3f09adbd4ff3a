"""Puts the supervisor together: its parts, how they know each other, and their nursery.

Owns the composition. `supervisor` has what callers may ask of it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from configschema import Config, Limits
from supervisor.clusters.keepers import open_clusters
from supervisor.fleet import Fleet
from supervisor.model.leases import Leases
from supervisor.model.server import ModelServer
from supervisor.places.choosing import Places
from supervisor.processes.memory import Measure, held_by
from supervisor.processes.programs import programs_now
from supervisor.scheduling.outlook import rules_for
from supervisor.scheduling.scheduler import Scheduler
from supervisor.sleep.contact import Contact
from supervisor.states.causes import Asker, Why
from supervisor.states.journal import SILENT, Journal
from supervisor.states.racing import kept_up
from supervisor.states.table import State
from supervisor.succession.knowledge import Knowledge
from supervisor.succession.records import Record, Records
from supervisor.supervisor import Supervisor
from supervisor.upkeep.revival import revive
from supervisor.upkeep.sleepbudget import BudgetKeeper, budget_for
from supervisor.upkeep.yielding import Yielding

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@asynccontextmanager
async def open_supervisor(
    config: Config,
    contact: Contact,
    limits: Mapping[str, Limits] | None = None,
    measure: Measure = held_by,
    records: Records | None = None,
    inherited: Mapping[str, Record] | None = None,
    journal: Journal = SILENT,
) -> AsyncIterator[Supervisor]:
    """Run the model servers of a configuration for as long as the block lasts.

    Args:
        config: what to run.
        contact: the ways to model servers.
        limits: by model id, in place of the limits in the configuration.
        measure: measures how much host memory a process tree holds.
        records: the records for the next daemon.
        inherited: processes of an earlier daemon, by model; see `leftovers`.
        journal: told what happens to the models.
    """
    knowledge = Knowledge(records.knowledge_file if records else None)
    try:
        async with _opened(
            config, contact, limits, measure, records, inherited, journal, knowledge
        ) as supervisor:
            yield supervisor
    finally:
        knowledge.write()  # something was learned from the models' ends, too


@asynccontextmanager
async def _opened(
    config: Config,
    contact: Contact,
    limits: Mapping[str, Limits] | None,
    measure: Measure,
    records: Records | None,
    inherited: Mapping[str, Record] | None,
    journal: Journal,
    knowledge: Knowledge,
) -> AsyncIterator[Supervisor]:
    owner = records.owner if records else secrets.token_hex(8)
    # Around all models: jobs in a cluster are given back after the models have left them.
    in_clusters = records.owner_in_clusters if records else owner
    async with open_clusters(in_clusters) as clusters, trio.open_nursery() as nursery:
        taken = dict(inherited or {})
        places = Places(owner, contact.probe, contact.weigh, clusters.keeper)
        fleet = Fleet(
            *(config, contact, limits or {}, nursery, places, records, taken, journal, knowledge)
        )
        scheduler = Scheduler(fleet.servers, rules_for(config), fleet.rooms, journal)
        keeper = BudgetKeeper(fleet.servers, budget_for(config), measure)

        def changed(server: ModelServer) -> None:
            fleet.rooms.changed(server)
            scheduler.settle()
            yielding.stir()
            if server.at.state is State.ASLEEP or (
                server.at.state is State.READY and server.model.holding
            ):  # a wake in an allocation takes memory that its sleepers have
                keeper.look()

        leases = Leases(fleet.servers, scheduler.settle)

        def looked() -> None:
            for server in fleet.servers.values():
                knowledge.keep(server.model, server.learned)
            scheduler.settle()

        fleet.rooms.on_look = looked
        supervisor = Supervisor(fleet, scheduler, keeper, leases)
        yielding = Yielding(
            *(fleet.servers, lambda: fleet.config, fleet.rooms.here.seen, supervisor.bring_back),
            programs=programs_now,
        )
        supervisor.on_reload = yielding.stir
        fleet.on_change, fleet.on_failure = changed, scheduler.fail
        fleet.on_crash = lambda name: nursery.start_soon(
            revive, supervisor.servers[name], partial(supervisor.load, asker=Asker(why=Why.REVIVAL))
        )
        clusters.keeper.on_leave = fleet.leave
        fleet.clusters = clusters
        fleet.open()
        for keeps in (scheduler, fleet, keeper, fleet.rooms, knowledge, leases, yielding):
            nursery.start_soon(kept_up, keeps.run)
        try:
            yield supervisor
        finally:
            nursery.cancel_scope.cancel()
