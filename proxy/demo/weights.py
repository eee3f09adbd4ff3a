"""A tiny language model with random weights, in llama.cpp's format.

Owns what makes random output readable: hidden dimension 0 is constant through all layers, so the
output layer can use it as a bias towards whole words. Needs numpy and gguf, which are imported on
demand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import numpy as np

    Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

TEXT = """
a and asleep awake bed blanket breath bright calm cat chair clock cloud corner cup dark
dawn day deep door dream drift dusk evening eye far feather field fire floor fog garden
gentle grass gray hand hill home hour hum in is lamp late leaf light lion long low meadow
mild milk moon morning moss murmur near nest night noon of old on owl pale pillow pond
quiet rain rest river room rug sea shade sheep silence sky slow slumber small snore snow
soft song star still stone stream sun tea the then tide tired to tree under valley warm
wave while wind window winter wood yawn
"""
WORDS = TEXT.split()
CONTROL = ["<|begin|>", "<|turn|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}: {{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)


@attrs.frozen(kw_only=True)
class Shape:
    """The size of a model. The default makes a file of about 0.3 MB."""

    width: int = 64
    heads: int = 2
    layers: int = 2
    inner: int = 192
    context: int = 4096

    @property
    def head_width(self) -> int:
        """The size of one attention head."""
        return self.width // self.heads


def write_model(path: Path, *, name: str, seed: int, shape: Shape | None = None) -> None:
    """Write a model. The same seed makes the same model.

    Raises:
        ImportError: numpy or gguf is missing.
    """
    import gguf

    shape = shape or Shape()
    tokens = vocabulary()
    partial = path.with_suffix(".partial")
    out = gguf.GGUFWriter(str(partial), "llama")
    _describe(out, gguf, name, shape, tokens)
    for tensor, values in make_weights(shape, len(tokens), seed).items():
        out.add_tensor(tensor, values.astype("float16" if values.ndim > 1 else "float32"))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    partial.rename(path)


def _describe(out: Any, gguf: Any, name: str, shape: Shape, tokens: list[str]) -> None:  # noqa: ANN401 -- gguf ships no types
    out.add_name(name)
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.inner)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_rope_dimension_count(shape.head_width)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    plain, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    out.add_token_types([control if token in CONTROL else plain for token in tokens])
    out.add_token_merges(["Ġ t"])
    first = len(tokens) - len(CONTROL)
    out.add_bos_token_id(first)
    out.add_eos_token_id(first + 2)
    out.add_pad_token_id(first)
    out.add_add_bos_token(False)
    out.add_chat_template(CHAT_TEMPLATE)


def vocabulary() -> list[str]:
    """Return the tokens in the order of their numbers. The last ones are control tokens."""
    return [*_byte_tokens(), "Ġt", *("Ġ" + word for word in WORDS), *CONTROL]


def _byte_tokens() -> list[str]:
    """Return GPT-2's printable character for each byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def make_weights(shape: Shape, vocabulary: int, seed: int) -> Weights:
    """Return the weights under llama.cpp's names. The same seed makes the same weights."""
    import numpy as np

    random = np.random.default_rng(seed)
    width, inner = shape.width, shape.inner

    def noise(rows: int, columns: int, scale: float) -> Any:  # noqa: ANN401 -- numpy's generics
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return values * np.float32(scale / np.sqrt(columns))

    embedding = noise(vocabulary, width, np.sqrt(width))
    embedding[:, 0] = np.sqrt(width)
    output = noise(vocabulary, width, 3.0)
    output[:, 0] = _word_bias(np, vocabulary) * np.sqrt(2.0 / width)
    ones = np.ones(width, dtype=np.float32)
    weights = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": ones}
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        attention_out, feed_forward_out = noise(width, width, 0.5), noise(width, inner, 0.5)
        attention_out[0] = feed_forward_out[0] = 0  # nothing changes the constant dimension
        weights |= {
            f"{block}.attn_norm.weight": ones,
            f"{block}.attn_q.weight": noise(width, width, 1.0),
            f"{block}.attn_k.weight": noise(width, width, 1.0),
            f"{block}.attn_v.weight": noise(width, width, 1.0),
            f"{block}.attn_output.weight": attention_out,
            f"{block}.ffn_norm.weight": ones,
            f"{block}.ffn_gate.weight": noise(inner, width, 1.0),
            f"{block}.ffn_up.weight": noise(inner, width, 1.0),
            f"{block}.ffn_down.weight": feed_forward_out,
        }
    return weights


def _word_bias(np: Any, vocabulary: int) -> Any:  # noqa: ANN401 -- numpy, imported by the caller
    """Return a bias towards whole words, against lone bytes, and never the end of a reply."""
    bias = np.full(vocabulary, -8.0, dtype=np.float32)
    bias[257 : vocabulary - len(CONTROL)] = 0.0
    bias[vocabulary - len(CONTROL) :] = -30.0
    return bias
