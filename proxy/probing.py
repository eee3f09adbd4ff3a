"""Whether a model server is ready: one request to its check endpoint."""

from __future__ import annotations

from configschema import Model
from proxy.parsing import UpstreamError
from proxy.upstream import Origin, Upstream

OK = 200  # llama-swap takes no other status for ready


async def ask_if_ready(model: Model) -> str | None:
    """Return None if the model server answers its check with 200, else what it did instead."""
    origin = Origin.of(model.proxy)
    headers = [(b"host", origin.host.encode()), (b"connection", b"close")]
    target = b"/" + model.check_endpoint.lstrip("/").encode()
    try:
        async with Upstream(origin, most_kept=0).exchange(b"GET", target, headers, b"") as response:
            if response.status == OK:
                return None
            return f"{model.check_endpoint} answered {response.status}"
    except UpstreamError as error:
        return str(error)
