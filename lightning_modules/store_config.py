"""The settings of a run's trunk store."""

from dataclasses import dataclass
from typing import Literal

from instructedit.base.store import PASS_ROWS, PASS_TOKENS
from instructedit.errors import InputError


@dataclass(frozen=True)
class StoreConfig:
    """How the states entering the first edited block are computed and kept.

    Args:
        rows_per_pass: sequences in one pass through the blocks below.
        pad_to_tokens: lengths are rounded up to a multiple of this.
        share_prefixes: cut texts into pieces of pad_to_tokens, and compute a beginning that several share (an
            instruction, above all) once.
        memory_mib: states kept in memory, in MiB, for training and again as much for evaluation.
        folder: where states are kept on disk too; null for memory only. Runs and ranks may share it.
        disk_gib: how large the folder may become, in GiB; beyond that states are computed whenever they are asked for.
        dtype: dtype of the states; null is the base's. bfloat16 under a float32 base halves the folder, and rounds.
    """

    rows_per_pass: int = PASS_ROWS
    pad_to_tokens: int = PASS_TOKENS
    share_prefixes: bool = True
    memory_mib: int = 2048
    folder: str | None = None
    disk_gib: float = 100.0
    dtype: Literal["float32", "bfloat16"] | None = None

    def __post_init__(self) -> None:
        if self.rows_per_pass < 1 or self.pad_to_tokens < 1 or self.memory_mib < 0:
            raise InputError(
                f"model.store.rows_per_pass and pad_to_tokens are 1 or more and memory_mib is 0 or more; found "
                f"{self.rows_per_pass}, {self.pad_to_tokens} and {self.memory_mib}."
            )
        if not self.disk_gib > 0:
            raise InputError(
                f"model.store.disk_gib is {self.disk_gib}. Set it above 0, or leave model.store.folder out."
            )
