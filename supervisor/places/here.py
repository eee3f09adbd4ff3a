"""This machine as a place for model servers: which port is free, and what prevents a start.

Owns what keeps a server from starting, and how a server comes to have an owner. `localserver` is
the server while it runs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from configschema import Model, is_reachable
from configschema.keys.elsewhere import is_placeholder
from supervisor.places.addresses import addresses_of, port_of
from supervisor.places.containers import is_outside
from supervisor.places.handles import Handle, HereHandle
from supervisor.places.localserver import LocalServer
from supervisor.places.running import CannotRun, Order, Probe, RunningServer, Weigh
from supervisor.processes.adopted import GONE, recognised
from supervisor.processes.child import AskToStop, CannotStart, Child, open_child, own
from supervisor.processes.listeners import holder_anywhere, listeners_on
from supervisor.processes.memory import weigh
from supervisor.processes.output import NO_OUTPUT, LogFile
from supervisor.processes.ports import is_free, suits_any_server

PORTS_LOOKED_AT = 100
"""How many ports above its own are tried for a model."""


def new_token(owner: str, model: str) -> str:
    """Return the token of a new life's processes: it names their owner and their model."""
    return f"{owner}.{name_in_tokens(model)}.{secrets.token_hex(8)}"


def name_in_tokens(model: str) -> str:
    """Return the form of a model's id in tokens."""
    return hashlib.sha256(model.encode(errors="surrogatepass")).hexdigest()[:12]


@attrs.frozen
class Here:
    """This machine.

    Attributes:
        owner: the beginning of all tokens, the same for every daemon with this state.
        probe: asks a server whether it is ready.
        scales: weighs a process with its kin.
    """

    owner: str
    probe: Probe
    scales: Weigh = weigh

    async def fitted(self, model: Model, taken: Callable[[], set[int]]) -> Model:
        """Give a model another port if its own is not free and need not be kept."""
        addresses = await addresses_of(model)
        if model.port is None or model.on_port is None or not addresses:
            return model
        if all(suits_any_server(str(address), model.port) for address in addresses):
            return model
        others = taken()
        for port in range(model.port + 1, min(model.port + 1 + PORTS_LOOKED_AT, 65536)):
            if port not in others and all(suits_any_server(str(one), port) for one in addresses):
                return model.on_port(port)
        return model

    async def obstacle(self, model: Model) -> str | None:
        """Return what is missing or in the way, or None."""
        if not model.cmd:
            return "cmd is empty"
        if not is_reachable(model.proxy):
            return "proxy leads nowhere: it must be an address such as http://127.0.0.1:8000"
        return None if is_placeholder(model.cmd.argv) else await self._taken(model)

    async def _taken(self, model: Model) -> str | None:
        port = port_of(model)
        addresses = await addresses_of(model)
        busy = [one for one in addresses if not is_free(str(one), port)]
        if not busy:
            return None
        found = listeners_on(port, busy)
        who = await holder_anywhere(found)
        return (
            f"its port {port} is in use by {who or 'another process'}; end that process, or give "
            "the model another port. If it is the model's own server, which cmd only starts or "
            "leads to, set detached: true"
        )

    @asynccontextmanager
    async def start(self, order: Order) -> AsyncIterator[RunningServer]:
        """Start a process."""
        process = open_child(
            order.model.cmd.argv,
            env=order.env,
            on_output=order.hear,
            grace=order.limits.unload,
            log_file=order.log_file,
            token=new_token(self.owner, order.model.id),
        )
        server: LocalServer | None = None
        try:
            async with process as child:
                child.must_be_asked = is_outside(order.model)
                yield (server := LocalServer(child, order, self.probe, self.scales))
        except CannotStart as error:
            raise CannotRun(f"cmd cannot be started: {error}") from error
        finally:
            if server is not None:
                await server.prove_its_end()

    @asynccontextmanager
    async def take_over(self, order: Order, handle: Handle) -> AsyncIterator[RunningServer]:
        """Own a process that another daemon has started."""
        if not isinstance(handle, HereHandle) or order.log_file is None:
            raise CannotRun("the process of the earlier llamadoze cannot be taken over")
        with recognised(handle.pid, handle.started) as leader:
            if leader is None:
                # Shielded: nothing else would look for the rest of it. The grace bounds this.
                with trio.CancelScope(shield=True):
                    await self.end(handle, order.limits.unload, None)
                raise CannotRun("the process of the earlier llamadoze has ended meanwhile")
            kin = attrs.evolve(handle.kin, output=f"{order.log_file}")
            child = Child(leader, LogFile(order.log_file), order.limits.unload, kin)
            child.must_be_asked = is_outside(order.model)
            server = LocalServer(child, order, self.probe, self.scales)
            try:
                async with own(child, order.hear):
                    yield server
            finally:
                await server.prove_its_end()

    async def end(self, handle: HereHandle, grace: float, ask: AskToStop | None) -> Child:
        """End what an earlier daemon has left of a process and its kin; return the ended child.

        Args:
            handle: the process.
            grace: seconds between the request to end and SIGKILL.
            ask: asks it to end, within a limit of its own; None sends SIGTERM to all of its
            processes.
        """
        with recognised(handle.pid, handle.started) as leader:
            left_over = Child(leader or GONE, NO_OUTPUT, grace, handle.kin, ask)
            await left_over.end()
        return left_over

    async def find(self, model: Model) -> Handle | None:
        """Find nothing: each server of this machine has a daemon that started it."""
        await trio.lowlevel.checkpoint()
        return None
