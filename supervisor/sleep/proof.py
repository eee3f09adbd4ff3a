"""Whether a sleep has freed memory, and what is left from sleep to sleep. Pure.

Owns which memory counts, how much is too much, and the trend. `memory` measures. `sleeping` decides
what follows.
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
        awake: bytes before a sleep.
        asleep: bytes after it; None if that cannot be measured any more.
    """

    kind: str
    awake: int
    asleep: int | None

    @property
    def left(self) -> int:
        """What the sleep has left; everything, if nothing else is known."""
        return self.awake if self.asleep is None else self.asleep

    @property
    def freed(self) -> int:
        """What the sleep has freed; negative if it took more."""
        return self.awake - self.left

    def __str__(self) -> str:
        left = f"{size(self.left)} of {size(self.awake)} {self.kind} memory"
        return f"freed {size(self.freed)}, left {left}"


def needs_host(verify: Verify, recipe: Recipe) -> bool:
    """Return whether host memory may count, so that it must be measured."""
    return recipe.host_memory if verify.host_memory is None else verify.host_memory


def amounts(verify: Verify, recipe: Recipe, awake: Held, asleep: Held) -> list[Amount]:
    """Return the kinds of memory that a sleep must have freed.

    GPU memory counts if the model held some. Host memory counts if the operator asks for it. It
    also counts if a preset asks for it and the model held no GPU memory: weights that leave a GPU
    sleep in host memory.
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
        verify: what the sleep must have freed.
        amount: what it has left.
        told: whether the server itself says that it sleeps. Then a small amount proves nothing,
        unless the operator asks for host memory.
    """
    of_host = amount.kind == "host" and verify.host_memory is None
    if told and of_host and amount.awake < LITTLE:
        return None
    if amount.asleep is None:
        return f"the {amount.kind} memory that the model holds cannot be measured any more"
    held = f"still holds {size(amount.asleep)} of {size(amount.awake)} {amount.kind} memory"
    if verify.freed and amount.freed * 100 < verify.freed * amount.awake:
        return f"the model {held}; a sleep must free {verify.freed} % (verify.freed)"
    if verify.max_residue and amount.asleep > verify.max_residue * MIB:
        return f"the model {held}; a sleep may leave {verify.max_residue} MiB (verify.maxResidue)"
    return None


@attrs.frozen
class History:
    """What the sleeps of one process have left of one kind of memory.

    Attributes:
        cycles: the number of sleeps.
        first: bytes that the first sleep left.
        least: the fewest bytes that a sleep left.
        last: bytes that the last sleep left.
    """

    cycles: int = 0
    first: int = 0
    least: int = 0
    last: int = 0

    def then(self, left: int) -> History:
        """Return the history after one more sleep."""
        if not self.cycles:
            return History(1, left, left, left)
        return History(self.cycles + 1, self.first, min(self.least, left), left)

    @property
    def trend(self) -> float:
        """Bytes by which the rest has grown from one sleep to the next, on average."""
        return (self.last - self.first) / (self.cycles - 1) if self.cycles > 1 else 0.0

    @property
    def growth(self) -> int:
        """Bytes that the last sleep left beyond the least."""
        return self.last - self.least


def size(count: float) -> str:
    """Write bytes as an operator reads them: ``45.9 GiB``, ``340 MiB``."""
    if abs(count) >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB" if abs(count) >= 10 * MIB else f"{count / MIB:.1f} MiB"
