"""Choices by hash: uniform, stable across processes, and true to the borders between strings."""

from instructedit.tasks.choice import split_fraction, stable_fraction, stable_hash, stable_sample


def test_the_hash_is_the_same_in_every_process_and_sees_borders() -> None:
    # The first 8 bytes of `printf '1:a1:b' | sha256sum`: a change would reshuffle every prepared set.
    assert stable_hash("a", "b") == 0xFACDDE7ABF1EAC5B
    assert stable_hash("ab", "c") != stable_hash("a", "bc")


def test_fractions_are_spread_over_the_unit_interval() -> None:
    fractions = [stable_fraction("x", str(i)) for i in range(2000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert all(150 < sum(int(10 * fraction) == tenth for fraction in fractions) < 250 for tenth in range(10))
    assert split_fraction("s", "p") != split_fraction("p", "s")


def test_a_sample_ignores_order_and_repeats() -> None:
    items = [str(i) for i in range(20)]
    chosen = stable_sample(items, 5, "salt")
    assert len(set(chosen)) == 5
    assert stable_sample([*items[::-1], *items], 5, "salt") == chosen
    assert stable_sample(items, 5, "other") != chosen
    assert len(stable_sample(items, 50)) == 20
