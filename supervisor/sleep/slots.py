"""llama.cpp's slots, which are its prompt caches: saved to files and restored from them.

Owns the requests and the names of the files. The model decides when to save or restore. A failure
fails nothing else: a prompt is only read once more. Source: llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import attrs
import structlog
import trio

from configschema import Call, Model
from configschema.keys.presets import PRESETS
from configschema.keys.recipe import address
from supervisor.sleep.contact import Ask
from supervisor.sleep.proof import size
from supervisor.states.durations import seconds

MOST = 30.0  # seconds to save or to restore all slots of a model
LISTED_WITHIN = 2.0  # seconds for a server to list its slots
_TOKENS = {"save": "n_saved", "restore": "n_restored"}
_BYTES = {"save": "n_written", "restore": "n_read"}
_DONE = {"save": "Saved", "restore": "Restored"}
_NONE_DONE = {
    "save": "No slot was saved",
    "restore": "No slot was restored; there may be none yet",
}
_ROUTER = "llama.cpp-router"

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")
Action = Literal["save", "restore"]


def are_kept(model: Model) -> bool:
    """Whether a model's slots are kept, and its server can have some."""
    return model.slots == "keep" and (model.sleep is None or PRESETS[model.sleep].has_slots)


async def stem_of(model: Model) -> str:
    """Return the prefix of a model's file names, valid for this command and these weights.

    The port is left out, as it may differ each time. Weights that the command names as a file of
    this machine are identified by size and time.
    """
    # This reads the disk, which may hang. The thread changes nothing, so no task has to wait for
    # it.
    return await trio.to_thread.run_sync(partial(_stem, model), abandon_on_cancel=True)


def _stem(model: Model) -> str:
    port = re.compile(rf"(?<!\d){model.port}(?!\d)")
    words = [port.sub("PORT", word) if model.port else word for word in model.cmd.argv]
    given = [entry for entry in model.env if entry.startswith("LLAMA_ARG_")]
    weights = [_stamp(word) for word in model.cmd.argv]
    known = json.dumps([model.id, model.use_model_name, words, given, weights])
    return f"llamadoze-{hashlib.sha256(known.encode()).hexdigest()[:16]}"


def _stamp(word: str) -> tuple[int, int] | None:
    """Return the size and the time of weights; None if a word names no such file."""
    path = word.rpartition("=")[2]
    try:
        found = Path(path).stat() if path.lower().endswith(".gguf") else None
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if found else None


@attrs.frozen
class Slots:
    """The slots of one server, and the files that they are kept in.

    Attributes:
        model: the model.
        ask: makes one request and reads its answer.
        stem: the prefix of the file names.
        limit: seconds for all slots together.
    """

    model: Model
    ask: Ask
    stem: str
    limit: float

    async def save(self) -> None:
        """Save them, unless the server sleeps: they are empty, and a question would wake it."""
        await self._within_limit("save")

    async def restore(self) -> None:
        """Restore what was saved under the same prefix."""
        await self._within_limit("restore")

    async def _within_limit(self, action: Action) -> None:
        with trio.move_on_after(min(MOST, self.limit)) as scope:
            await self._all(action)
        if scope.cancelled_caught:
            within = seconds(min(MOST, self.limit))
            self._tell(f"The slots were not {_DONE[action].lower()} within {within}; skipping them")

    async def _all(self, action: Action) -> None:
        began, done, tokens, length = trio.current_time(), 0, 0, 0
        numbers, failure = await self._idle_slots(action)
        for number in numbers:
            answer = await self.ask(self._call(action, number))
            failure = failure or (answer.failure and f"{action} slot {number} {answer.failure}")
            if answer.failure and action == "save":
                break  # the others would go to the same folder
            if found := _number(answer.data, _TOKENS[action]):
                done, tokens = done + 1, tokens + found
                length += _number(answer.data, _BYTES[action])
        if done:
            took = seconds(trio.current_time() - began)
            what = f"{done} of {len(numbers)} slots: {tokens} tokens, {size(length)}, in {took}"
            self._tell(f"{_DONE[action]} {what}", slots=done, tokens=tokens, bytes=length)
        elif failure:
            self._tell(f"{_NONE_DONE[action]}: {failure}", reason=failure)

    async def _idle_slots(self, action: Action) -> tuple[list[int], str | None]:
        """Return the slots to save or restore, and why these are not known.

        A slot that is processing would be saved when it is done, which may be much later.
        """
        with trio.move_on_after(min(LISTED_WITHIN, self.limit)):
            if action == "save" and await self._sleeps():
                return [], None
            answer = await self.ask(self._question("/slots"))
            return _idle(answer.data), answer.failure and f"/slots {answer.failure}"
        return [], f"no answer within {seconds(LISTED_WITHIN)}"

    async def _sleeps(self) -> bool:
        answer = await self.ask(self._question("/props"))
        return isinstance(answer.data, Mapping) and answer.data.get("is_sleeping") is True

    def _question(self, path: str) -> Call:
        of_router = {"model": self._name, "autoload": "false"}
        query = f"?{urlencode(of_router)}" if self.model.sleep == _ROUTER else ""
        return self._request("GET", f"{path}{query}")

    def _call(self, action: Action, number: int) -> Call:
        body = {"filename": f"{self.stem}-{number}.bin"}
        if self.model.sleep == _ROUTER:
            body["model"] = self._name
        return self._request("POST", f"/slots/{number}?action={action}", json.dumps(body))

    def _request(self, method: str, path: str, body: str = "") -> Call:
        url, headers = address(self.model.proxy, path), self.model.control_headers
        return Call(
            name=f"{method} {path}",
            method=method,
            url=url,
            headers=headers,
            body=body,
            entrance=self.model.entrance,
        )

    @property
    def _name(self) -> str:
        return self.model.use_model_name or self.model.id

    def _tell(self, text: str, **facts: object) -> None:
        log.info(f"<{self.model.id}> {text}", model=self.model.id, **facts)


def _idle(data: object) -> list[int]:
    """Return the numbers of the slots in a list that are not processing."""
    each = [one for one in data if isinstance(one, Mapping)] if isinstance(data, list) else []
    numbers = [one.get("id") for one in each if not one.get("is_processing")]
    return [number for number in numbers if isinstance(number, int)]


def _number(data: object, name: str) -> int:
    """Return a whole number of an answer; 0 if there is none."""
    value = data.get(name) if isinstance(data, Mapping) else None
    return value if isinstance(value, int) and value > 0 else 0
