"""What is known of one model's memory, awake and asleep, and how it is learned. Pure.

Owns how a measurement is added to what was known. `processes.survey` measures. `scheduling` decides
by these numbers which models run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import attrs

MIB = 1 << 20
RAISED_BY = 1.25  # factor for the need of a model whose start or wake failed for lack of memory
RAISED_AT_LEAST = 256 * MIB
KEPT_OF_IT = 0.9  # of the known need, after a life that needed less

Amounts = tuple[int, ...]
"""Bytes on each GPU of a model, in the order in which it was given its GPUs; empty without GPUs."""


@attrs.frozen(kw_only=True)
class Footprint:
    """The memory of one model.

    Attributes:
        gpus: bytes that it takes while it is awake; None if nothing is known.
        host: host memory that it takes while it is awake, in bytes.
        gpus_asleep: bytes that its last sleep has left; None if that was never measured.
        host_asleep: host memory that its last sleep has left.
        growth: bytes by which the rest has grown with each sleep of its last process.
        lives: how many of its awake times were measured; with 0, the numbers are a guess.
        peak_gpus: the most that was seen since the model is awake.
        peak_host: the most host memory that was seen since the model is awake.
        is_short: whether its last start or wake failed for lack of memory: the next start or wake
        gets all memory there is.
    """

    gpus: Amounts | None = None
    host: int | None = None
    gpus_asleep: Amounts | None = None
    host_asleep: int | None = None
    growth: int = 0
    lives: int = 0
    peak_gpus: Amounts | None = None
    peak_host: int | None = None
    is_short: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the model's need is known, from measurements or from a guess."""
        return not self.is_short and (self.gpus is not None or self.host is not None)

    @property
    def so_far(self) -> Footprint:
        """What was seen so far, taken as the whole need; unchanged if nothing was seen."""
        if self.is_short or (self.peak_gpus is None and self.peak_host is None):
            return self
        return attrs.evolve(self, gpus=self.peak_gpus, host=self.peak_host)

    def held_awake(self, gpus: Sequence[int] | None, host: int | None) -> Footprint:
        """Return the footprint after a measurement of the model awake.

        A model that is awake for the first time may still grow. Until that time is over, llamadoze
        assumes that the model needs what was guessed, or everything.

        Args:
            gpus: bytes on each GPU; None if that cannot be measured.
            host: bytes of host memory; None if that cannot be measured.
        """
        seen = attrs.evolve(
            self, peak_gpus=_most(self.peak_gpus, gpus), peak_host=_more(self.peak_host, host)
        )
        if not (self.lives or self.is_known):
            return seen
        more_gpus = gpus if self.gpus is not None else None
        more_host = host if self.host is not None else None
        return attrs.evolve(
            seen, gpus=_most(self.gpus, more_gpus), host=_more(self.host, more_host)
        )

    def rested(self) -> Footprint:
        """Return the footprint when the model is no longer awake.

        The first measurements replace a guess. Later, a number that was too high shrinks step by
        step.
        """
        if self.peak_gpus is None and self.peak_host is None:
            return self
        gpus, host = self.gpus, self.host
        if self.peak_gpus is not None:
            before = tuple(int(one * KEPT_OF_IT) for one in gpus or ())
            gpus = _most(before, self.peak_gpus) if self.lives else self.peak_gpus
        if self.peak_host is not None:
            before_host = int((host or 0) * KEPT_OF_IT)
            host = max(before_host, self.peak_host) if self.lives else self.peak_host
        seen = attrs.evolve(self, gpus=gpus, host=host, peak_gpus=None, peak_host=None)
        return attrs.evolve(seen, lives=self.lives + 1)

    def held_asleep(
        self, gpus: Sequence[int] | None, host: int | None, growth: int = 0
    ) -> Footprint:
        """Return the footprint after a measurement of the model asleep; the newest counts."""
        left = None if gpus is None else _shortened(gpus)
        return attrs.evolve(self, gpus_asleep=left, host_asleep=host, growth=max(0, growth))

    def was_too_little(self) -> Footprint:
        """Return the footprint after a start or a wake that failed for lack of memory."""
        gpus = None if self.gpus is None else tuple(map(_raised, self.gpus))
        host = self.host if self.host is None or gpus else _raised(self.host)
        return attrs.evolve(self, gpus=gpus, host=host, is_short=True)

    def was_enough(self) -> Footprint:
        """Return the footprint after a good start or wake, or one that more room did not help."""
        return attrs.evolve(self, is_short=False)


UNMEASURED = Footprint()


def _raised(amount: int) -> int:
    return max(int(amount * RAISED_BY), amount + RAISED_AT_LEAST)


def _shortened(amounts: Sequence[int]) -> Amounts:
    last = max((place for place, amount in enumerate(amounts, 1) if amount > 0), default=0)
    return tuple(amounts[:last])


def _most(known: Amounts | None, seen: Sequence[int] | None) -> Amounts | None:
    if seen is None:
        return known
    return tuple(max(pair) for pair in zip_longest(known or (), _shortened(seen), fillvalue=0))


def _more(known: int | None, seen: int | None) -> int | None:
    return max((one for one in (known, seen) if one is not None), default=None)
