"""Why a caller gets no model: errors, named by what the caller can do about it."""

from __future__ import annotations

from math import inf

from supervisor.states.durations import seconds

LONGEST_SHOWN = 200  # characters of a name that a client may have made up


class SupervisorError(Exception):
    """The base of all; `model` is the model's id or, for an unknown model, the requested name."""

    def __init__(self, model: str, message: str) -> None:
        self.model = model
        super().__init__(message)


class UnknownModel(SupervisorError):
    """No model has this id or alias: ask for another model."""

    def __init__(self, name: str, like: str | None = None) -> None:
        meant = f"; did you mean '{like}'?" if like else ""
        shown = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."
        super().__init__(name, f"no model is called '{shown}'{meant}")


class TooManyRequests(SupervisorError):
    """The model's ``concurrencyLimit`` is reached: try again later."""

    def __init__(self, model: str, limit: int) -> None:
        self.limit = limit
        super().__init__(
            model, f"model '{model}' has {limit} requests, its concurrencyLimit; try again later"
        )


class QueueFull(SupervisorError):
    """As many requests wait as ``maxQueue`` allows: try again later."""

    def __init__(self, model: str, limit: int) -> None:
        self.limit = limit
        super().__init__(
            model, f"{limit} requests wait for models already (limit: maxQueue); try again later"
        )


class ModelFailed(SupervisorError):
    """The model could not start or wake, or died: the next request tries again."""

    def __init__(self, model: str, reason: str) -> None:
        self.reason = reason
        super().__init__(model, f"model '{model}' failed: {reason}")


class BackingOff(SupervisorError):
    """The model keeps failing and is not started yet: try again after the wait."""

    def __init__(self, model: str, wait: float, failures: int, reason: str) -> None:
        self.wait = wait
        times = f"{failures} times in a row" if failures > 1 else "once"
        super().__init__(
            model,
            f"model '{model}' failed {times} and starts again in {seconds(wait)} at the "
            f"earliest; last failure: {reason}",
        )


class Unloaded(SupervisorError):
    """An operator stopped the model while the caller waited for it."""

    def __init__(self, model: str) -> None:
        super().__init__(model, f"model '{model}' was unloaded while the request waited for it")


class Removed(SupervisorError):
    """The model was taken out of the configuration while the caller waited for it."""

    def __init__(self, model: str) -> None:
        super().__init__(model, f"model '{model}' was removed while the request waited for it")


class Paused(SupervisorError):
    """An operator has paused llamadoze to free the memory for something else: try again later."""

    def __init__(self, model: str) -> None:
        super().__init__(model, f"model '{model}' cannot be used now: llamadoze is paused")


class StillHeld(SupervisorError):
    """Something that could not be ended may hold the memory: end it, or say that it does not."""

    def __init__(self, model: str, holder: str, left: str) -> None:
        self.holder = holder
        what = "has not ended completely" if model == holder else "is not started"
        super().__init__(
            model,
            f"model '{model}' {what}: {left} of model '{holder}' could not be ended and may still "
            f"hold memory. End it, or unload '{holder}' to start models anyway",
        )


class NoRoom(SupervisorError):
    """Nothing can make room for the model: ask again later, or end what holds the memory."""

    def __init__(self, model: str, why: str, wait: float) -> None:
        self.wait = wait
        later = "; try again later" if wait < inf else ""
        super().__init__(model, f"there is no room for model '{model}': {why}{later}")


class TooManyLeases(SupervisorError):
    """There are as many leases as are allowed: end one, or try again later."""

    def __init__(self, model: str, limit: int) -> None:
        self.limit = limit
        super().__init__(model, f"there are {limit} leases, which is the limit; end one of them")


class CannotSleep(SupervisorError):
    """The model has no way to sleep: configure one, or unload it."""

    def __init__(self, model: str) -> None:
        remedy = "configure sleep, cmdSleep and cmdWake, or endpoints"
        super().__init__(model, f"model '{model}' cannot sleep: {remedy}")


class NotRunning(SupervisorError):
    """The model has no process that could sleep or wake: load it first."""

    def __init__(self, model: str, state: str) -> None:
        super().__init__(model, f"model '{model}' is {state}: load it first")
