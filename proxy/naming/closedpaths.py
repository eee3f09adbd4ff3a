"""Paths that control a model server: only the daemon itself may request them.

Owns the list of these paths, in all spellings: the known routes of the servers with presets, and
the routes in a model's own recipe.
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

UNSEEN = re.compile(r"[\x00-\x20\x7f]")  # characters that a router may ignore
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
"""Paths that put a model server to sleep, or change what it runs."""
GENERAL = ("/", "/api/generate")  # Ollama uses the same path for sleep and for generating text
LONGEST_SHOWN = 200  # characters of a path
URL = re.compile(r"""https?://[^\s'"]+""")
SLOTS = re.compile(r"/slots/[0-9]+")  # llama.cpp's: saves, restores and erases conversations


@attrs.frozen
class Controls:
    """The paths that one configuration closes.

    Attributes:
        allowed: whether no path is closed (``upstream.allowControl``).
    """

    allowed: bool
    _own: dict[str, frozenset[str]]
    _bases: dict[str, str]

    @classmethod
    def of(cls, config: Config) -> Controls:
        """Read the paths in the models' recipes."""
        own = {name: frozenset(_paths_of(model)) for name, model in config.models.items()}
        bases = {name: _base_of(model) for name, model in config.models.items()}
        return cls(config.upstream.allow_control, own, bases)

    def refuse(self, model: str, path: bytes) -> None:
        """Refuse a path that controls a model server.

        Args:
            model: the model's id; for any other text, only the paths for all models are closed.
            path: the path below the model, as it was sent.

        Raises:
            BadRequest: the path controls the server.
        """
        if self.allowed:
            return
        plain = self._bases.get(model, "") + plain_path(path)
        closed = (*CONTROL, *self._own.get(model, ()))
        if plain.endswith(closed) or SLOTS.search(plain):
            text = f"{plain[:LONGEST_SHOWN]} controls the model server: "
            raise BadRequest(f"{text}upstream.allowControl can allow it", status=403)


def plain_path(path: bytes) -> str:
    """Return a path as the most forgiving router may read it."""
    written = UNSEEN.sub("", as_text(unescaped(path)))
    return posixpath.normpath("/" + written.lstrip("/")).lower()


def _paths_of(model: Model) -> Iterable[str]:
    """Yield the paths that put a model to sleep and wake it, without paths that only ask."""
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
    """Return the URLs of a step. An operator's command may contain some, such as for curl."""
    if isinstance(step, Call):
        return (step.url,)
    return URL.findall(step.command.text) if isinstance(step, Run) else ()


def _base_of(model: Model) -> str:
    """Return the base path of a model's server, which is mostly empty."""
    return _path_of(model.proxy).rstrip("/")


def _path_of(url: str) -> str:
    try:
        return plain_path(urlsplit(url).path.encode())
    except ValueError:  # a command has brackets around something that is not an IPv6 address
        return "/"
