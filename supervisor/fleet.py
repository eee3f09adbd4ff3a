"""All model servers: those of the configuration, and removed ones that have not ended yet.

Owns the nursery of all model processes, the way from one configuration to the next, and the records
for the next daemon. Who runs when is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from configschema import Config, Limits, resolve_limits
from supervisor.clusters.keepers import Clusters
from supervisor.model.server import ModelServer
from supervisor.places.choosing import Places
from supervisor.places.handles import StepHandle
from supervisor.scheduling.apart import Rooms
from supervisor.sleep.contact import Contact
from supervisor.states.causes import Why
from supervisor.states.journal import SILENT, Journal
from supervisor.states.table import ENDED, State
from supervisor.succession.changes import Changes, changes
from supervisor.succession.knowledge import Knowledge
from supervisor.succession.records import Record, Records
from supervisor.upkeep.neighbours import Neighbours

TOGETHER = 0.005  # seconds in which changes are collected before they are written


@attrs.define(eq=False)
class Fleet:
    """The model servers.

    Attributes:
        config: the configuration in effect.
        contact: the ways to model servers.
        limits: by model id, in place of the limits in the configuration.
        nursery: runs every model process.
        places: where model servers run.
        records: the records for the next daemon; None writes none.
        inherited: processes of an earlier daemon, by model.
        journal: told what happens to the models.
        knowledge: what was learned of models before.
        on_change: called with a model server after every change of its state.
        on_failure: called with a model's id and the reason when it fails while it is wanted.
        on_crash: called with a model's id when it has died and is to be started again.
        servers: by id; the server of a removed model stays until its process has ended.
        rooms: the memory that they hold, and its keepers.
        clusters: the clusters in which jobs may be held for them.
    """

    config: Config
    contact: Contact
    limits: Mapping[str, Limits]
    nursery: trio.Nursery
    places: Places
    records: Records | None = None
    inherited: dict[str, Record] = attrs.field(factory=dict)
    journal: Journal = SILENT
    knowledge: Knowledge = attrs.field(factory=Knowledge)
    on_change: Callable[[ModelServer], None] = lambda _: None
    on_failure: Callable[[str, str], None] = lambda _, __: None
    on_crash: Callable[[str], None] = lambda _: None
    servers: dict[str, ModelServer] = attrs.field(factory=dict, init=False)
    rooms: Rooms = attrs.field(init=False)
    clusters: Clusters | None = attrs.field(default=None, init=False)
    _handles: dict[str, object] = attrs.field(factory=dict, init=False)
    _to_note: set[str] = attrs.field(factory=set, init=False)
    _noting: trio.Event = attrs.field(factory=trio.Event, init=False)

    @rooms.default
    def _new_rooms(self) -> Rooms:
        return Rooms(self.servers, self.config)

    def open(self) -> None:
        """Begin to own the models of the configuration."""
        if self.records is not None:
            for record in self.inherited.values():
                self.records.keep(record)
        self._open_clusters()
        for name in self.config.models:
            self._add(name)

    def _open_clusters(self) -> None:
        if self.clusters is None:
            return
        found = self.records.found if self.records else ()
        may_be_left = any(isinstance(one.handle, StepHandle) for one in found)
        self.clusters.change(self.config, may_be_left=may_be_left)
        for name, record in self.inherited.items():
            model, handle = self.config.models.get(name), record.handle
            if model and model.holding and isinstance(handle, StepHandle):
                self.clusters.expect(model.holding, name, handle.job, handle.token)

    def leave(self, name: str, why: str) -> None:
        """End a model's server after its requests, since its place ends, and start it anew."""
        server = self.servers.get(name)
        if server is not None and not server.is_replaced:
            server.change(server.model.as_written, server.limits, why, Why.ALLOCATION)

    def change(self, config: Config) -> Changes:
        """Put another configuration into effect; running requests are not cut off.

        Models that need no other process keep theirs. Models that need one are drained and end.
        Removed models are drained and end, too, and are forgotten then.
        """
        found = changes(self.config, config)
        self.config = config
        if self.clusters is not None:
            self.clusters.change(config)
        for name in found.removed:
            self.servers[name].retire("it is not in the configuration any more")
            self.nursery.start_soon(self._forget, self.servers[name])
        for name in found.added:
            self._add(name)
        for name in found.adjusted + found.replaced:
            server, limits = self.servers[name], self._limits_of(name)
            reason = "its configuration has changed" if name in found.replaced else None
            server.change(config.models[name], limits, reason)
        for name in config.models:
            self.servers[name].forgive()
            self.servers[name].log_file = self._log_file(name)  # from its next process on
        return found

    def let_go(self) -> int:
        """Let processes live on when this ends, if `adopt` is on; return how many can."""
        if not self.config.adopt:
            return 0
        # If it cannot be noted, the next daemon would not know it.
        return sum(server.let_go() for name, server in self.servers.items() if self.note(name))

    def cut(self) -> None:
        """End every model process without its grace."""
        for server in self.servers.values():
            server.cut()

    def _add(self, name: str) -> None:
        """Begin to own a model; it may still be ending since an earlier configuration."""
        model, limits = self.config.models[name], self._limits_of(name)
        if name in self.servers:
            self.servers[name].change(model, limits, "it is in the configuration again")
            return
        record = self.inherited.pop(name, None)
        inherited = (record.handle, State(record.state)) if record else None
        server = ModelServer(
            *(model, limits, self.contact, self.places, self._log_file(name)),
            *(inherited, self.journal, Neighbours(name, self)),
        )
        server.output.on_write = partial(self.journal.wrote, name)
        server.recall(self.knowledge.recall(model))
        self.servers[name] = server
        self.nursery.start_soon(server.run)

    async def _forget(self, server: ModelServer) -> None:
        """Forget a removed model when its process is gone, unless the model is back."""
        name = server.model.id
        await server.reached(ENDED)
        if name not in self.config.models and self.servers.get(name) is server:
            del self.servers[name]
            server.dismiss()

    def _limits_of(self, name: str) -> Limits:
        return self.limits.get(name) or resolve_limits(self.config, self.config.models[name])

    def _log_file(self, name: str) -> Path | None:
        """Return the file that a server writes to if it may outlive the daemon."""
        model = self.config.models.get(name)
        is_outside = model is not None and (model.is_elsewhere or model.holding is not None)
        lives_on = self.config.adopt or is_outside
        return self.records.log_file(name) if self.records and lives_on else None

    def note_soon(self, name: str) -> None:
        """Write a record of a change: of another process at once, of other changes a moment later.

        A process must be known if the daemon dies. Later states are written together, a moment
        later, so that the steps that follow from a change, such as the start of a command, go
        first.
        """
        handle = self.servers[name].at.handle
        if handle is None or self._handles.get(name) is not handle:
            self._handles[name] = handle
            self.note(name)
        else:
            self._to_note.add(name)
            self._noting.set()

    async def run(self) -> None:
        """Write down what has changed, for as long as the daemon runs."""
        while True:
            await self._noting.wait()
            await trio.sleep(TOGETHER)  # the steps that follow from the change go first
            self._noting = trio.Event()
            for name in sorted(self._to_note & self.servers.keys()):
                self.note(name)
            self._to_note.clear()

    def note(self, name: str) -> bool:
        """Write a server's record for the next daemon; return whether that worked."""
        server = self.servers[name]
        self.knowledge.keep(server.model, server.learned)
        if self.records is None:
            return False
        return self.records.note(server.model, server.snapshot(), logs=server.logs)
