"""A codebook: keys with radii, values and labels, and how it takes in one more.

Geometry of Hartvigsen et al. 2023, "Aging with GRACE" (arXiv 2211.11031), algorithm 1. Knows tensors and labels only:
nothing about models or requests, nor how a value was found or is used. Legend: k entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Expansion = Literal["coverage", "moving_average"]
"""How a key takes in a near query with its own label: its radius reaches it; or it also moves half the way."""

SPLIT_GAP = 1e-5
"""What the older of two split radii is short of half their distance, so that no point is in both (released code)."""


@dataclass(frozen=True)
class Codebook:
    """Entries in the order they came: keys (k, d_in), values (k, d_out), radii (k,), and a label each.

    Labels are the wanted texts; they only decide whether two entries agree.
    """

    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.labels)

    def entry(self, index: int) -> "Codebook":
        """Return one entry as a codebook of its own."""
        part = slice(index, index + 1)
        return Codebook(self.keys[part], self.values[part], self.radii[part], self.labels[part])

    def with_value(self, index: int, value: Tensor) -> "Codebook":
        """Return the codebook with another value (d_out,) at one entry."""
        return replace(self, values=_changed(self.values, index, value))

    def insert(self, new: "Codebook", expand: Expansion) -> tuple["Codebook", int]:
        """Take in one entry, with its radius as the initial one; say where it went.

        With d the distance to the nearest key: beyond both radii together the entry is added as it is. Nearer, with the
        nearest key's label, no entry is added and the nearest key grows to take in the query. Nearer, with another
        label, the entry is added and both radii become half of d. At d = 0, where half of d would leave no
        radius to either, the new entry takes the old one's place; the paper does not say.

        Returns:
            The new codebook, and the index of the entry that now answers the new key: a grown one's is an old index.
        """
        if len(self) == 0:
            return new, 0
        distances = (self.keys - new.keys).norm(dim=1)
        nearest = int(distances.argmin())
        distance = distances[nearest]
        if distance > new.radii[0] + self.radii[nearest]:
            return self._appended(new), len(self)
        if self.labels[nearest] == new.labels[0]:
            return self._grown(nearest, new.keys[0], distance, expand), nearest
        if distance == 0:
            labels = (*self.labels[:nearest], *new.labels, *self.labels[nearest + 1 :])
            return replace(self.with_value(nearest, new.values[0]), labels=labels), nearest
        halved = _changed(self.radii, nearest, (distance / 2 - SPLIT_GAP).clamp_min(0))
        return replace(self, radii=halved)._appended(replace(new, radii=distance.view(1) / 2)), len(self)

    def _appended(self, new: "Codebook") -> "Codebook":
        return Codebook(
            torch.cat([self.keys, new.keys]),
            torch.cat([self.values, new.values]),
            torch.cat([self.radii, new.radii]),
            self.labels + new.labels,
        )

    def _grown(self, index: int, query: Tensor, distance: Tensor, expand: Expansion) -> "Codebook":
        if distance <= self.radii[index]:
            return self
        grown = replace(self, radii=_changed(self.radii, index, distance))
        if expand == "coverage":
            return grown
        return replace(grown, keys=_changed(self.keys, index, (self.keys[index] + query) / 2))


def joined(books: Sequence[Codebook], expand: Expansion) -> Codebook:
    """Insert all entries of all codebooks into the first, in order."""
    whole, *others = books
    for book in others:
        for index in range(len(book)):
            whole, _ = whole.insert(book.entry(index), expand)
    return whole


def _changed(tensor: Tensor, index: int, value: Tensor) -> Tensor:
    """Copy a tensor with another entry at one index."""
    copied = tensor.clone()
    copied[index] = value
    return copied
