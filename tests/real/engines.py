"""What a model server of the GPU check runs: a random language model on torch, or a stand-in.

This module owns the weights and the cache: where they are, and what a sleep does to them. The
stand-in uses ordinary memory and says nothing useful; with it, the whole check runs without torch.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

VOCABULARY = 512
CONTEXT = 2048  # tokens
# Powers of two: torch pins host memory in pieces of such sizes, and would waste part of a piece.
WIDTHS = (256, 512, 1024, 2048, 4096, 8192)
SPREAD = 0.05  # of the weights: large enough that losing any kind of weight changes the answers
MOST_LAYERS = 48
CACHE = 16  # the cache of keys and values, unused here, takes this fraction of the weights' size


class Engine(Protocol):
    """A model that can give its memory back."""

    def say(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        """Yield tokens, always the same for the same prompt and weights."""

    @property
    def size(self) -> int:
        """The bytes of its weights."""

    def drop_weights(self, *, keep: bool) -> None:
        """Free the weights' memory on the device; `keep` first copies them to host memory."""

    def make_room(self) -> None:
        """Allocate the weights' memory again, and fill it if a copy was kept."""

    def fill(self) -> None:
        """Make the weights from the seed, as at the model's load."""

    def drop_cache(self) -> None:
        """Free the cache's memory."""

    def make_cache(self) -> None:
        """Allocate the cache's memory again."""


def note_held(count: int) -> None:
    """Tell the made-up GPU how many bytes of it this process holds."""
    if folder := os.environ.get("CUDA_STAND_IN"):
        state = Path(folder, f"{os.getpid()}")
        if not state.exists():
            state.write_text("0")
        state.with_suffix(".bytes").write_text(str(count))


class Torch:
    """A Llama of transformers, with random weights in bf16."""

    def __init__(self, gigabytes: float, seed: int, device: str) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        self._torch, self._seed, self._device = torch, seed, device
        shape = _shape(gigabytes)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            **shape,
        )
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):  # created on the device, without a copy on the host
            self._model: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(default)
        self._shapes = [one.shape for one in self._model.parameters()]
        self.size = 2 * sum(one.numel() for one in self._shapes)
        self._kept: list[Any] = []
        self._cache: Any = None
        self.fill()
        self.make_cache()

    def say(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        torch = self._torch
        tokens, past = torch.tensor([list(prompt)], device=self._device), None
        for _ in range(count):
            with torch.inference_mode():
                answer = self._model(tokens, past_key_values=past, use_cache=True)
            past = answer.past_key_values
            tokens = answer.logits[:, -1:].argmax(-1)
            yield int(tokens.item())

    def drop_weights(self, *, keep: bool) -> None:
        weights = list(self._model.parameters())
        if keep:
            # Keep the host memory for the next sleep: pinning it takes longer than filling it.
            self._kept = self._kept or [self._on_host(one) for one in weights]
            for copy, one in zip(self._kept, weights, strict=True):
                copy.copy_(one.data, non_blocking=True)
            self._wait()
        else:
            self._kept = []
        for one in weights:
            one.data = self._torch.empty(0, dtype=one.dtype, device=self._device)
        self._give_back()

    def _on_host(self, weight: Any) -> Any:
        is_pinned = self._device != "cpu"
        return self._torch.empty(weight.shape, dtype=weight.dtype, pin_memory=is_pinned)

    def make_room(self) -> None:
        weights = list(self._model.parameters())
        for one, shape in zip(weights, self._shapes, strict=True):
            one.data = self._torch.empty(shape, dtype=one.dtype, device=self._device)
        for one, copy in zip(weights, self._kept, strict=bool(self._kept)):
            one.data.copy_(copy, non_blocking=True)
        self._wait()
        self._note()

    def fill(self) -> None:
        source = self._torch.Generator(self._device).manual_seed(self._seed)
        for one in self._model.parameters():
            if one.dim() == 1:  # scales of norms: small ones would hide what the layers do
                one.data.fill_(1.0)
            else:
                one.data.normal_(0, SPREAD, generator=source)
        self._wait()
        self._note()

    def drop_cache(self) -> None:
        self._cache = None
        self._give_back()

    def make_cache(self) -> None:
        torch, size = self._torch, self.size // CACHE
        self._cache = torch.zeros(size, dtype=torch.uint8, device=self._device)
        self._wait()
        self._note()

    def _give_back(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.empty_cache()
        self._note()

    def _wait(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.synchronize()

    def _note(self) -> None:
        held = sum(one.nbytes for one in self._model.parameters())
        note_held(held + (0 if self._cache is None else self._cache.nbytes))


def _shape(gigabytes: float) -> dict[str, int]:
    """Return the shape of a Llama whose weights take about `gigabytes` GB."""
    width = next(w for w in WIDTHS if gigabytes * 1e9 <= MOST_LAYERS * _bytes_of_layer(w))
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "num_hidden_layers": max(1, round(gigabytes * 1e9 / _bytes_of_layer(width))),
    }


def _bytes_of_layer(width: int) -> int:
    """Return a layer's bytes in bf16: four square matrices, and three that are twice as long."""
    return 2 * (4 + 3 * 2) * width * width


class StandIn:
    """Ordinary memory instead of weights; the tokens follow from the seed and the prompt."""

    def __init__(self, gigabytes: float, seed: int, _: str = "") -> None:
        self.size, self._seed = round(gigabytes * 1e9), seed
        self._weights, self._cache, self._kept = bytearray(), bytearray(), b""
        self.make_room()
        self.fill()
        self.make_cache()

    def _heard(self) -> int:
        """Return a number that the loss of any part of the weights would change."""
        return zlib.crc32(self._weights)

    def say(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        told = zlib.crc32(
            bytes(one % 256 for one in prompt), self._weights[0] if self._weights else 0
        )
        for _ in range(count):
            told = zlib.crc32(told.to_bytes(4, "big"))
            yield told % VOCABULARY

    def drop_weights(self, *, keep: bool) -> None:
        self._kept = bytes(self._weights) if keep else b""
        self._weights = bytearray()
        self._note()

    def make_room(self) -> None:
        self._weights = bytearray(self._kept) if self._kept else bytearray(self.size)
        self._note()

    def fill(self) -> None:
        self._weights[:] = bytes([self._seed % 256]) * self.size

    def drop_cache(self) -> None:
        self._cache = bytearray()
        self._note()

    def make_cache(self) -> None:
        self._cache = bytearray(self.size // CACHE)
        self._note()

    def _note(self) -> None:
        note_held(len(self._weights) + len(self._cache))
