"""All model servers there are: those of the configuration, and those still leaving it.

Owns the nursery that every model process lives in, the way from one configuration to the next, and
the word that is left to the next daemon. Who runs when is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from configschema import Config, Limits, resolve_limits
from supervisor.changes import Changes, changes
from supervisor.model.server import ModelServer
from supervisor.neighbours import Neighbours
from supervisor.places.choosing import Places
from supervisor.sleep.contact import Contact
from supervisor.states.journal import SILENT, Journal
from supervisor.states.table import ENDED, State
from supervisor.succession.records import Record, Records


@attrs.define(eq=False)
class Fleet:
    """The model servers.

    Attributes:
        config: the one in effect.
        contact: the ways to model servers.
        limits: per model id, instead of what the configuration resolves to.
        nursery: every model process lives in it.
        places: where model servers run.
        records: what the next daemon is left; None leaves nothing.
        inherited: processes of an earlier daemon, by model.
        journal: told what happens to the models.
        on_change: called with a model server after every change of its state.
        on_failure: called with a model's id and the reason when it fails while it is wanted.
        on_crash: called with a model's id when it has died and is to be started again.
        servers: by id; one whose model was removed stays until its process has ended.
    """

    config: Config
    contact: Contact
    limits: Mapping[str, Limits]
    nursery: trio.Nursery
    places: Places
    records: Records | None = None
    inherited: dict[str, Record] = attrs.field(factory=dict)
    journal: Journal = SILENT
    on_change: Callable[[ModelServer], None] = lambda _: None
    on_failure: Callable[[str, str], None] = lambda _, __: None
    on_crash: Callable[[str], None] = lambda _: None
    servers: dict[str, ModelServer] = attrs.field(factory=dict, init=False)

    def open(self) -> None:
        """Begin to own the models of the configuration."""
        if self.records is not None:
            for record in self.inherited.values():
                self.records.keep(record)
        for name in self.config.models:
            self._add(name)

    def change(self, config: Config) -> Changes:
        """Put another configuration into effect; requests that run are not cut by it.

        Models that need no other process keep theirs. Those that do are drained and end; so are
        those that are gone, and forgotten then.
        """
        found = changes(self.config, config)
        self.config = config
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
        """Let processes live on when this ends, where that is wanted; return how many can."""
        if not self.config.adopt:
            return 0
        # Or the next daemon would not know it.
        return sum(server.let_go() for name, server in self.servers.items() if self.note(name))

    def cut(self) -> None:
        """End every model process without its grace."""
        for server in self.servers.values():
            server.cut()

    def _add(self, name: str) -> None:
        """Begin to own a model; it may still be leaving since an earlier configuration."""
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
        """Return where a server writes to that may outlive the daemon."""
        model = self.config.models.get(name)
        lives_on = self.config.adopt or (model is not None and model.is_elsewhere)
        return self.records.log_file(name) if self.records and lives_on else None

    def note(self, name: str) -> bool:
        """Leave the next daemon word of a server; return whether that could be done."""
        if self.records is None:
            return False
        server = self.servers[name]
        return self.records.note(server.model, server.snapshot(), logs=server.logs)
