"""Distances on the map, against numbers that one can check with a ruler."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcodes_lib import grids

SETTINGS = [(m, g) for m in grids.MAP_TYPES for g in grids.GRID_TYPES]


def all_distances(n_rows, n_columns, map_type, grid_type):
    """Distances between the drawn points; on a toroid the shortest to any of the nine copies of the map around it."""
    points = grids.unit_positions(n_rows, n_columns, grid_type=grid_type)
    height = n_rows * (np.sqrt(0.75) if grid_type == "hexagonal" else 1)
    steps = (-1, 0, 1) if map_type == "toroid" else (0,)
    copies = [points + np.array([a * height, b * n_columns]) for a in steps for b in steps]
    return np.min([np.linalg.norm(points[:, None] - copy[None], axis=2) for copy in copies], axis=0)


@pytest.mark.parametrize(("map_type", "grid_type"), SETTINGS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (2, 3), (4, 7), (6, 5), (8, 1)])
def test_distances_are_those_of_the_drawn_points(shape, map_type, grid_type):
    if shape[0] % 2 and grid_type == "hexagonal" and map_type == "toroid":
        pytest.skip("a hexagonal toroid has an even number of rows; the refusal has its own test")
    units = np.arange(shape[0] * shape[1])
    distances = grids.grid_distance(units[:, None], units[None], *shape, map_type=map_type, grid_type=grid_type)
    np.testing.assert_allclose(distances, all_distances(*shape, map_type, grid_type), atol=1e-12)


def test_hexagonal_known_distances():
    """On a 3 x 3 hexagonal map the centre touches six units; unit 0 and unit 8 are sqrt(7) apart."""
    units = np.arange(9)
    from_centre = grids.grid_distance(4, units, 3, 3, grid_type="hexagonal")
    np.testing.assert_allclose(from_centre, [np.sqrt(3), 1, 1, 1, 0, 1, np.sqrt(3), 1, 1], atol=1e-12)
    assert grids.grid_distance(0, 8, 3, 3, grid_type="hexagonal") == pytest.approx(np.sqrt(7))
    assert grids.grid_distance(3, 1, 3, 3, grid_type="hexagonal") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("map_type", "grid_type", "corner", "edge", "inside"),
    [
        ("planar", "rectangular", 3, 5, 8),
        ("planar", "hexagonal", 2, 3, 6),
        ("toroid", "rectangular", 8, 8, 8),
        ("toroid", "hexagonal", 6, 6, 6),
    ],
)
def test_neighbors_are_symmetric_and_counted_right(map_type, grid_type, corner, edge, inside):
    around = grids.neighbors(6, 7, map_type=map_type, grid_type=grid_type)
    counts = (around >= 0).sum(axis=1)
    assert (counts[0], counts[14], counts[16]) == (corner, edge, inside)
    pairs = {(unit, other) for unit, row in enumerate(around) for other in row if other >= 0}
    assert pairs == {(other, unit) for unit, other in pairs}
    distances = all_distances(6, 7, map_type, grid_type)
    limit = np.sqrt(grids.ADJACENT[grid_type]) + 1e-6
    assert pairs == set(zip(*np.nonzero((distances > 0) & (distances < limit)), strict=True))


def test_u_matrix_of_a_step():
    """Left half 0, right half 3: only the units along the step see a difference."""
    codebook = np.zeros((3, 4, 1), np.float32)
    codebook[:, 2:] = 3
    np.testing.assert_allclose(
        grids.u_matrix(codebook),
        [[0, 3 * 2 / 5, 3 * 2 / 5, 0], [0, 3 * 3 / 8, 3 * 3 / 8, 0], [0, 3 * 2 / 5, 3 * 2 / 5, 0]],
    )
    assert grids.u_matrix(np.ones((1, 1, 4))).tolist() == [[0.0]]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), which=st.sampled_from(SETTINGS), seed=st.integers(0, 99))
def test_u_matrix_is_the_mean_over_neighbors(rows, columns, which, seed):
    map_type, grid_type = which
    rows = rows + rows % 2
    codebook = np.random.default_rng(seed).normal(size=(rows, columns, 3))
    around = grids.neighbors(rows, columns, map_type=map_type, grid_type=grid_type)
    flat = codebook.reshape(-1, 3)
    expected = [
        np.mean([np.linalg.norm(flat[u] - flat[o]) for o in row if o >= 0] or [0]) for u, row in enumerate(around)
    ]
    result = grids.u_matrix(codebook, map_type=map_type, grid_type=grid_type)
    np.testing.assert_allclose(result.ravel(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, "planar", "rectangular"), "n_rows must be an integer of at least 1, got 0"),
        ((3, 2.5, "planar", "rectangular"), "n_columns must be an integer of at least 1, got 2.5"),
        ((True, 3, "planar", "rectangular"), "n_rows must be an integer"),
        ((3, 3, "flat", "rectangular"), "map_type must be one of"),
        ((3, 3, "planar", "square"), "grid_type must be one of"),
        ((3, 4, "toroid", "hexagonal"), "even number of rows, got n_rows=3; use 4"),
    ],
)
def test_what_is_no_map_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grids.offset_table(*arguments[:2], map_type=arguments[2], grid_type=arguments[3])


def test_units_outside_the_map_are_refused():
    with pytest.raises(ValueError, match="from 0 to 8 on a map of 3 x 3 units, got 0 to 9"):
        grids.grid_distance([0, 9], [1, 1], 3, 3)
