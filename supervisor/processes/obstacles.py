"""What makes the start of a model server pointless: said before a process is begun."""

from __future__ import annotations

from configschema import Model, is_reachable
from supervisor.processes.ports import is_free


def obstacle(model: Model) -> str | None:
    """Return why a start would be for nothing, or None."""
    if not model.cmd:
        return "cmd is empty"
    if not is_reachable(model.proxy):
        return "proxy leads nowhere: it must be an address such as http://127.0.0.1:8000"
    if model.port is not None and not is_free(model.port):
        taken = f"its port {model.port} is in use by another process"
        return f"{taken}; end that process or change startPort"
    return None
