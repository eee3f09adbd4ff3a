"""One model server as others see it: its state, what is wanted of it, who uses it.

Owns what others may do. The task behind it, which is the only writer of its state, is in `service`.
Who should run is decided elsewhere and arrives as a wish.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from configschema import Limits, Model
from supervisor.model.service import Service
from supervisor.processes.memory import Held
from supervisor.room.devices import Reading
from supervisor.sleep.trust import FULL_TRUST
from supervisor.states.backoff import NO_BACKOFF
from supervisor.states.causes import Cause, Why
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import AT_REST, ENDED, State, Wish


@attrs.define(eq=False)
class ModelServer(Service):
    """A model server.

    Attributes:
        unloads: how often an operator has unloaded it.
    """

    unloads: int = attrs.field(default=0, init=False)

    @property
    def is_at_rest(self) -> bool:
        """Whether it holds no memory and is not about to."""
        return self.at.state in AT_REST and self.wanted.wish is not Wish.SERVE

    @property
    def is_serving(self) -> bool:
        """Whether a lease may be given; the same as its snapshot's `serving`."""
        wanted = self.wanted
        ready = self.at.state is State.READY and wanted.wish is Wish.SERVE
        return ready and not wanted.told_to_end.is_set()

    # What others may do: look, wish, take a lease, wait.

    @property
    def held_back(self) -> float:
        """The seconds for which it may not start yet, because it has failed."""
        failed = self.at.state is State.FAILED
        return max(0.0, self.backoff.until - trio.current_time()) if failed else 0.0

    def forgive(self) -> None:
        """Let it sleep and start again, whatever has failed before."""
        self.sleeping.trust, self.backoff = FULL_TRUST, NO_BACKOFF

    def start_at_once(self) -> None:
        """Let its next start happen without a wait, whatever has failed before."""
        self.backoff = NO_BACKOFF

    def wish(self, wish: Wish, cause: Cause) -> None:
        """Say what is wanted of it now.

        SLEEP and DRAIN wait for the leases to end. STOP does not wait. It ends the present process
        whatever wish follows; a later SERVE starts a new process. If the process has to end for a
        change, it ends after its leases, whatever else is wished.

        Args:
            wish: what is wanted.
            cause: why.
        """
        if wish is not self.wanted.wish:
            self.journal.asked(self.model.id, wish, cause)
        is_final = self._next is not None and self.at.state is State.READY
        self.wanted.ask(Wish.DRAIN if is_final and wish is not Wish.STOP else wish)

    def change(
        self, model: Model, limits: Limits, why_replaced: str | None, why: Why = Why.RELOAD
    ) -> None:
        """Apply other settings: now, or after the present process if that must be replaced."""
        if (why_replaced or self._next) and self.at.state not in ENDED:
            self._next = model, limits
            if why_replaced:
                text = f"Stopping process when its requests have ended: {why_replaced}"
                self.at.tell("info", text, reason=why_replaced)
            self.wish(Wish.DRAIN, Cause(why=why, text=why_replaced or ""))
        else:
            self._apply(model, limits, fresh=why_replaced is not None)

    @property
    def is_replaced(self) -> bool:
        """Whether its present process ends after its leases, whatever else is wished."""
        return self._next is not None

    def retire(self, reason: str) -> None:
        """End the present process after its leases, for good."""
        self.change(self.model, self.limits, reason)

    def dismiss(self) -> None:
        """End its task; it must have no process any more."""
        self._employment.cancel()

    async def reached(self, states: frozenset[State]) -> Snapshot:
        """Wait for one of these states; return the snapshot taken then, even if it moved on."""
        return await self.at.reached(states)

    @property
    def life(self) -> object:
        """What identifies its present server and the place where that serves; None without one."""
        at = self.at
        return None if at.state in ENDED else (at.handle, at.pid, at.ready_since)

    async def root(self) -> int | None:
        """Return the process here whose descendants hold its memory, if that is visible."""
        return None if self._server is None else await self._server.root()

    async def weigh(self) -> Held:
        """Return what its server holds, host memory included; None in place of what is unseen."""
        return Held() if self._server is None else await self._server.weigh(host=True)

    @property
    def devices(self) -> Sequence[Reading]:
        """The GPUs of its place that were seen then; empty for this machine."""
        return () if self._server is None else self._server.devices

    def let_go(self) -> bool:
        """Let its server live on when the daemon ends, if it can; return whether it does."""
        server = self._server
        if not server or not self.logs or self.at.state not in (State.READY, State.ASLEEP):
            return False
        server.let_go()
        return True

    def cut(self) -> None:
        """End its server without a grace."""
        if self._server is not None:
            self._server.cut()

    def give_up(self) -> None:
        """Stop waiting for what could not be ended."""
        self._given_up.set()

    async def until_stuck(self) -> Snapshot:
        """Wait until it is known that something of it could not be ended."""
        await self.usage.stir.when(lambda: bool(self.at.left) and not self._given_up.is_set())
        return self.snapshot()

    @property
    def logs(self) -> bool:
        """Whether its server could outlive the daemon."""
        return self._server is not None and self._server.can_be_let_go
