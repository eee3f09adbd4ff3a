"""Models that share a port of this machine: any server there would be taken for each of them.

Owns which models share a port. Such a model stops to make room, because a sleeping server keeps its
port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from configschema.keys.elsewhere import is_placeholder
from configschema.keys.recipe import NO_RECIPE
from configschema.keys.schema import Config, Model
from configschema.rules.addresses import local_port
from configschema.rules.routing import company_of
from configschema.text.problems import Fault


def holders_of_ports(config: Config) -> Mapping[int, list[Model]]:
    """Return the models by their port of this machine.

    If all models of a port have servers that run by themselves, that is one server, and not shared.
    """
    holders: dict[int, list[Model]] = {}
    for model in config.models.values():
        port = local_port(model.proxy) if model.cmd or model.is_elsewhere else None
        if port is not None:
            holders.setdefault(port, []).append(model)
    return {port: models for port, models in holders.items() if not all(map(_is_there, models))}


def _is_there(model: Model) -> bool:
    """Whether a model server runs by itself: llamadoze does not start or stop it."""
    return not model.cmd or is_placeholder(model.cmd.argv)


def without_sleep_on_shared_ports(config: Config) -> Config:
    """Return the configuration, in which models that share a port stop instead of sleeping."""
    sharing = [models for models in holders_of_ports(config).values() if len(models) > 1]
    sleepers = {model.id: model for models in sharing for model in models if model.can_sleep}
    awake = {name: attrs.evolve(model, recipe=NO_RECIPE) for name, model in sleepers.items()}
    return attrs.evolve(config, models={**config.models, **awake}) if awake else config


def advise_on_ports(config: Config) -> Iterator[Fault]:
    """Yield the models that cannot sleep, or cannot run together, because they share a port."""
    yield from _assigned(config)
    company = company_of(config)
    for port, models in holders_of_ports(config).items():
        seen: dict[str, Model] = {}
        for model in models:
            others = [other for other in seen.values() if company.may_meet(model.id, other.id)]
            if model.can_sleep and len(models) > 1:
                other = next(one for one in models if one is not model)
                message = (
                    "model {} listens on port {}, too, so this model cannot sleep, and llamadoze "
                    "stops it to make room: use ${PORT}"
                )
                yield _on(model, message, other, port)
            elif others:
                message = (
                    "model {} listens on port {}, too, and may run at the same time: use ${PORT}"
                )
                yield _on(model, message, others[0], port)
            # One model stands for all models with the same rules.
            seen.setdefault(company.home(model.id), model)


def _assigned(config: Config) -> Iterator[Fault]:
    """Yield the models whose fixed port was given to another model for ${PORT}."""
    given = {model.port: model for model in config.models.values() if model.port is not None}
    for model in config.models.values():
        port = local_port(model.proxy) if model.cmd or model.is_elsewhere else None
        other = given.get(port) if port is not None else None
        if model.port is None and other is not None:
            message = "port {} is the ${PORT} of model {}: change startPort"
            message += ", or use ${PORT} here, too" if model.cmd else ""
            place, also = ("models", model.id, "proxy"), ("models", other.id)
            yield Fault(place, message, (port, other.id), also=also)


def _on(model: Model, message: str, other: Model, port: int) -> Fault:
    place, also = (("models", one.id, "proxy") for one in (model, other))
    return Fault(place, message, (other.id, port), also=also)
