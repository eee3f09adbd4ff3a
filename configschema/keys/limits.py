"""The limits of one model: the model's own, else the global ones, else the defaults.

Owns the order in which they are resolved. The supervisor applies the limits.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from configschema.keys.presets import PRESETS
from configschema.keys.recipe import Call, Step
from configschema.keys.schema import Config, Model

DEFAULT_SLEEP_TIMEOUT = 60
DEFAULT_WAKE_TIMEOUT = 60
DEFAULT_CONCURRENCY = 10
DEFAULT_READY_TIMEOUT = 120
SHORTEST_READY_TIMEOUT = 15  # llama-swap raises anything below to this
DEFAULT_UNLOAD_TIMEOUT = 10
# llama-swap gives this model a higher limit, because its page sends many requests at once.
COMFY_UI, COMFY_UI_CONCURRENCY = "comfyui_auto", 50


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of one model.

    Attributes:
        ready: seconds from a start until the model answers its check.
        sleep: seconds for all steps into sleep and their proof.
        wake: seconds for all steps of a wake, its check, and its questions.
        sleep_call: seconds for one HTTP step into sleep that has no limit of its own.
        wake_call: the same for a wake.
        check: seconds until a question that proves a sleep or a wake must be answered correctly, if
            it has no limit of its own, and until the memory must be free.
        canary: seconds until the token after a wake must arrive.
        sleep_failures: sleeps and wakes that may fail in a row before the model no longer sleeps; 0
            is no limit.
        backoff: the longest wait in seconds before the next start of a model that keeps failing.
        drain: seconds for which the model's requests may delay an operator's command or another
            model's turn; 0 is no limit.
        unload: seconds from the request to stop until SIGKILL.
        stop: seconds for which ``cmdStop`` may run.
        sleep_ttl: idle seconds until the model sleeps; 0 is never.
        stop_ttl: idle seconds until the model stops, asleep or not; 0 is never.
        concurrency: requests, in flight and waiting, that are admitted at once.
    """

    ready: float = DEFAULT_READY_TIMEOUT
    sleep: float = DEFAULT_SLEEP_TIMEOUT
    wake: float = DEFAULT_WAKE_TIMEOUT
    sleep_call: float = DEFAULT_SLEEP_TIMEOUT
    wake_call: float = DEFAULT_WAKE_TIMEOUT
    check: float = 10
    canary: float = 60
    sleep_failures: int = 3
    backoff: float = 60
    drain: float = 0
    unload: float = DEFAULT_UNLOAD_TIMEOUT
    stop: float = DEFAULT_READY_TIMEOUT
    sleep_ttl: float = 0
    stop_ttl: float = 0
    concurrency: int = DEFAULT_CONCURRENCY


def resolve_limits(config: Config, model: Model) -> Limits:
    """Resolve each limit: the model's own, else the global one, else the default."""
    sleep = _first(model.cmd_sleep_timeout, config.cmd_sleep_timeout, DEFAULT_SLEEP_TIMEOUT)
    wake = _first(model.cmd_wake_timeout, config.cmd_wake_timeout, DEFAULT_WAKE_TIMEOUT)
    unload = model.unload_timeout or config.unload_timeout or DEFAULT_UNLOAD_TIMEOUT
    sleep_ttl, stop_ttl = _ttls(config, model)
    if not stop_ttl and model.holding:
        stop_ttl = model.holding.allocation.ttl
    return Limits(
        ready=_first(model.ready_timeout, _ready(config, model)),
        sleep=model.cmd_sleep_timeout
        or _whole(model.recipe.sleep, sleep, config.sleep_request_timeout),
        wake=model.cmd_wake_timeout or _whole(model.recipe.wake, wake, config.wake_request_timeout),
        sleep_call=_first(config.sleep_request_timeout, sleep),
        wake_call=_first(config.wake_request_timeout, wake),
        check=model.verify.timeout,
        canary=model.verify.canary_timeout,
        sleep_failures=_first(model.max_sleep_failures, config.max_sleep_failures),
        backoff=config.max_backoff,
        drain=_first(model.drain_timeout, config.drain_timeout),
        unload=unload,
        stop=_first(model.stop_timeout, config.stop_timeout, max(unload, _everyones_ready(config))),
        sleep_ttl=sleep_ttl,
        stop_ttl=stop_ttl,
        concurrency=_concurrency(model),
    )


def _ready(config: Config, model: Model) -> int:
    """Return the limit to become ready for a model that has none of its own."""
    of_its_kind = PRESETS[model.sleep].ready_timeout if model.sleep else 0
    is_given = config.health_check_timeout is not None
    return of_its_kind if of_its_kind and not is_given else _everyones_ready(config)


def _everyones_ready(config: Config) -> int:
    """Return the limit of ``healthCheckTimeout``, with the same lower bound as in llama-swap."""
    given = _first(config.health_check_timeout, DEFAULT_READY_TIMEOUT)
    return max(given, SHORTEST_READY_TIMEOUT)


def _ttls(config: Config, model: Model) -> tuple[int, int]:
    """Return the idle seconds until sleep and until the end of the process."""
    ttl = config.global_ttl if model.ttl == -1 else model.ttl
    if not model.recipe:
        return 0, ttl
    if model.sleep_ttl is not None:
        return model.sleep_ttl, ttl
    return (ttl, 0) if model.recipe.sleeps_at_ttl else (0, ttl)


def _whole(steps: Sequence[Step], everyones: int, of_a_call: int | None) -> int:
    """Return the limit of all steps together: the general one, or the sum of theirs if higher."""
    own = (_first(step.limit, of_a_call if isinstance(step, Call) else None) for step in steps)
    return max(everyones, sum(own))


def _concurrency(model: Model) -> int:
    given = model.concurrency_limit if model.concurrency_limit > 0 else DEFAULT_CONCURRENCY
    return max(given, COMFY_UI_CONCURRENCY) if model.id == COMFY_UI else given


def _first(*candidates: int | None) -> int:
    return next((number for number in candidates if number is not None), 0)
