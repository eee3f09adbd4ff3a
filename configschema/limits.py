"""The numbers that hold for one model, after "model, else global, else default" is settled.

Owns the order of resolution. Who applies a limit is the supervisor's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from configschema.recipe import Call, Step
from configschema.schema import Config, Model

DEFAULT_SLEEP_TIMEOUT = 60
DEFAULT_WAKE_TIMEOUT = 60
DEFAULT_CONCURRENCY = 10
SHORTEST_READY_TIMEOUT = 15  # llama-swap raises anything below to this
DEFAULT_UNLOAD_TIMEOUT = 10
# llama-swap gives this model more: its page opens many requests at once.
COMFY_UI, COMFY_UI_CONCURRENCY = "comfyui_auto", 50


@attrs.frozen(kw_only=True)
class Limits:
    """What one model may take.

    Attributes:
        ready: seconds from a start (or from the end of a wake) until the model answers its check.
        sleep: seconds all steps into sleep may take.
        wake: seconds all steps out of it may take.
        sleep_call: seconds one HTTP step into sleep may take that has no limit of its own.
        wake_call: the same for waking.
        drain: seconds the model's requests may delay what was asked for, or others' turn; 0 is no
            limit.
        unload: seconds between the request to stop and SIGKILL.
        sleep_ttl: idle seconds until the model sleeps; 0 is never.
        stop_ttl: idle seconds until the model stops, asleep or not; 0 is never.
        concurrency: requests, running and waiting, that are admitted at once.
    """

    ready: float = 120
    sleep: float = DEFAULT_SLEEP_TIMEOUT
    wake: float = DEFAULT_WAKE_TIMEOUT
    sleep_call: float = DEFAULT_SLEEP_TIMEOUT
    wake_call: float = DEFAULT_WAKE_TIMEOUT
    drain: float = 0
    unload: float = DEFAULT_UNLOAD_TIMEOUT
    sleep_ttl: float = 0
    stop_ttl: float = 0
    concurrency: int = DEFAULT_CONCURRENCY


def resolve_limits(config: Config, model: Model) -> Limits:
    """Settle each limit: the model's own, else the global one, else the default."""
    sleep = _first(model.cmd_sleep_timeout, config.cmd_sleep_timeout, DEFAULT_SLEEP_TIMEOUT)
    wake = _first(model.cmd_wake_timeout, config.cmd_wake_timeout, DEFAULT_WAKE_TIMEOUT)
    sleep_call = _first(config.sleep_request_timeout, sleep)
    wake_call = _first(config.wake_request_timeout, wake)
    ready = max(config.health_check_timeout, SHORTEST_READY_TIMEOUT)
    sleep_ttl, stop_ttl = _ttls(config, model)
    return Limits(
        ready=_first(model.ready_timeout, ready),
        sleep=_whole(model.recipe.sleep, sleep, sleep_call),
        wake=_whole(model.recipe.wake, wake, wake_call),
        sleep_call=sleep_call,
        wake_call=wake_call,
        drain=_first(model.drain_timeout, config.drain_timeout),
        unload=model.unload_timeout or config.unload_timeout or DEFAULT_UNLOAD_TIMEOUT,
        sleep_ttl=sleep_ttl,
        stop_ttl=stop_ttl,
        concurrency=_concurrency(model),
    )


def _ttls(config: Config, model: Model) -> tuple[int, int]:
    """Return the idle seconds until sleep and until the end of the process."""
    ttl = config.global_ttl if model.ttl == -1 else model.ttl
    if not model.recipe:
        return 0, ttl
    if model.sleep_ttl is not None:
        return model.sleep_ttl, ttl
    return (ttl, 0) if model.recipe.sleeps_at_ttl else (0, ttl)


def _whole(steps: Sequence[Step], of_commands: int, of_a_call: int) -> int:
    """Return the limit of all steps: HTTP steps have theirs each, a command has the whole."""
    calls = [step for step in steps if isinstance(step, Call)]
    return sum(_first(step.limit, of_a_call) for step in calls) if calls else of_commands


def _concurrency(model: Model) -> int:
    given = model.concurrency_limit if model.concurrency_limit > 0 else DEFAULT_CONCURRENCY
    return max(given, COMFY_UI_CONCURRENCY) if model.id == COMFY_UI else given


def _first(*candidates: int | None) -> int:
    return next((number for number in candidates if number is not None), 0)
