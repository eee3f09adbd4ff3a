"""Models that move to another port because theirs was taken when they were to start.

Owns the way back from the file's data to such a model. It does not know which ports are free.
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
    """Return a configuration whose models can move to other ports if they use ${PORT}.

    Args:
        config: the configuration that was made of the data.
        data: the file's data, with macros not expanded.
        environ: the environment that its macros were expanded with.
    """
    models = {
        name: attrs.evolve(model, on_port=partial(_moved, model, data, environ))
        if model.port is not None
        else model
        for name, model in config.models.items()
    }
    return attrs.evolve(config, models=models)


def _moved(model: Model, data: Mapping[str, Any], environ: Mapping[str, str], port: int) -> Model:
    """Make a model again, with another port."""
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
