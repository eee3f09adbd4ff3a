"""Warnings of the file as a whole: what is hardly meant, and what has no effect.

Commands have theirs in `commands`, presets in `presetneeds`, containers in `containeroptions`,
other servers outside in `serversoutside`, clusters in `inclusters`, unknown keys in `unknown`.
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
    "logTimeFormat": "not in effect: the log has its own form of time",
    "logRequests": "ignored, as in llama-swap",
    "tailcat": "not in effect: Tailcat is not spoken here; put its socks or Tailscale in front",
}
NOT_YET_OF_MODELS: dict[str, str] = {
    "healthCheckTimeout": "ignored, as in llama-swap; readyTimeout is a model's own limit",
}


def advise(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what its author should know; `data` is the file's, macros expanded."""
    if config.log_level.lower() not in LOG_LEVELS:
        message = f"{{}} is none of {', '.join(LOG_LEVELS)}, and counts as info"
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
            yield Fault(place, "there is no model {}; it is left out", (name,))
    if config.store is not None and not _is_writable(File(config.store.path)):
        yield Fault(("store", "path"), "{} cannot be written", (config.store.path,))
    if DEFAULT_GROUP in rules_of(config).groups:
        place = (*rules_of(config).path, DEFAULT_GROUP)
        yield Fault(place, "this group is made of all models in no other group; yours is ignored")
    yield from _kept_apart(config)
    yield from _rules_beside_memory(config)
    yield from _sizes_without_memory(config, data)
    yield from _bodies(config)
    yield from _not_yet(config, data)


def _is_writable(file: File) -> bool:
    return os.access(file if file.exists() else file.parent, os.W_OK)


def _model(model: Model, path: Path, config: Config) -> Iterator[Fault]:
    if not model.cmd and not (model.is_elsewhere and model.proxy):
        yield Fault((*path, "cmd"), "there is no cmd: the model cannot be started")
    for number, alias in enumerate(model.aliases):
        if alias in config.models and alias != model.id:
            message = "alias {} is also a model's id, which wins"
            yield Fault((*path, "aliases", number), message, (alias,), also=("models", alias))
    for number, entry in enumerate(model.env):
        if "=" not in entry.lstrip("="):
            yield Fault((*path, "env", number), "expected NAME=value; without it nothing is set")
    is_meant = model.cmd or model.is_elsewhere
    if is_meant and "${" not in model.proxy and not is_reachable(model.proxy):
        message = "leads nowhere: expected an address such as http://127.0.0.1:8000, found {}"
        yield Fault((*path, "proxy"), message, (model.proxy,))
    for key, found in (("in", model.capabilities.input), ("out", model.capabilities.output)):
        for number, word in enumerate(found):
            if word not in MODALITIES:
                message = f"{{}} is none of {', '.join(MODALITIES)}; it is only shown"
                yield Fault((*path, "capabilities", key, number), message, (word,))
    if model.sleep_mode == "enable" and model.sleep:
        yield Fault((*path, "sleepMode"), "not used: sleep says how this model sleeps")
    if model.sleep_mode == "disable" and (model.sleep_endpoints or model.wake_endpoints):
        key = "sleepEndpoints" if model.sleep_endpoints else "wakeEndpoints"
        yield Fault((*path, key), "not used: sleepMode is not enable")
    limits = resolve_limits(config, model)
    if limits.stop_ttl and limits.sleep_ttl >= limits.stop_ttl:
        message = "is not reached: the model is stopped after {} seconds without use"
        yield Fault((*path, "sleepTtl"), message, (limits.stop_ttl,))


def _kept_apart(config: Config) -> Iterator[Fault]:
    """Name the first two models that are never asked to leave, and cannot run together."""
    company, kept = company_of(config), [one.id for one in config.models.values() if one.keep]
    for one, other in combinations(kept, 2):
        if not company.may_meet(one, other):
            message = "is kept, as {} is, and the two may not run together: the first to be up "
            message += "keeps the other from running. Let groups, a matrix or memory allow both"
            yield Fault(("models", other, "keep"), message, (one,), also=("models", one, "keep"))
            return


def _rules_beside_memory(config: Config) -> Iterator[Fault]:
    router = config.routing.router
    for key in ("groups", "matrix"):
        if router.use == "memory" and getattr(router.settings, key):
            message = "not used: router.use is memory; simulate compares with it"
            yield Fault(("routing", "router", "settings", key), message)


def _sizes_without_memory(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Say once for each key that it has no effect, however many models have it."""
    if rules_of(config).memory is not None:
        return
    for key in ("memory", "gpus"):
        users = [name for name in config.models if data["models"][name].get(key) is not None]
        if users:
            message = "has no effect: routing.router.use is not memory"
            yield Fault(("models", users[0], key), message + and_others(len(users) - 1))


def _bodies(config: Config) -> Iterator[Fault]:
    most = config.max_bodies
    if most and not 0 < config.max_body <= most:
        message = "one body may have {} MiB at most, which is maxBodies, whatever is said here"
        yield Fault(("maxBody",), message, (most,))


def _verification(model: Model, keys: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    """Name what would prove a sleep of a model that never sleeps."""
    ways = ("sleep", "cmdSleep", "sleepEndpoints", "wakeEndpoints")
    if not model.can_sleep and not any(map(keys.get, ways)):
        for key in ("verify", "maxSleepFailures"):
            if keys.get(key):
                yield Fault((*path, key), "has no effect: the model has no way to sleep")


def _not_yet(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Say once for each key that it has no effect, however many models have it."""
    for key, message in NOT_YET.items():
        if data.get(key):
            yield Fault((key,), message)
    for key, message in NOT_YET_OF_MODELS.items():
        users = [name for name in config.models if data["models"][name].get(key)]
        if users:
            yield Fault(("models", users[0], key), message + and_others(len(users) - 1))
