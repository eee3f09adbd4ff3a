"""The models that clients can name: rows of ``/v1/models`` and of the events for pages.

Owns the format of the rows: llama-swap's, with additional keys for what llama-swap does not have.
`running` describes the state of each model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from configschema import Capabilities, Model, Selector
from proxy.naming.directory import Directory, Local, Remote
from proxy.naming.resolving import Resolver
from proxy.observing.running import coming
from supervisor import State, Supervisor
from supervisor.states.table import IN_MOTION

STATUS: Mapping[State, str] = {
    State.QUEUED: "loading",
    State.STARTING: "loading",
    State.WAKING: "loading",
    State.READY: "loaded",
    State.FALLING_ASLEEP: "sleeping",
    State.ASLEEP: "sleeping",
}
"""llama.cpp's words for the states of models. All other states are "unloaded"."""
UNLOADED = "unloaded"
COMING = {State.READY, *IN_MOTION}
WITH_CAPABILITIES = ("architecture", "capabilities", "supported_parameters", "context_length")

Row = dict[str, Any]


def models(resolver: Resolver) -> Row:
    """Return the answer to ``/v1/models``: all names for requests, except unlisted ones."""
    return {"object": "list", "data": sorted(_rows(resolver), key=lambda row: str(row["id"]))}


def model(resolver: Resolver, name: str) -> Row:
    """Return the row of one name. Aliases and unlisted names have a row too.

    Raises:
        UnknownModel: no model has this name.
    """
    rows = {row["id"]: row for row in _rows(resolver, everything=True)}
    if name not in rows:
        resolver.find(name)
    return rows.get(name) or rows[resolver.find(name).id]


def _rows(resolver: Resolver, *, everything: bool = False) -> Iterator[Row]:
    config, supervisor = resolver.config, resolver.supervisor
    for model in config.models.values():
        if everything or not model.unlisted:
            aliases = everything or config.include_aliases_in_list
            yield from _local(model, supervisor, aliases=aliases)
    for remote in resolver.directory.remote():
        yield _remote(remote)
    for name, selector in config.selectors.items():
        if everything or not selector.unlisted:
            yield _selector(name, selector, resolver.directory, supervisor)
    known = {*resolver.directory.names(), *config.selectors}
    for pin, target in resolver.pins.items():
        if target and pin not in known:
            yield _row(pin, UNLOADED, facts={"type": "profile", "target": target})


def _local(model: Model, supervisor: Supervisor, *, aliases: bool) -> Iterator[Row]:
    server = supervisor.servers[model.id]
    facts: Row = {"type": "model"} | (
        {"aliases": list(model.other_names)} if model.other_names else {}
    )
    own, more = of_model(model), _metadata(model)
    status = STATUS.get(server.at.state, UNLOADED)
    rows = [_row(model.id, status, facts=facts, more=more)]
    facts = {"type": "alias", "modelID": model.id}
    names = model.other_names if aliases else ()
    rows += [_row(name, status, facts=facts, more=more) for name in names]
    ready = coming(supervisor, server)
    for row in rows:
        if ready is not None:
            row["status"]["readyIn"] = round(ready.seconds, 1)
        if model.capabilities.context:
            row["meta"]["n_ctx"] = int(model.capabilities.context)
        yield {**row, **own}


def _metadata(model: Model) -> Row:
    """Return a model's metadata, without the keys that its capabilities replace."""
    if model.capabilities == Capabilities():
        return dict(model.metadata)
    return {key: value for key, value in model.metadata.items() if key not in WITH_CAPABILITIES}


def _remote(remote: Remote) -> Row:
    facts = {"type": "peer", "peerID": remote.peer_id}
    return _row(remote.id, UNLOADED, facts=facts)


def _selector(name: str, selector: Selector, directory: Directory, supervisor: Supervisor) -> Row:
    targets = [found for target in selector.targets if (found := directory.find(target))]
    asked = targets[:1] if selector.strategy == "pin" else targets
    local = [target for target in asked if isinstance(target, Local)]
    loaded = any(supervisor.servers[one.model.id].at.state in COMING for one in local)
    facts: Row = {
        "type": "selector",
        "strategy": selector.strategy,
        "targets": list(selector.targets),
    }
    if selector.strategy == "spillover":
        facts["spillover"] = selector.settings.spillover
    row = _row(name, "loaded" if loaded else UNLOADED, facts=facts, more=selector.metadata)
    return {**row, **_said(selector.name, selector.description)}


def _row(name: str, status: str, *, facts: Row, more: Mapping[str, Any] | None = None) -> Row:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "llamadoze",
        "meta": {"llamaswap": {**(more or {}), **facts}},
        "status": {"value": status},
    }


def _said(name: str, description: str) -> Row:
    both = {"name": name, "description": description}
    return {key: text for key, text in both.items() if text}


def of_model(model: Model) -> Row:
    """Return the facts about a model itself: its name, and what it can do."""
    row = _said(model.name, model.description)
    if model.capabilities != Capabilities():
        row |= _capabilities(model.capabilities)
    else:  # the file uses its own metadata instead of the keys for capabilities
        row |= {key: model.metadata[key] for key in WITH_CAPABILITIES if key in model.metadata}
    return row


def _capabilities(known: Capabilities) -> Row:
    takes, makes = list(known.input), list(known.output)
    row: Row = {}
    if takes or makes:
        row["architecture"] = {
            "input_modalities": takes,
            "output_modalities": makes,
            "modality": f"{'+'.join(takes)}->{'+'.join(makes)}",
        }
    row["capabilities"] = {
        "vision": "image" in takes and "text" in makes,
        "audio_transcriptions": "audio" in takes and "text" in makes,
        "audio_speech": "audio" in makes,
        "image_generation": "image" in makes,
        "image_to_image": "image" in takes and "image" in makes,
        "function_calling": known.tools,
        "reranker": known.reranker,
    }
    if known.tools:
        row["supported_parameters"] = ["tools", "tool_choice"]
    if known.context:
        row["context_length"] = int(known.context)
    return row


def statuses(resolver: Resolver) -> list[Row]:
    """Return the rows of all models for ``/api/events``."""
    supervisor = resolver.supervisor
    rows: list[Row] = []
    for model in resolver.config.models.values():
        row = _status(model.id, model.name, model.description, unlisted=model.unlisted)
        server = supervisor.servers[model.id]
        row["state"] = server.at.state.value
        if ready := coming(supervisor, server):
            row["readyIn"] = round(ready.seconds, 1)
        if model.other_names:
            row["aliases"] = list(model.other_names)
        if model.capabilities != Capabilities():
            row |= {k: v for k, v in _capabilities(model.capabilities).items() if k in SHOWN}
        rows.append(row)
    rows += [_status(one.id, "", "", peer=one.peer_id) for one in resolver.directory.remote()]
    return sorted(rows, key=lambda row: str(row["id"]))


SHOWN = ("capabilities", "context_length")


def _status(
    name: str, title: str, description: str, *, unlisted: bool = False, peer: str = ""
) -> Row:
    return {
        "id": name,
        "name": title,
        "description": description,
        "state": "",
        "unlisted": unlisted,
        "peerID": peer,
    }
