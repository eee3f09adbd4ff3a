"""Models in a cluster, whose addresses are known only after their servers have started there.

Owns the way back from the file's data to such a model. It does not know where a server runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from configschema.keys.clusters import Landing
from configschema.keys.recipe import by_way_of
from configschema.keys.schema import Config, Model
from configschema.making.expansion import expand
from configschema.making.structuring import structure
from configschema.rules.allocations import holding_for


def with_landings(config: Config, data: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """Return a configuration whose models in clusters can be told where they run.

    Args:
        config: the configuration that was made of the data.
        data: the file's data, with macros not expanded.
        environ: the environment that its macros were expanded with.
    """
    models = {
        name: _movable(attrs.evolve(model, holding=holding_for(config, model)), data, environ)
        if model.in_
        else model
        for name, model in config.models.items()
    }
    return attrs.evolve(config, models=models)


def _movable(model: Model, data: Mapping[str, Any], environ: Mapping[str, str]) -> Model:
    return attrs.evolve(model, on_landing=partial(_landed, model, data, environ))


def _landed(
    model: Model, data: Mapping[str, Any], environ: Mapping[str, str], landing: Landing
) -> Model:
    """Make a model again, with the address of its server.

    Its ``cmd`` stays unchanged: the server runs already, and the next one may land elsewhere.
    """
    alone = {
        "macros": data.get("macros"),
        "clusters": data.get("clusters"),
        "models": {model.id: data["models"][model.id]},
    }
    expansion = expand(alone, environ, where={"HOST": landing.host, "PORT": landing.port})
    config, _ = structure(expansion.data, expansion.ports)
    made = config.models[model.id]
    shown = {
        key: text.replace("${HOST}", landing.host).replace("${PORT}", str(landing.port))
        for key, text in model.shown.items()
    }
    return attrs.evolve(
        made,
        cmd=model.cmd,
        recipe=by_way_of(made.recipe, made.proxy, landing.entrance),
        shown=shown,
        holding=model.holding,
        landing=landing,
        written=_movable(model, data, environ),
    )
