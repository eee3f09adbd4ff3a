"""Models of a cluster whose servers have landed, that is, run on some node."""

from __future__ import annotations

from configschema import Entrance, Landing, Model
from configschema.keys.fields import Secret

ENTRANCE = Entrance("10.0.0.7", 40000, Secret("00"))


def landed(
    model: Model, host: str = "127.0.0.1", port: int = 4321, entrance: Entrance = ENTRANCE
) -> Model:
    """Return the model as it is after its server has landed at the given place."""
    assert model.on_landing is not None
    return model.on_landing(Landing(host, port, entrance))
