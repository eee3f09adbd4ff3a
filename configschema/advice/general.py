"""Warnings about the file as a whole: probable mistakes, and keys without effect.

`commands` has those about commands, `presetneeds` about presets, `containeroptions` about
containers, `serversoutside` about other servers outside, `inclusters` about clusters, and `unknown`
about unknown keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path as File
from typing import Any

from configschema.advice.commands import advise_on_commands
from configschema.advice.containeroptions import advise_on_container, advise_on_inits
from configschema.advice.inclusters import advise_on_clusters
from configschema.advice.presetneeds import advise_on_preset, advise_on_unused_sleep
from configschema.advice.servednames import advise_on_names
from configschema.advice.serversoutside import advise_on_servers_outside
from configschema.keys.limits import resolve_limits
from configschema.keys.schema import Config, Model
from configschema.keys.sections import MODALITIES
from configschema.keys.sharing import DEFAULT_GROUP
from configschema.making.sharedports import advise_on_ports
from configschema.rules.addresses import is_reachable
from configschema.rules.routing import company_of, rules_of
from configschema.text.problems import Fault, Path, and_others

LOG_LEVELS = ("debug", "info", "warn", "error")
NOT_YET: dict[str, str] = {
    "logTimeFormat": "not in effect: the log has its own time format",
    "logRequests": "ignored, as in llama-swap",
    "tailcat": "not in effect: llamadoze has no Tailcat; put its socks or Tailscale in front",
}
NOT_YET_OF_MODELS: dict[str, str] = {
    "healthCheckTimeout": "ignored, as in llama-swap; use the model's readyTimeout",
}


def advise(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the warnings about a file. `data` is the file's data with macros expanded."""
    if config.log_level.lower() not in LOG_LEVELS:
        message = f"{{}} is none of {', '.join(LOG_LEVELS)}, so info is used"
        yield Fault(("logLevel",), message, (config.log_level,))
    for name, model in config.models.items():
        path = ("models", name)
        yield from _model(model, path, config)
        yield from advise_on_commands(model, path)
        yield from advise_on_preset(model, path)
        yield from advise_on_unused_sleep(model, path)
        yield from advise_on_container(model, path)
        yield from advise_on_servers_outside(model, path)
        yield from advise_on_names(model, path)
        yield from _verification(model, data["models"][name], path)
    yield from advise_on_clusters(config, data)
    yield from advise_on_inits(config)
    yield from advise_on_ports(config)
    for number, name in enumerate(config.hooks.on_startup.preload):
        if name.strip() and config.find(name.strip()) is None:
            place: Path = ("hooks", "on_startup", "preload", number)
            yield Fault(place, "there is no model {}, so it is not preloaded", (name,))
    if config.store is not None and not _is_writable(File(config.store.path)):
        yield Fault(("store", "path"), "{} is not writable", (config.store.path,))
    if DEFAULT_GROUP in rules_of(config).groups:
        place = (*rules_of(config).path, DEFAULT_GROUP)
        yield Fault(
            place, "llamadoze makes this group of all models in no other group: yours is ignored"
        )
    yield from _kept_apart(config)
    yield from _rules_beside_memory(config)
    yield from _sizes_without_memory(config, data)
    yield from _bodies(config)
    yield from _not_yet(config, data)


def _is_writable(file: File) -> bool:
    return os.access(file if file.exists() else file.parent, os.W_OK)


def _model(model: Model, path: Path, config: Config) -> Iterator[Fault]:
    if not model.cmd and not (model.is_elsewhere and model.proxy):
        yield Fault((*path, "cmd"), "cmd is missing, so the model cannot be started")
    for number, alias in enumerate(model.aliases):
        if alias in config.models and alias != model.id:
            message = "alias {} is also the id of a model, so requests for it go there"
            yield Fault((*path, "aliases", number), message, (alias,), also=("models", alias))
    for number, entry in enumerate(model.env):
        if "=" not in entry.lstrip("="):
            yield Fault((*path, "env", number), "expected NAME=value; the entry is ignored")
    is_meant = model.cmd or model.is_elsewhere
    if is_meant and "${" not in model.proxy and not is_reachable(model.proxy):
        message = "expected an http address such as http://127.0.0.1:8000, found {}"
        yield Fault((*path, "proxy"), message, (model.proxy,))
    for key, found in (("in", model.capabilities.input), ("out", model.capabilities.output)):
        for number, word in enumerate(found):
            if word not in MODALITIES:
                message = (
                    f"{{}} is none of {', '.join(MODALITIES)}, so it is shown, but has no effect"
                )
                yield Fault((*path, "capabilities", key, number), message, (word,))
    if model.sleep_mode == "enable" and model.sleep:
        yield Fault(
            (*path, "sleepMode"), "has no effect, because the model's sleep says how it sleeps"
        )
    if model.sleep_mode == "disable" and (model.sleep_endpoints or model.wake_endpoints):
        key = "sleepEndpoints" if model.sleep_endpoints else "wakeEndpoints"
        yield Fault((*path, key), "has no effect, because sleepMode is not enable")
    limits = resolve_limits(config, model)
    if limits.stop_ttl and limits.sleep_ttl >= limits.stop_ttl:
        message = "is never reached, because the model stops after {} idle seconds"
        yield Fault((*path, "sleepTtl"), message, (limits.stop_ttl,))


def _kept_apart(config: Config) -> Iterator[Fault]:
    """Yield the first two models that both never make room, but may not run together."""
    company, kept = company_of(config), [one.id for one in config.models.values() if one.keep]
    for one, other in combinations(kept, 2):
        if not company.may_meet(one, other):
            message = "keep is set here and for {}, but the two may not run together: the first to "
            message += "start blocks the other. Allow both together by groups, a matrix or memory"
            yield Fault(("models", other, "keep"), message, (one,), also=("models", one, "keep"))
            return


def _rules_beside_memory(config: Config) -> Iterator[Fault]:
    router = config.routing.router
    for key in ("groups", "matrix"):
        if router.use == "memory" and getattr(router.settings, key):
            message = "has no effect, because router.use is memory; only simulate compares with it"
            yield Fault(("routing", "router", "settings", key), message)


def _sizes_without_memory(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield one warning for each key without effect, however many models have it."""
    if rules_of(config).memory is not None:
        return
    for key in ("memory", "gpus"):
        users = [name for name in config.models if data["models"][name].get(key) is not None]
        if users:
            message = "has no effect, because routing.router.use is not memory"
            yield Fault(("models", users[0], key), message + and_others(len(users) - 1))


def _bodies(config: Config) -> Iterator[Fault]:
    most = config.max_bodies
    if most and not 0 < config.max_body <= most:
        message = "maxBodies limits each body to {} MiB, whatever is set here"
        yield Fault(("maxBody",), message, (most,))


def _verification(model: Model, keys: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    """Yield keys that prove a sleep, for a model that never sleeps."""
    ways = ("sleep", "cmdSleep", "sleepEndpoints", "wakeEndpoints")
    if not model.can_sleep and not any(map(keys.get, ways)):
        for key in ("verify", "maxSleepFailures"):
            if keys.get(key):
                yield Fault((*path, key), "has no effect, because the model has no way to sleep")


def _not_yet(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield one warning for each key without effect, however many models have it."""
    for key, message in NOT_YET.items():
        if data.get(key):
            yield Fault((key,), message)
    for key, message in NOT_YET_OF_MODELS.items():
        users = [name for name in config.models if data["models"][name].get(key)]
        if users:
            yield Fault(("models", users[0], key), message + and_others(len(users) - 1))
