"""Choices that hash instead of draw: the same on every machine, in every process, in any order.

Knows nothing about records; it sees strings.
"""

import hashlib
from collections.abc import Iterable


def stable_hash(*parts: str) -> int:
    """Hash strings to a 64-bit integer; the parts' borders count, so ("ab", "c") is not ("a", "bc")."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(joined.encode()).digest()[:8], "big")


def stable_fraction(*parts: str) -> float:
    """Hash strings to a number in [0, 1) that is uniform over inputs."""
    # 53 bits: what a float holds exactly, so that rounding can never reach 1.0.
    return (stable_hash(*parts) >> 11) / 2**53


def stable_sample(items: Iterable[str], count: int, *salt: str) -> tuple[str, ...]:
    """Choose ``count`` distinct strings (fewer where there are fewer), in an order of their own hashes.

    Adding an item to the input moves at most one other out of the choice.
    """
    return tuple(sorted(dict.fromkeys(items), key=lambda item: (stable_hash(*salt, item), item))[:count])


def split_fraction(subject: str, prompt: str) -> float:
    """Where a (subject, prompt) pair lies in [0, 1); pairs below ``--validation`` become validation records."""
    return stable_fraction("validation", subject, prompt)
