"""Whether memory was freed by a sleep, and what is left of it from sleep to sleep. Pure.

Owns which memory counts, how much is too much, and the trend. Measuring is `memory`'s, and what
follows is decided in `sleeping`.
"""

from __future__ import annotations

import attrs

from configschema import Recipe, Verify
from supervisor.processes.memory import Held

MIB, GIB = 1 << 20, 1 << 30
LITTLE = 64 * MIB  # of host memory: a server that held no more had nothing loaded


@attrs.frozen
class Amount:
    """Bytes of one kind of memory that a model held.

    Attributes:
        kind: the memory's name: ``GPU`` or ``host``.
        awake: before a sleep.
        asleep: after it; None if it cannot be measured any more.
    """

    kind: str
    awake: int
    asleep: int | None

    @property
    def left(self) -> int:
        """What the sleep has left; all, as far as nothing else is known."""
        return self.awake if self.asleep is None else self.asleep

    @property
    def freed(self) -> int:
        """What the sleep has freed; negative if it took more."""
        return self.awake - self.left

    def __str__(self) -> str:
        left = f"{size(self.left)} of {size(self.awake)} {self.kind} memory"
        return f"freed {size(self.freed)}, left {left}"


def needs_host(verify: Verify, recipe: Recipe) -> bool:
    """Return whether host memory may count, and so must be measured."""
    return recipe.host_memory if verify.host_memory is None else verify.host_memory


def amounts(verify: Verify, recipe: Recipe, awake: Held, asleep: Held) -> list[Amount]:
    """Return the kinds of memory that a sleep must have freed.

    GPU memory counts where some was held. Host memory counts where the operator asks for it, or a
    preset does and there was no GPU memory: what a GPU sleeps on is the host's.
    """
    of_host = needs_host(verify, recipe) and not (verify.host_memory is None and awake.gpu)
    pairs = {
        "GPU": (awake.gpu or None, asleep.gpu, verify.gpu_memory),
        "host": (awake.host, asleep.host, of_host),
    }
    return [
        Amount(kind, before, after)
        for kind, (before, after, counts) in pairs.items()
        if counts and before is not None
    ]


def shortfall(verify: Verify, amount: Amount, *, told: bool = False) -> str | None:
    """Return what is wrong with what a sleep has left, in an operator's words, or None.

    Args:
        verify: what it must have freed.
        amount: what it has left.
        told: whether the server itself says that it sleeps: then little proves nothing, unless the
            operator asks for host memory.
    """
    of_host = amount.kind == "host" and verify.host_memory is None
    if told and of_host and amount.awake < LITTLE:
        return None
    if amount.asleep is None:
        return f"the {amount.kind} memory that the model holds cannot be measured any more"
    held = f"still holds {size(amount.asleep)} of {size(amount.awake)} {amount.kind} memory"
    if verify.freed and amount.freed * 100 < verify.freed * amount.awake:
        return f"the model {held}, and verify.freed is {verify.freed} %"
    if verify.max_residue and amount.asleep > verify.max_residue * MIB:
        return f"the model {held}, and verify.maxResidue is {verify.max_residue} MiB"
    return None


@attrs.frozen
class History:
    """What the sleeps of one process have left of one kind of memory.

    Attributes:
        cycles: how many there were.
        first: bytes left by the first.
        least: by the one that left least.
        last: by the last.
    """

    cycles: int = 0
    first: int = 0
    least: int = 0
    last: int = 0

    def then(self, left: int) -> History:
        """Return what is known after one more sleep."""
        if not self.cycles:
            return History(1, left, left, left)
        return History(self.cycles + 1, self.first, min(self.least, left), left)

    @property
    def trend(self) -> float:
        """Bytes that what is left has grown from one sleep to the next, on average."""
        return (self.last - self.first) / (self.cycles - 1) if self.cycles > 1 else 0.0

    @property
    def growth(self) -> int:
        """Bytes that were left by the last sleep beyond the least."""
        return self.last - self.least


def size(count: float) -> str:
    """Write bytes as an operator reads them: ``45.9 GiB``, ``340 MiB``."""
    if abs(count) >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB" if abs(count) >= 10 * MIB else f"{count / MIB:.1f} MiB"
