"""Models of a cluster whose servers have come to run somewhere."""

from __future__ import annotations

from configschema import Entrance, Landing, Model
from configschema.keys.fields import Secret

ENTRANCE = Entrance("10.0.0.7", 40000, Secret("00"))


def landed(
    model: Model, host: str = "127.0.0.1", port: int = 4321, entrance: Entrance = ENTRANCE
) -> Model:
    """Return a model where its server has landed."""
    assert model.on_landing is not None
    return model.on_landing(Landing(host, port, entrance))
