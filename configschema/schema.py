"""The configuration as frozen facts: one class per section, one field per key.

Owns names, types and defaults. A field ``some_name`` is the key ``someName``. What a key's number
may be is said by its type, which `structuring` checks; rules across keys are in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NewType

import attrs

from configschema.commandline import Command

Timeout = NewType("Timeout", int)
"""Whole seconds, at least 1."""
Seconds = NewType("Seconds", int)
"""Whole seconds, at least 0."""
Ttl = NewType("Ttl", int)
"""Whole seconds; 0 is never, -1 is the global value."""
Port = NewType("Port", int)
"""1 to 65535."""
Count = NewType("Count", int)
"""A whole number, at least 0."""
MacroValue = str | int | float | bool

NO_COMMAND = Command()
DEFAULT_PROXY = "http://localhost:${PORT}"
DEFAULT_START_PORT = Port(5800)
GLOBAL_TTL = Ttl(-1)
DEFAULT_SLEEP_TIMEOUT = 60
DEFAULT_WAKE_TIMEOUT = 60
DEFAULT_CONCURRENCY = 10


@attrs.frozen(kw_only=True)
class Model:
    """One entry of ``models``. Defaults and meanings are llama-swap's where it has the key."""

    id: str = attrs.field(metadata={"not_a_key": True})
    port: int | None = attrs.field(default=None, metadata={"not_a_key": True})
    """The port that stands for ``${PORT}``; None if ``cmd`` does not use one."""
    cmd: Command = NO_COMMAND
    cmd_stop: Command = NO_COMMAND
    cmd_sleep: Command = NO_COMMAND
    cmd_wake: Command = NO_COMMAND
    cmd_sleep_timeout: Timeout | None = None
    cmd_wake_timeout: Timeout | None = None
    proxy: str = DEFAULT_PROXY
    check_endpoint: str = "/health"
    ttl: Ttl = GLOBAL_TTL
    unload_timeout: Seconds = Seconds(0)
    aliases: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    unlisted: bool = False
    use_model_name: str = ""
    concurrency_limit: Count = Count(0)
    macros: Mapping[str, MacroValue] = attrs.field(factory=dict)

    @property
    def can_sleep(self) -> bool:
        """Whether the model is put to sleep, rather than stopped, to make room."""
        return bool(self.cmd_sleep and self.cmd_wake)


@attrs.frozen(kw_only=True)
class Config:
    """The whole file."""

    health_check_timeout: Seconds = Seconds(120)
    cmd_sleep_timeout: Timeout | None = None
    cmd_wake_timeout: Timeout | None = None
    start_port: Port = DEFAULT_START_PORT
    log_level: str = "info"
    global_ttl: Seconds = attrs.field(default=Seconds(0), metadata={"key": "globalTTL"})
    unload_timeout: Seconds = Seconds(0)
    macros: Mapping[str, MacroValue] = attrs.field(factory=dict)
    models: Mapping[str, Model] = attrs.field(factory=dict)

    def find(self, name: str) -> Model | None:
        """Return the model with this id or, failing that, this alias."""
        if name in self.models:
            return self.models[name]
        return next((model for model in self.models.values() if name in model.aliases), None)


def key_of(attribute: attrs.Attribute[object]) -> str:
    """Return the key an operator writes for a field."""
    head, *rest = attribute.name.split("_")
    return str(attribute.metadata.get("key", head + "".join(part.title() for part in rest)))


def keys_of(cls: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    """Return all keys an operator may write in a section."""
    return tuple(key_of(a) for a in attrs.fields(cls) if not a.metadata.get("not_a_key"))
