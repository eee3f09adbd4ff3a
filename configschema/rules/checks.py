"""Rules for a configuration in which every key is right by itself: addresses, sleep, files.

Owns what must agree within a model and at the top of the file. `names` checks names, `routing`
checks groups and matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any

from configschema.keys.schema import Config, Model
from configschema.keys.sections import Check, Endpoint
from configschema.rules.addresses import FORBIDDEN, is_malformed, is_reachable
from configschema.rules.allocations import check_clusters
from configschema.rules.names import check_names
from configschema.rules.routing import check_routing
from configschema.rules.security import check_security
from configschema.text.problems import Fault, Path

SHORTEST_SAMPLE = 5  # seconds; llama-swap's
LONGEST_DURATION = 100  # characters
_NUMBER, _UNIT = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", "ns|us|µs|μs|ms|s|m|h"
_DURATION = re.compile(rf"[-+]?(?:(?:{_NUMBER})(?:{_UNIT}))+|[-+]?0")
_DURATION_PART = re.compile(rf"({_NUMBER})({_UNIT})")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
FRAMING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "expect", "te", "upgrade"}
)
LOWEST_STATUS, HIGHEST_STATUS = 200, 599
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile("[^\t\x20-\x7e]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
NO_ADDRESS = "expected an address such as http://127.0.0.1:8000, found {}"


def check(config: Config, written: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield each broken rule. `written` is the file's data with macros expanded."""
    for name, model in config.models.items():
        path = ("models", name)
        yield from _sleep(model, written["models"][name], path)
        yield from _server(model, path)
        if model.host_header and not _HOST.fullmatch(model.host_header):
            message = "expected a name such as localhost:11434, found {}"
            yield Fault((*path, "hostHeader"), message, (model.host_header,))
        yield from _limits(model, path)
    yield from _globals(config)
    for name, peer in config.peers.items():
        where = ("peers", name, "proxy")
        if not peer.proxy:
            yield Fault(where, "a peer needs an address such as http://10.0.0.2:8080")
        elif peer.proxy.lower().startswith("tailcat:"):
            way = "run `tailcat socks` or Tailscale in between, and give its http:// address"
            yield Fault(where, f"llamadoze does not support Tailcat: {way}")
        elif is_malformed(peer.proxy):
            yield Fault(where, NO_ADDRESS, (peer.proxy,))
    yield from check_names(config)
    yield from check_clusters(config)
    yield from check_routing(config)


