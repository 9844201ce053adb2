"""separation: a simplex, a known law, neighbours counted by hand, and nulls that are null."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from nfcodes_lib.separation import NeighborTable, class_geometry, neighbor_table, separation_law


def simplex(n_classes=4, *, noise=0.0, n=50, seed=0):
    """Class means at the corners of a simplex, turned and moved, with round noise about them; codes and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), n)
    corners = (np.eye(n_classes) - 1 / n_classes) @ ortho_group.rvs(n_classes, random_state=seed)
    return corners[labels] + noise * rng.normal(size=(len(labels), n_classes)) + 3, labels


def test_a_simplex_is_a_collapsed_layer():
    found = class_geometry(*simplex())
    for measure in ("fuzziness", "nc1", "variance_ratio", "equinorm", "equiangle", "simplex_gap"):
        assert getattr(found, measure) == pytest.approx(0, abs=1e-9)
    assert found.cosine_within == pytest.approx(0, abs=1e-9)
    assert found.mean_cosines[0, 1] == pytest.approx(-1 / 3)


def test_fuzziness_of_round_noise_about_a_simplex():
    # S_W = s^2 I, and S_B is 1 / C on the C - 1 dimensions of the simplex: D = (C - 1) C s^2
    codes, labels = simplex(4, noise=0.1, n=20_000)
    found = class_geometry(codes, labels)
    assert found.fuzziness == pytest.approx(3 * 4 * 0.01, rel=0.02)
    assert found.nc1 == found.fuzziness / 4
    assert found.variance_ratio == pytest.approx(4 * 0.01 / (3 / 4), rel=0.02)


def test_one_weak_direction_rules_fuzziness_and_not_the_ratio_of_variances():
    codes, labels = simplex(3, noise=0.05, n=400)
    flat = codes - codes.mean(0)
    direction = np.linalg.svd(flat, full_matrices=False)[2][1]
    weak = flat - 0.95 * np.outer(
        np.array([flat[labels == c].mean(0) for c in range(3)])[labels] @ direction, direction
    )
    assert class_geometry(weak, labels).fuzziness > 50 * class_geometry(flat, labels).fuzziness
    assert class_geometry(weak, labels).variance_ratio < 2.5 * class_geometry(flat, labels).variance_ratio


def test_hand_set_pairs_within_and_between():
    codes = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = class_geometry(codes, [0, 0, 1, 1])
    assert found.cosine_within == pytest.approx((0 + 2) / 2)
    assert found.cosine_between == pytest.approx(1)


def test_unequal_class_means_are_neither_equal_in_norm_nor_in_angle():
    codes = np.array([[4.0, 0.0], [4.2, 0.0], [-1.0, 1.0], [-1.2, 1.0], [-1.0, -1.0], [-1.2, -1.0]])
    found = class_geometry(codes, [0, 0, 1, 1, 2, 2])
    assert found.equinorm > 0.2
    assert found.equiangle > 0.2
    assert found.simplex_gap > 0.2


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 2), st.floats(0.01, 100), st.integers(0, 100), st.permutations(range(4)))
def test_rotation_scale_and_names_change_nothing(noise, scale, seed, names):
    codes, labels = simplex(noise=noise, seed=seed)
    before = class_geometry(codes, labels)
    after = class_geometry(scale * codes @ ortho_group.rvs(4, random_state=seed + 1), np.array(names)[labels])
    for measure in ("fuzziness", "variance_ratio", "equinorm", "equiangle", "cosine_within", "cosine_between"):
        assert getattr(after, measure) == pytest.approx(getattr(before, measure), rel=1e-6, abs=1e-9)


def test_law_of_an_exact_sequence_and_of_one_that_stalls():
    law = separation_law(200 * 0.4 ** np.arange(5))
    assert (law.factor, law.start, law.r_squared) == pytest.approx((0.4, 200, 1))
    assert law.fitted == pytest.approx(200 * 0.4 ** np.arange(5))
    stalled = separation_law([200, 190, 180, 170, 2])
    assert stalled.r_squared < 0.7
    assert stalled.steps[-1] < 0.02 < 0.9 < stalled.steps[0]


