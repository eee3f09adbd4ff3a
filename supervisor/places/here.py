"""This machine, as a place for model servers: which port is free, and what is in the way.

Owns what keeps a server from starting, and how one comes to be owned. What it is while it runs is
in `localserver`.
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
"""How many ports above its own a model may be given."""


def new_token(owner: str, model: str) -> str:
    """Return what the processes of a new life are known by: whose they are, and of which model."""
    return f"{owner}.{name_in_tokens(model)}.{secrets.token_hex(8)}"


def name_in_tokens(model: str) -> str:
    """Return what stands for a model's id in tokens."""
    return hashlib.sha256(model.encode(errors="surrogatepass")).hexdigest()[:12]


@attrs.frozen
class Here:
    """This machine.

    Attributes:
        owner: who all tokens begin with, whichever daemon gives them.
        probe: asks a server whether it is ready.
        scales: weigh a process with its kin.
    """

    owner: str
    probe: Probe
    scales: Weigh = weigh

    async def fitted(self, model: Model, taken: Callable[[], set[int]]) -> Model:
        """Give a model another port if its own, which it need not have, is not free."""
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
        """Say what is missing, or who is in the way."""
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
                # Shielded: nobody would look for the rest of it again. Bounded by the grace.
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
        """End what an earlier daemon has left of a process and its kin; return how that went.

        Args:
            handle: of the process.
            grace: seconds between being asked and SIGKILL.
            ask: how it is asked, within a limit of its own; None sends SIGTERM to all of it.
        """
        with recognised(handle.pid, handle.started) as leader:
            left_over = Child(leader or GONE, NO_OUTPUT, grace, handle.kin, ask)
            await left_over.end()
        return left_over

    async def find(self, model: Model) -> Handle | None:
        """Find nothing: each of its servers has been started by somebody."""
        await trio.lowlevel.checkpoint()
        return None
