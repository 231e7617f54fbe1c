"""Inner products from factors against matrices that are formed."""

import pytest
import torch

from instructedit.analysis.gram import Factors, Way, directions, distances, gram


def random_factors(seed: int, counts: list[int], d_in: int, d_out: int) -> Factors:
    """Factors of matrices whose norms differ by many orders."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(sum(counts), d, generator=generator) for d in (d_in, d_out))
    size = torch.repeat_interleave(10.0 ** torch.arange(len(counts)).mul(-3), torch.tensor(counts))
    return Factors(left, right * size.unsqueeze(1), counts)


def formed(factors: Factors) -> torch.Tensor:
    matrices = [factors.left[span].double().T @ factors.right[span].double() for span in factors.spans]
    flat = torch.stack(matrices).flatten(1)
    return flat @ flat.T


@pytest.mark.parametrize("way", ["tokens", "slabs", "auto"])
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
@pytest.mark.parametrize("shape", [(5, 11), (11, 5)])
def test_both_ways_give_the_products_of_the_formed_matrices(way: Way, block: int, shape: tuple[int, int]) -> None:
    factors = random_factors(0, [3, 1, 0, 7, 2], *shape)
    found, wanted = gram(factors, way=way, block=block), formed(factors)
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    # Relative to the two norms: the smallest matrices are 12 orders below the largest.
    scale = wanted.diagonal().sqrt().clamp_min(1e-300)
    assert ((found - wanted) / scale / scale.unsqueeze(1)).abs().max() < 1e-6
    assert found[2].abs().max() == 0


def test_the_matrix_that_cancels_itself_is_zero() -> None:
    row = torch.ones(1, 3)
    factors = Factors(torch.cat([row, row, row]), torch.cat([row, -row, row]), [2, 1])
    torch.testing.assert_close(
        gram(factors, way="slabs"), torch.diag(torch.tensor([0.0, 9.0]).double()), atol=1e-5, rtol=0
    )


def test_joined_lists_and_what_follows_from_a_table() -> None:
    parts = [random_factors(seed, [2, 1], 4, 3) for seed in (1, 2)]
    both = Factors.joined(parts)
    assert list(both.counts) == [2, 1, 2, 1]
    table = gram(both)
    flat = torch.stack([both.left[span].T @ both.right[span] for span in both.spans]).flatten(1).double()
    torch.testing.assert_close(distances(table), torch.cdist(flat, flat), atol=1e-3, rtol=1e-3)
    cosines = torch.nn.functional.cosine_similarity(flat.unsqueeze(1), flat, dim=-1)
    torch.testing.assert_close(directions(table), cosines, atol=1e-5, rtol=0)
    nothing = directions(torch.zeros(2, 2, dtype=torch.float64))
    assert nothing.abs().max() == 0