def test_law_of_a_constant_has_factor_one():
    law = separation_law([5.0, 5.0, 5.0])
    assert (law.factor, law.r_squared) == pytest.approx((1, 1))


def test_neighbours_counted_by_hand():
    codes = np.array([[0.0], [1.0], [1.9], [10.0], [11.0]])
    table = neighbor_table(codes, [0, 0, 1, 1, 1], n_neighbors=1)
    assert table.counts.tolist() == [[1, 1], [1, 2]]  # 1.0 has 1.9 for neighbour, and the other way round
    chance = (2 * 1 + 3 * 2) / (5 * 4)
    assert table.overlap() == pytest.approx((3 / 5 - chance) / (1 - chance))


def test_overlap_without_structure_is_zero_and_with_groups_the_same():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    table = neighbor_table(rng.normal(size=(1000, 3)), labels)
    assert table.overlap() == pytest.approx(0, abs=0.02)
    assert table.overlap([0, 0, 0, 1, 1, 1, 1, 2, 3, 4]) == pytest.approx(0, abs=0.02)


def test_even_errors_give_every_grouping_the_overlap_of_the_classes():
    counts = np.full((10, 10), 40_000) + 600_000 * np.eye(10, dtype=int)
    table = NeighborTable(counts=counts, sizes=np.full(10, 10**6), n_neighbors=1)
    groups = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 2, 3, 4]]
    for grouping in groups:
        assert table.overlap(grouping) == pytest.approx(table.overlap(), abs=1e-5)


def test_grouping_test_finds_the_groups_that_lie_together():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(8), 60)
    centres = 20.0 * np.eye(4)[np.arange(8) // 2]  # classes 2 i and 2 i + 1 share a place
    table = neighbor_table(centres[labels] + rng.normal(size=(480, 4)), labels)
    assert table.overlap(np.arange(8) // 2) == pytest.approx(1)
    null, p_value = table.grouping_test(np.arange(8) // 2, n_permutations=199)
    assert p_value < 0.03  # one of 105 pairings is the right one
    assert null.mean() == pytest.approx(table.overlap(), abs=0.1)


def test_grouping_test_repeats_with_its_seed():
    rng = np.random.default_rng(2)
    table = neighbor_table(rng.normal(size=(100, 2)), rng.permutation(np.arange(100) % 5))
    first, second, other = (
        table.grouping_test([0, 0, 1, 1, 2], n_permutations=9, random_state=s)[0] for s in (0, 0, 1)
    )
    assert (first == second).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_geometry(np.eye(3), [0, 1]), "same samples, got 3 and 2; select both"),
        (lambda: class_geometry(np.eye(4), [0, 0, 0, 0]), "two classes or more of two samples or more, got 1"),
        (lambda: class_geometry(np.eye(4), [0, 0, 0, 1]), "got 2 classes of at least 1; pass more samples"),
        (lambda: class_geometry(np.array([[1.0], [2.0], [1.0], [2.0]]), [0, 0, 1, 1]), "the same mean for all"),
        (lambda: class_geometry(np.array([[0.0], [2.0], [1.0], [3.0]]), [0, 0, 1, 1]), "got 1 of length zero"),
        (lambda: separation_law([3.0, 2.0]), r"three layers or more in one row, got shape \(2,\)"),
        (lambda: separation_law([3.0, 2.0, 0.0]), "positive and finite, got"),
        (lambda: neighbor_table(np.eye(3), [0, 1]), "same samples, got 3 and 2"),
        (lambda: neighbor_table(np.eye(3), [0, 1, 1], n_neighbors=3), "below the number of samples, 3, got 3"),
        (lambda: neighbor_table(np.eye(3), [0, 1, 1], n_neighbors=0), "n_neighbors must be .* at least 1, got 0"),
        (lambda: neighbor_table(np.eye(3), [0, 1, 1], n_neighbors=1).overlap([0]), "each of 2 classes, got 1"),
        (lambda: neighbor_table(np.eye(3), [0, 1, 1], n_neighbors=1).overlap([0, 0]), "two groups or more"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
