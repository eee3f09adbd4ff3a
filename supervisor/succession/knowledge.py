"""What a daemon has learned of its models, kept for the next one: a small file beside the state.

Owns the file, and which model each part belongs to: the model that is started in the same way,
whatever its port. The models decide what is learned.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs
import structlog
import trio

from configschema import Model
from supervisor.processes.plainfiles import text_of
from supervisor.states.learned import NOTHING_LEARNED, Learned, learned_in
from supervisor.succession.records import write_anew

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

BETWEEN_WRITES = 5.0  # seconds
LARGEST_FILE = 10_000_000  # characters
ANY_PORT = 1
MOST_KEPT = 500  # models; beyond that, what was learned longest ago is forgotten


@attrs.define(eq=False)
class Knowledge:
    """What is known of all models, of this configuration and of earlier ones.

    Attributes:
        file: where it is kept; with None it is kept only as long as the daemon runs.
    """

    file: Path | None = None
    _known: dict[str, Learned] = attrs.field(factory=dict, init=False)
    _fingerprints: dict[str, tuple[Model, str]] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _has_told: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.file is not None:
            self._known = _read(self.file)

    def recall(self, model: Model) -> Learned:
        """Return what is known of a model."""
        if not self._known:  # for example at the first start: no need for a fingerprint
            return NOTHING_LEARNED
        return self._known.get(self._fingerprint(model), NOTHING_LEARNED)

    def keep(self, model: Model, learned: Learned) -> None:
        """Remember what was learned of a model."""
        key = self._fingerprint(model)
        if self._known.get(key, NOTHING_LEARNED) != learned:
            self._known.pop(key, None)
            self._known[key] = learned  # last, as the newest
            while len(self._known) > MOST_KEPT:
                del self._known[next(iter(self._known))]
            self._changed.set()

    async def run(self) -> None:
        """Write what has changed, at intervals; changes after the last write are not written."""
        while True:
            await self._changed.wait()
            await trio.sleep(BETWEEN_WRITES)
            self.write()

    def write(self) -> None:
        """Write what has changed since the last write."""
        if self.file is None or not self._changed.is_set():
            return
        self._changed = trio.Event()
        known = {key: learned.as_data() for key, learned in self._known.items()}
        try:
            write_anew(self.file, json.dumps({"models": known}))
        except OSError as error:
            if not self._has_told:
                reason = f"Cannot write {self.file}: {error.strerror}"
                log.warning(f"{reason}; what is learned of the models lasts until the daemon ends")
            self._has_told = True

    def _fingerprint(self, model: Model) -> str:
        known = self._fingerprints.get(model.id)
        if known is None or known[0] is not model:
            known = self._fingerprints[model.id] = model, _fingerprint_of(model)
        return known[1]


def _fingerprint_of(model: Model) -> str:
    """Return a fingerprint of the way in which a model is started, without its port."""
    model = model.as_written
    if model.on_port:  # llamadoze chooses the port, which changes with the models beside it
        model = model.on_port(ANY_PORT)
    facts = [model.id, model.cmd.argv, model.env, model.detached, model.gpus, model.recipe.way]
    if not model.cmd:  # nothing else distinguishes it
        facts.append(model.proxy)
    return hashlib.sha256(repr(facts).encode(errors="surrogatepass")).hexdigest()[:32]


def _read(file: Path) -> dict[str, Learned]:
    try:
        found = json.loads(text_of(file, LARGEST_FILE))["models"]
        return {key: learned_in(data) for key, data in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning(f"Cannot read {file}: {error!r}; llamadoze measures the models again")
        return {}
