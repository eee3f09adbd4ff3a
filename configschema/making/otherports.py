"""Models on another port than they were given: it was taken when they should start.

Owns the way back from the file's data to such a model. Which port is free is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from configschema.keys.schema import Config, Model
from configschema.making.expansion import expand
from configschema.making.structuring import structure


def with_choice_of_ports(
    config: Config, data: Mapping[str, Any], environ: Mapping[str, str]
) -> Config:
    """Return a configuration whose models can be moved to other ports, where they use ${PORT}.

    Args:
        config: what was made of the data.
        data: of the file, macros not expanded.
        environ: for the macros that it was made with.
    """
    models = {
        name: attrs.evolve(model, on_port=partial(_moved, model, data, environ))
        if model.port is not None
        else model
        for name, model in config.models.items()
    }
    return attrs.evolve(config, models=models)


def _moved(model: Model, data: Mapping[str, Any], environ: Mapping[str, str], port: int) -> Model:
    """Make a model once more, with another port."""
    alone = {
        "macros": data.get("macros"),
        "startPort": port,
        "models": {model.id: data["models"][model.id]},
    }
    expansion = expand(alone, environ)
    config, _ = structure(expansion.data, expansion.ports)
    shown = {key: text.replace(str(model.port), str(port)) for key, text in model.shown.items()}
    moved = attrs.evolve(config.models[model.id], shown=shown)
    return attrs.evolve(moved, on_port=partial(_moved, moved, data, environ))
