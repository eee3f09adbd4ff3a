"""What is known of the memory of one model, awake and asleep, and how it came to be known. Pure.

Owns how a measurement is added to what was known. Measuring is `processes.survey`'s; who runs
beside whom by it is decided in `scheduling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import attrs

MIB = 1 << 20
RAISED_BY = 1.25  # what a model is taken to need whose start or wake failed for memory
RAISED_AT_LEAST = 256 * MIB
KEPT_OF_IT = 0.9  # of what is known, after a life that needed less

Amounts = tuple[int, ...]
"""Bytes on each GPU of a model, in the order in which it was given them; none, if it uses none."""


@attrs.frozen(kw_only=True)
class Footprint:
    """The memory of one model.

    Attributes:
        gpus: what it takes while it is awake; None if nothing is known.
        host: the same of the host's memory, in bytes.
        gpus_asleep: what its last sleep has left; None if that was never measured.
        host_asleep: the same of the host's memory.
        growth: bytes that what is left has grown with each sleep of its last process.
        lives: how often it was awake and is measured; of 0 what is known is a guess.
        peak_gpus: the most that was seen of it since it is awake.
        peak_host: the same of the host's memory.
        is_short: whether its last start or wake failed for memory: the next gets all there is.
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
        """Whether it is known what it takes, be it from a guess."""
        return not self.is_short and (self.gpus is not None or self.host is not None)

    @property
    def so_far(self) -> Footprint:
        """What was seen, as if that were all; nothing is known where nothing was seen."""
        if self.is_short or (self.peak_gpus is None and self.peak_host is None):
            return self
        return attrs.evolve(self, gpus=self.peak_gpus, host=self.peak_host)

    def held_awake(self, gpus: Sequence[int] | None, host: int | None) -> Footprint:
        """Return it after a look at the model awake.

        A model that is awake for the first time may grow yet: until that is over, it is taken to
        need what was guessed, or everything.

        Args:
            gpus: bytes on each GPU; None if that cannot be seen.
            host: bytes of the host's memory; None as before.
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
        """Return it when the model is not awake any more.

        What was seen the first time ends a guess. Later, what was too much is forgotten by and by.
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
        """Return it after a look at the model asleep; the newest counts."""
        left = None if gpus is None else _shortened(gpus)
        return attrs.evolve(self, gpus_asleep=left, host_asleep=host, growth=max(0, growth))

    def was_too_little(self) -> Footprint:
        """Return it after a start or a wake that failed for memory."""
        gpus = None if self.gpus is None else tuple(map(_raised, self.gpus))
        host = self.host if self.host is None or gpus else _raised(self.host)
        return attrs.evolve(self, gpus=gpus, host=host, is_short=True)

    def was_enough(self) -> Footprint:
        """Return it after a start or a wake that was good, or that more room did not help."""
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
