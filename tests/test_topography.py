"""topography: distances against a brute-force count, and nulls that tell order from association."""

import numpy as np
import pytest

from nfcodes_lib.grids import grid_distance
from nfcodes_lib.topography import morans_i, within_class_distance

SIZE = {"n_rows": 6, "n_columns": 8}


@pytest.mark.parametrize(("map_type", "grid_type"), [("planar", "rectangular"), ("toroid", "hexagonal")])
def test_distance_equals_the_mean_over_all_pairs_of_samples(map_type, grid_type):
    rng = np.random.default_rng(0)
    units, labels = rng.integers(0, 48, 60), rng.integers(0, 3, 60)
    kind = {"map_type": map_type, "grid_type": grid_type}
    found = within_class_distance(units, labels, **SIZE, **kind, n_permutations=9)
    pairs = grid_distance(units[:, None], units[None, :], 6, 8, **kind)
    other = ~np.eye(60, dtype=bool)
    same = (labels[:, None] == labels[None, :]) & other
    assert found.distance == pytest.approx(pairs[same].mean())
    assert found.expected == pytest.approx(pairs[other].mean())
    assert found.ratio == pytest.approx(pairs[same].mean() / pairs[other].mean())
    of_one = same & (labels == 1)[:, None]
    assert found.per_class[1] == pytest.approx(pairs[of_one].mean())


def test_label_null_is_centred_on_the_expected_distance():
    rng = np.random.default_rng(1)
    found = within_class_distance(rng.integers(0, 48, 300), rng.integers(0, 4, 300), **SIZE, n_permutations=400)
    assert abs(found.label_null.mean() - found.expected) < 4 * found.label_null.std() / 20
    assert found.label_p_value > 0.01
    assert abs(found.label_z_score) < 3


def test_an_ordered_map_passes_both_nulls():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 400)
    units = labels % 2 * 4 + labels // 2 * 24 + rng.integers(0, 3, 400) * 8 + rng.integers(0, 4, 400)  # four quarters
    found = within_class_distance(units, labels, **SIZE, n_permutations=99)
    assert found.ratio < 0.6
    assert (found.label_p_value, found.grid_p_value) == (0.01, 0.01)
    assert found.label_z_score < -10
    assert found.grid_z_score < -10


def test_pure_units_without_order_pass_the_label_null_only():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 400)
    units = np.argsort(rng.random(48))[labels * 12 + rng.integers(0, 12, 400)]  # pure units, strewn over the grid
    found = within_class_distance(units, labels, **SIZE, n_permutations=199)
    assert found.label_p_value == 1 / 200
    assert found.grid_p_value > 0.05


def test_one_unit_for_all_has_no_ratio():
    found = within_class_distance([5] * 6, [0, 0, 0, 1, 1, 1], **SIZE, n_permutations=9)
    assert found.distance == 0
    assert np.isnan([found.ratio, found.label_z_score]).all()
    assert (found.label_p_value, found.grid_p_value) == (1, 1)


def test_a_class_of_one_sample_has_no_distance():
    found = within_class_distance([0, 1, 2], [0, 0, 2], **SIZE, n_permutations=9)
    np.testing.assert_allclose(found.per_class, [1, np.nan, np.nan])


def test_morans_i_by_hand():
    found = morans_i([[0.0, 0.0, 1.0]], n_permutations=9)
    z = np.array([-1, -1, 2]) / 3
    assert found.statistic == pytest.approx(3 / 4 * 2 * (z[0] * z[1] + z[1] * z[2]) / (z @ z))
    assert found.expected == -0.5


def test_smooth_maps_have_order_and_noise_has_none():
    smooth = morans_i(np.add.outer(np.arange(10.0), np.arange(12.0)), n_permutations=99)
    assert (smooth.p_value, smooth.n_units) == (0.01, 120)
    assert smooth.z_score > 10
    noise = morans_i(np.random.default_rng(4).normal(size=(10, 12)), n_permutations=499)
    assert noise.p_value > 0.05
    assert noise.null.mean() == pytest.approx(noise.expected, abs=0.01)


def test_empty_units_are_left_out():
    values = np.add.outer(np.arange(6.0), np.arange(6.0))
    values[2, 3] = np.nan
    found = morans_i(values, n_permutations=99)
    assert found.n_units == 35
    assert found.statistic > 0.6


def test_a_toroid_touches_over_its_edges():
    values = np.zeros((6, 6))
    values[:, 0] = values[:, 5] = 1
    assert (
        morans_i(values, map_type="toroid", n_permutations=9).statistic > morans_i(values, n_permutations=9).statistic
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: within_class_distance([48], [0], **SIZE), r"units must lie in \[0, 48\), got 48"),
        (lambda: within_class_distance([0, 1], [0, 1], **SIZE), "one class with two samples, got none"),
        (lambda: within_class_distance([0, 1], [0], **SIZE), "units and labels must describe the same samples"),
        (lambda: within_class_distance([0, 1], [0, 0], **SIZE, map_type="torus"), "map_type must be one of"),
        (lambda: morans_i(np.zeros(4)), r"shape \(n_rows, n_columns\), got \(4,\); reshape"),
        (lambda: morans_i(np.ones((3, 3))), "values that vary, on units that touch, got 9 units"),
        (lambda: morans_i(np.full((3, 3), np.nan)), "got 0 units with a value; use a smaller map"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
