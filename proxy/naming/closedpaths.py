"""Paths that control a model server: nobody but the daemon itself asks for them.

Owns which those are, however they are written: the routes that are known of the presets' servers,
and those of a model's own recipe.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

from configschema import Call, Config, Model
from configschema.keys.recipe import Run, Step
from proxy.http.errors import BadRequest
from proxy.http.heads import as_text, unescaped

UNSEEN = re.compile(r"[\x00-\x20\x7f]")  # which a router may not look at
CONTROL = frozenset(
    {
        # vLLM
        *("/sleep", "/wake_up", "/collective_rpc", "/pause", "/resume", "/abort_requests"),
        *("/init_weight_transfer_engine", "/update_weights", "/start_weight_update"),
        *("/finish_weight_update", "/scale_elastic_ep", "/reset_prefix_cache", "/reset_mm_cache"),
        *("/start_profile", "/stop_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/reset_encoder_cache", "/is_scaling_elastic_ep"),
        # SGLang
        *("/release_memory_occupation", "/resume_memory_occupation", "/pause_generation"),
        *("/continue_generation", "/update_weights_from_disk", "/update_weights_from_tensor"),
        *("/update_weights_from_distributed", "/init_weights_update_group", "/flush_cache"),
        *("/set_internal_state", "/load_lora_adapter", "/unload_lora_adapter", "/abort_request"),
        *("/destroy_weights_update_group", "/update_weights_from_ipc", "/update_weight_version"),
        # llama.cpp
        *("/models/load", "/models/unload", "/lora-adapters"),
        # Ollama
        *("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"),
        # TabbyAPI
        *("/v1/model/load", "/v1/model/unload", "/v1/lora/load", "/v1/lora/unload"),
        *("/v1/model/embedding/load", "/v1/model/embedding/unload", "/v1/download"),
        *("/v1/template/switch", "/v1/template/unload", "/v1/sampling/override/switch"),
        *("/v1/sampling/override/unload",),
    }
)
"""What puts a model server to sleep, or changes what it runs."""
GENERAL = ("/", "/api/generate")  # of Ollama: what puts to sleep there is what chats, too
LONGEST_SHOWN = 200  # characters of a path
URL = re.compile(r"""https?://[^\s'"]+""")
SLOTS = re.compile(r"/slots/[0-9]+")  # llama.cpp's: saves, restores and erases what was said


@attrs.frozen
class Controls:
    """The paths of one configuration that are closed.

    Attributes:
        allowed: whether none is (``upstream.allowControl``).
    """

    allowed: bool
    _own: dict[str, frozenset[str]]
    _bases: dict[str, str]

    @classmethod
    def of(cls, config: Config) -> Controls:
        """Take what the models' recipes say."""
        own = {name: frozenset(_paths_of(model)) for name, model in config.models.items()}
        bases = {name: _base_of(model) for name, model in config.models.items()}
        return cls(config.upstream.allow_control, own, bases)

    def refuse(self, model: str, path: bytes) -> None:
        """Refuse a path that controls a model server.

        Args:
            model: its id; anything else has only what is known of all.
            path: below the model, as it was sent.

        Raises:
            BadRequest: it does.
        """
        if self.allowed:
            return
        plain = self._bases.get(model, "") + plain_path(path)
        closed = (*CONTROL, *self._own.get(model, ()))
        if plain.endswith(closed) or SLOTS.search(plain):
            text = f"{plain[:LONGEST_SHOWN]} controls the model server; it is reached only with "
            raise BadRequest(f"{text}upstream.allowControl", status=403)


def plain_path(path: bytes) -> str:
    """Return a path as the most forgiving router may read it."""
    written = UNSEEN.sub("", as_text(unescaped(path)))
    return posixpath.normpath("/" + written.lstrip("/")).lower()


def _paths_of(model: Model) -> Iterable[str]:
    """Yield the paths by which a model is put to sleep and woken; a question changes nothing."""
    base = _base_of(model)
    asked = {
        _path_of(step.url)
        for step in (*model.recipe.asleep, *model.recipe.awake)
        if isinstance(step, Call)
    }
    for step in (*model.recipe.sleep, *model.recipe.wake):
        for url in _urls_of(step):
            path = _path_of(url)
            below = path.removeprefix(base) or "/"
            if path not in asked and below not in GENERAL:
                yield below


def _urls_of(step: Step) -> Iterable[str]:
    """Return where a step goes: a command of an operator names it somewhere, as curl's does."""
    if isinstance(step, Call):
        return (step.url,)
    return URL.findall(step.command.text) if isinstance(step, Run) else ()


def _base_of(model: Model) -> str:
    """Return the path that everything is below at a model's server; mostly nothing."""
    return _path_of(model.proxy).rstrip("/")


def _path_of(url: str) -> str:
    try:
        return plain_path(urlsplit(url).path.encode())
    except ValueError:  # brackets of no IPv6 address, in a command
        return "/"
