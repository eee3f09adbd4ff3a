"""The numbers that hold for one model, after "model, else global, else default" is settled.

Owns the order of resolution. Who applies a limit is the supervisor's business.
"""

from __future__ import annotations

import attrs

from configschema.schema import (
    DEFAULT_CONCURRENCY,
    DEFAULT_SLEEP_TIMEOUT,
    DEFAULT_WAKE_TIMEOUT,
    Config,
    Model,
)

SHORTEST_READY_TIMEOUT = 15  # llama-swap raises anything below to this
DEFAULT_UNLOAD_TIMEOUT = 10


@attrs.frozen(kw_only=True)
class Limits:
    """What one model may take.

    Attributes:
        ready: seconds from a start (or from the end of a wake) until the model answers its check.
        sleep: seconds ``cmdSleep`` may run.
        wake: seconds ``cmdWake`` may run.
        unload: seconds between the request to stop and SIGKILL.
        ttl: idle seconds until the model sleeps or stops; 0 is never.
        concurrency: requests, running and waiting, that are admitted at once.
    """

    ready: float = 120
    sleep: float = DEFAULT_SLEEP_TIMEOUT
    wake: float = DEFAULT_WAKE_TIMEOUT
    unload: float = DEFAULT_UNLOAD_TIMEOUT
    ttl: float = 0
    concurrency: int = DEFAULT_CONCURRENCY


def resolve_limits(config: Config, model: Model) -> Limits:
    """Settle each limit: the model's own, else the global one, else the default."""
    return Limits(
        ready=max(config.health_check_timeout, SHORTEST_READY_TIMEOUT),
        sleep=_first(model.cmd_sleep_timeout, config.cmd_sleep_timeout, DEFAULT_SLEEP_TIMEOUT),
        wake=_first(model.cmd_wake_timeout, config.cmd_wake_timeout, DEFAULT_WAKE_TIMEOUT),
        unload=model.unload_timeout or config.unload_timeout or DEFAULT_UNLOAD_TIMEOUT,
        ttl=config.global_ttl if model.ttl == -1 else model.ttl,
        concurrency=model.concurrency_limit or DEFAULT_CONCURRENCY,
    )


def _first(own: int | None, everyones: int | None, default: int) -> int:
    if own is not None:
        return own
    return default if everyones is None else everyones
