"""Sizes of a base of which only config.json is known, and of the matrices in it. Loads no torch.

The tests hold this against the models that transformers builds. Knows the families of ``adaptors`` by their
``model_type`` alone; of any other it says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructedit.base.sizes import BaseSize
from instructedit.errors import InputError, unknown

_LLAMA_LIKE = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "tie_word_embeddings": True},
    "llama": {**_LLAMA_LIKE, "vocab_size": 32000, "intermediate_size": 11008},
    "mistral": {**_LLAMA_LIKE, "vocab_size": 32000, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {**_LLAMA_LIKE, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32},
    "qwen3": {
        **_LLAMA_LIKE,
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
    },
}
"""What a config.json that leaves a size out means, by ``model_type``."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of one block: its path in there, its widths, and whether an editor takes it by default."""

    path: str
    d_in: int
    d_out: int
    bias: bool
    edited: bool

    @property
    def numbers(self) -> int:
        """Parameters."""
        return self.d_in * self.d_out + (self.d_out if self.bias else 0)


@dataclass(frozen=True)
class ConfigSizes:
    """What a config.json tells of a base.

    Args:
        blocks: how many there are.
        prefix: the path of the list of blocks.
        matrices: those of a block, in forward order.
        norms: other numbers of a block.
        outside: position embeddings, and a token embedding that is not the head's.
        head: last norm and output head.
        width: of the hidden states.
        vocabulary: tokens the head knows.
    """

    blocks: int
    prefix: str
    matrices: tuple[Matrix, ...]
    norms: int
    outside: int
    head: int
    width: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ConfigSizes":
        """Read them.

        Args:
            config: the content of a config.json.

        Raises:
            InputError: the family is not known here, or a size is no number.
        """
        family = str(config.get("model_type"))
        if family not in DEFAULTS:
            raise unknown("model_type", family, DEFAULTS)
        found = DEFAULTS[family] | {key: value for key, value in config.items() if value is not None}
        try:
            return _gpt2(found) if family == "gpt2" else _llama_like(family, found)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise InputError(f"A size in config.json is no number ({type(error).__name__}: {error}).") from error

    @property
    def block(self) -> int:
        """Numbers in one block."""
        return sum(matrix.numbers for matrix in self.matrices) + self.norms

    def base(self, first_block: int) -> BaseSize:
        """The sizes of the base, split before a block."""
        tail = self.blocks - first_block
        return BaseSize(
            embeddings=self.outside,
            trunk=first_block * self.block,
            tail=tail * self.block,
            head=self.head,
            block=self.block,
            tail_blocks=tail,
            width=self.width,
            inner=next(matrix for matrix in self.matrices if matrix.edited).d_out,
            vocabulary=self.vocabulary,
            gated=sum(matrix.edited for matrix in self.matrices) == 3,
        )

    def sites(
        self, last_blocks: int = 3, matrices: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> list[tuple[int, Matrix]]:
        """Choose sites as ``find_sites`` does from a ``SiteSpec``: block and matrix of each, in forward order.

        Raises:
            InputError: there is no such block, matrix or site.
        """
        if names is not None:
            known = {f"{self.prefix}.{n}.{m.path}": (n, m) for n in range(self.blocks) for m in self.matrices}
            for name in names:
                if name not in known:
                    raise unknown("site", name, [f"{self.prefix}.0-{self.blocks - 1}.{m.path}" for m in self.matrices])
            chosen = {known[name] for name in names}
        else:
            if not 1 <= last_blocks <= self.blocks:
                raise InputError(
                    f"last_blocks is {last_blocks}, but the base has {self.blocks} blocks. Set it between 1 and "
                    f"{self.blocks}."
                )
            wanted = [m for m in self.matrices if m.edited] if matrices is None else [self._match(m) for m in matrices]
            chosen = {(n, m) for n in range(self.blocks - last_blocks, self.blocks) for m in wanted}
        if not chosen:
            raise InputError("No site was chosen: the list of names or matrices is empty. Name at least one.")
        return sorted(chosen, key=lambda site: (site[0], self.matrices.index(site[1])))

    def _match(self, wanted: str) -> Matrix:
        found = [m for m in self.matrices if m.path == wanted or m.path.endswith(f".{wanted}")]
        found = [m for m in found if m.edited] or found  # the MLP wins where attention has the same short name
        if len(found) != 1:
            raise unknown("matrix", wanted, [m.path for m in self.matrices])
        return found[0]


def _gpt2(config: Mapping[str, Any]) -> ConfigSizes:
    d, words = int(config["n_embd"]), int(config["vocab_size"])
    inner = int(config.get("n_inner") or 4 * d)
    matrices = (
        Matrix("attn.c_attn", d, 3 * d, True, False),
        Matrix("attn.c_proj", d, d, True, False),
        Matrix("mlp.c_fc", d, inner, True, True),
        Matrix("mlp.c_proj", inner, d, True, True),
    )
    own = 0 if config["tie_word_embeddings"] else words * d
    return ConfigSizes(
        blocks=int(config["n_layer"]),
        prefix="transformer.h",
        matrices=matrices,
        norms=4 * d,
        outside=int(config["n_positions"]) * d + own,
        head=2 * d + words * d,
        width=d,
        vocabulary=words,
    )


def _llama_like(family: str, config: Mapping[str, Any]) -> ConfigSizes:
    d, words, inner = (int(config[key]) for key in ("hidden_size", "vocab_size", "intermediate_size"))
    heads = int(config["num_attention_heads"])
    of_head = int(config.get("head_dim") or d // heads)
    queries, keys = heads * of_head, int(config.get("num_key_value_heads") or heads) * of_head
    by_config = family in ("llama", "qwen3")
    attention = by_config and bool(config.get("attention_bias", False))
    mlp = family == "llama" and bool(config.get("mlp_bias", False))
    matrices = (
        *(
            Matrix(f"self_attn.{name}_proj", d, width, attention or family == "qwen2", False)
            for name, width in (("q", queries), ("k", keys), ("v", keys))
        ),
        Matrix("self_attn.o_proj", queries, d, attention, False),
        Matrix("mlp.gate_proj", d, inner, mlp, True),
        Matrix("mlp.up_proj", d, inner, mlp, True),
        Matrix("mlp.down_proj", inner, d, mlp, True),
    )
    return ConfigSizes(
        blocks=int(config["num_hidden_layers"]),
        prefix="model.layers",
        matrices=matrices,
        norms=2 * d + (2 * of_head if family == "qwen3" else 0),
        outside=0 if config["tie_word_embeddings"] else words * d,
        head=d + words * d,
        width=d,
        vocabulary=words,
    )
