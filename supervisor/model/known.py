"""What is known of the memory that one model takes, and where its present server has it.

Owns what becomes of that from life to life. The keeper of the room in `scheduling` measures.
`crowding` decides what follows from a failed start.
"""

from __future__ import annotations

import attrs

from configschema import Model
from configschema.rules.addresses import is_here
from supervisor.states.footprint import UNMEASURED, Footprint
from supervisor.states.pins import KEPT, Pin
from supervisor.states.snapshot import Need

GIB = 1 << 30  # bytes


@attrs.define(eq=False)
class Known:
    """The memory of one model.

    Attributes:
        footprint: the memory that it takes.
        count: the number of GPUs that it runs on.
        only: the GPUs that it must run on, if the file names them; the names of devices.
        gpus: the GPUs of its present server; the names of devices.
        lease: why it may not be asked to make room, if somebody has a lease on it.
    """

    footprint: Footprint = UNMEASURED
    count: int = 1
    only: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    lease: Pin | None = None
    _need: Need = attrs.field(factory=Need, init=False)

    def need(self, model: Model) -> Need:
        """Return what it needs to run.

        A model that may not be asked to make room may be awake for the first time for ever. So what
        was seen of it so far counts.
        """
        known = self.footprint
        if self.pin(model) and not known.is_known:
            known = known.so_far
        need = Need(gpus=self.count, only=self.only, known=known)
        if need != self._need:  # others cache what follows from it
            self._need = need
        return self._need

    def pin(self, model: Model) -> Pin | None:
        """Return why it may not be asked to make room, if so: a lease, or its own setting."""
        return self.lease or (KEPT if model.keep else None)

    def begin(self, model: Model, footprint: Footprint) -> None:
        """Begin with what was learned before; without that, with the guess in the file.

        What was seen in a life that the end of a daemon cut off counts as a life.
        """
        learned = footprint.rested()
        self.footprint = learned if learned.lives else _guess(model)

    def change(self, model: Model) -> None:
        """Apply a new guess in the file, to a model that was never measured."""
        if not self.footprint.lives:
            guess = _guess(model)
            self.footprint = attrs.evolve(self.footprint, gpus=guess.gpus, host=guess.host)


def _guess(model: Model) -> Footprint:
    """Return the guess in the file; a server of another machine takes no memory of this one."""
    gpu, host = model.memory.gpu, model.memory.host
    if gpu is None and host is None and model.is_elsewhere and not is_here(model.proxy):
        return Footprint(gpus=(), host=0)
    gpus = None if gpu is None else tuple(int(one * GIB) for one in (gpu,) if one)
    return Footprint(gpus=gpus, host=None if host is None else int(host * GIB))