def _sleep(model: Model, keys: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    yield from _one_way_to_sleep(model, keys, path)
    for one, other in (("cmdSleep", "cmdWake"), ("cmdWake", "cmdSleep")):
        if keys.get(one) and not keys.get(other):
            yield Fault((*path, one), f"{one} needs {other} as well")
    for command, name in ((model.cmd_sleep, "cmdSleep"), (model.cmd_wake, "cmdWake")):
        if command.open_quote:
            yield Fault((*path, name), f"the quote {command.open_quote} is not closed")
    if model.sleep_mode == "enable" and not (keys.get("cmdSleep") or model.sleep):
        for key in ("sleepEndpoints", "wakeEndpoints"):
            if not _has_steps(keys.get(key)):
                yield Fault((*path, "sleepMode"), f"sleepMode: enable needs {key}")
    yield from _all_steps(model, path)


def _has_steps(value: object) -> bool:
    """Whether a key for steps has a value. Another check refuses a value that is no list."""
    return any(one is not None for one in value) if isinstance(value, list) else bool(value)


def _one_way_to_sleep(model: Model, keys: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    """Yield each second way to sleep. Beside a preset, lists count only if sleepMode is enable."""
    commands, preset = bool(keys.get("cmdSleep")), model.sleep is not None
    if commands and preset:
        message = "sleep and cmdSleep are two ways to sleep: remove one of them"
        yield Fault((*path, "sleep"), message, also=(*path, "cmdSleep"))
    for key in ("sleepEndpoints", "wakeEndpoints"):
        if keys.get(key) and commands:
            message = "cmdSleep and endpoints are two ways to sleep: remove one of them"
            yield Fault((*path, key), message, also=(*path, "cmdSleep"))
        elif keys.get(key) and preset and model.sleep_mode == "enable":
            message = "sleep and endpoints are two ways to sleep: remove one of them"
            yield Fault((*path, key), message, also=(*path, "sleep"))


def written_steps(model: Model) -> Mapping[tuple[str, ...], tuple[Endpoint | Check, ...]]:
    """Return the steps and questions of a model, by the keys that have them in the file."""
    return {
        ("sleepEndpoints",): model.sleep_endpoints,
        ("wakeEndpoints",): model.wake_endpoints,
        ("verify", "asleep"): model.verify.asleep,
        ("verify", "awake"): model.verify.awake,
    }


def _all_steps(model: Model, path: Path) -> Iterator[Fault]:
    for place, found in written_steps(model).items():
        for number, step in enumerate(found):
            yield from _one_step(step, (*path, *place, number))
    for name in model.control_headers:
        yield from _header(name, model.control_headers[name], (*path, "controlHeaders", name))


def _one_step(step: Endpoint | Check, path: Path) -> Iterator[Fault]:
    if step.cmd.open_quote:
        yield Fault((*path, "cmd"), f"the quote {step.cmd.open_quote} is not closed")
    of_requests = ("query", "headers", "body", "expect", "holds")
    if step.cmd and step.endpoint:
        yield Fault(
            (*path, "cmd"), "a step is either a request or a command: remove endpoint or cmd"
        )
    elif step.cmd:
        for key in of_requests:
            if getattr(step, key, None):
                yield Fault(
                    (*path, key), "is for requests only, but this step is a command: remove it"
                )
    elif not _leads_somewhere(step.endpoint):
        message = "expected a path such as /sleep?level=1, found {}"
        yield Fault((*path, "endpoint"), message, (step.endpoint,))
    for number, status in enumerate(step.expect):
        if not LOWEST_STATUS <= status <= HIGHEST_STATUS:
            yield Fault(
                (*path, "expect", number), "{} is not an HTTP status from 200 to 599", (status,)
            )
    for name, value in step.headers.items():
        yield from _header(name, value, (*path, "headers", name))


def _header(name: str, value: str, path: Path) -> Iterator[Fault]:
    """Yield what would break a request's head (RFC 9110, 5.1 and 5.5; RFC 9112, 6)."""
    if name.lower() in FRAMING:
        yield Fault(path, "llamadoze sets the header {} itself: remove it", (name,))
    if not _TOKEN.fullmatch(name):
        yield Fault(path, "{} is not a valid header name", (name,))
    if _UNSENDABLE.search(value):
        yield Fault(path, "the value has characters that a header cannot have")


def _leads_somewhere(endpoint: str) -> bool:
    """Whether an endpoint is a path, or an address to which requests can be sent."""
    if not endpoint or FORBIDDEN.search(endpoint):
        return False
    return (endpoint.startswith("/") and endpoint[1:2] != "/") or is_reachable(endpoint)


def _server(model: Model, path: Path) -> Iterator[Fault]:
    # If a macro is left in it, `expansion` has reported that already.
    if "${" not in model.proxy and is_malformed(model.proxy):
        yield Fault((*path, "proxy"), NO_ADDRESS, (model.proxy,))
    if FORBIDDEN.search(model.check_endpoint):
        yield Fault((*path, "checkEndpoint"), "expected a path, found {}", (model.check_endpoint,))
    for number, entry in enumerate(model.env):
        if "\0" in entry:
            yield Fault((*path, "env", number), "has a NUL character, which no variable can have")


def _limits(model: Model, path: Path) -> Iterator[Fault]:
    if model.sleep_ttl and not model.recipe:
        ways = "give it sleep, cmdSleep and cmdWake, or endpoints with sleepMode: enable"
        yield Fault((*path, "sleepTtl"), f"the model cannot sleep: {ways}")


def _globals(config: Config) -> Iterator[Fault]:
    seconds = duration_in(config.performance.every)
    if seconds is None:
        message = "expected a time such as 5s or 1m30s, found {}"
        yield Fault(("performance", "every"), message, (config.performance.every,))
    elif seconds and seconds < SHORTEST_SAMPLE:
        yield Fault(("performance", "every"), f"must be at least {SHORTEST_SAMPLE}s")
    yield from check_security(config)
    if config.store is not None and (reason := _unusable_file(config.store.path)):
        yield Fault(("store", "path"), reason, (config.store.path,) * ("{}" in reason))


def duration_in(text: str) -> float | None:
    """Return the seconds of a duration in Go's notation, or None if the text is none."""
    if len(text) > LONGEST_DURATION or not _DURATION.fullmatch(text):
        return None
    total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def _unusable_file(path: str) -> str | None:
    if not path.strip():
        return "store needs a path"
    if "\0" in path:
        return "{} is not a path"
    file = File(path)
    if file.is_dir():
        return "{} is a folder, not a file"
    return None
