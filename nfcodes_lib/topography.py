"""What the order of the map adds: do the samples of one class lie close together, and is selectivity smooth?

Any good clustering associates units with classes. What a map adds is that near units are alike, so two questions here
take its distances into account: how far apart on the grid two samples of one class lie (:func:`within_class_distance`),
and how alike the selectivity of neighbouring units is (:func:`morans_i`; Moran 1950, Biometrika 37).

Two nulls belong to the first. With the labels shuffled over the samples, nothing is left: a distance below this null
says only that units and classes are associated. With the units shuffled over the grid, every unit keeps its samples and
loses its neighbours: a distance below this null is due to the order of the map.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._indices import check_count, check_pair
from .codes import contingency
from .grids import grid_distance, neighbors
from .statistics import permutation_p_value, z_score


@dataclass(frozen=True)
class WithinClassDistance:
    """How far apart on the grid two samples of one class lie.

    Attributes
    ----------
    distance : float
        Mean over all pairs of samples of one class, in steps of the grid.
    expected : float
        Mean over all pairs of samples: exactly the mean of the label null.
    ratio : float
        distance / expected: below 1 if classes cluster; NaN if all samples share one unit.
    per_class : ndarray of float64, shape (n_classes,)
        Mean over the pairs of each class; NaN for classes of fewer than two samples.
    label_null : ndarray of float64, shape (n_permutations,)
        `distance` with the labels shuffled over the samples.
    label_p_value, label_z_score : float
        Share of that null at most as large, and the distance from its mean in its standard deviations.
    grid_null : ndarray of float64, shape (n_permutations,)
        `distance` with the units shuffled over the grid.
    grid_p_value, grid_z_score : float
        Likewise.
    """

    distance: float
    expected: float
    ratio: float
    per_class: np.ndarray
    label_null: np.ndarray = field(repr=False)
    label_p_value: float
    label_z_score: float
    grid_null: np.ndarray = field(repr=False)
    grid_p_value: float
    grid_z_score: float


def within_class_distance(
    units,
    labels,
    *,
    n_rows: int,
    n_columns: int,
    map_type: str = "planar",
    grid_type: str = "rectangular",
    n_permutations: int = 1000,
    random_state: int = 0,
) -> WithinClassDistance:
    """Measure how far apart on the map the samples of one class lie, beside shuffled labels and a shuffled grid.

    Parameters
    ----------
    units, labels : array-like of int, shape (n_samples,)
        Flat unit index and class of the same samples.
    n_rows, n_columns : int
        Size of the map.
    map_type : {"planar", "toroid"}
    grid_type : {"rectangular", "hexagonal"}
    n_permutations : int
        Permutations of each null.
    random_state : int

    Returns
    -------
    WithinClassDistance

    Raises
    ------
    ValueError
        If the arrays do not fit each other or the map, or no class has two samples.

    Notes
    -----
    With h_c the hit map of class c and D the grid distances between units, the sum over ordered pairs of its samples is
    h_c' D h_c: exact, without a matrix of samples by samples.

    Examples
    --------
    >>> units = [0, 1, 0, 1, 10, 11, 10, 11]                    # two classes at either end of a row of twelve
    >>> found = within_class_distance(units, [0] * 4 + [1] * 4, n_rows=1, n_columns=12, n_permutations=99)
    >>> round(found.distance, 3), found.ratio < 0.2
    (0.667, True)
    """
    n_units = check_count(n_rows, "n_rows") * check_count(n_columns, "n_columns")
    n_permutations = check_count(n_permutations, "n_permutations")
    units, labels = check_pair(units, labels, names=("units", "labels"), n_units=n_units)
    hits = contingency(units, labels, n_units=n_units).T.astype(np.float64)
    sizes = hits.sum(1)
    pairs = sizes * (sizes - 1)
    if not pairs.any():
        raise ValueError("expected at least one class with two samples, got none; are labels and units mixed up?")
    everyone = np.arange(n_units)
    distances = grid_distance(
        everyone[:, None], everyone[None, :], n_rows, n_columns, map_type=map_type, grid_type=grid_type
    )
    rng = np.random.default_rng(random_state)

    def summed(maps: np.ndarray) -> np.ndarray:
        return ((maps @ distances) * maps).sum(1)

    of_class = summed(hits)
    distance = float(of_class.sum() / pairs.sum())
    n = len(units)
    expected = float(summed(hits.sum(0, keepdims=True))[0] / (n * (n - 1)))
    label_null, grid_null = np.empty(n_permutations), np.empty(n_permutations)
    cells = labels * n_units
    for i in range(n_permutations):
        shuffled = np.bincount(cells + rng.permutation(units), minlength=hits.size).reshape(hits.shape)
        label_null[i] = summed(shuffled.astype(np.float64)).sum() / pairs.sum()
        grid_null[i] = summed(hits[:, rng.permutation(n_units)]).sum() / pairs.sum()
    return WithinClassDistance(
        distance=distance,
        expected=expected,
        ratio=distance / expected if expected > 0 else float("nan"),
        per_class=np.divide(of_class, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0),
        label_null=label_null,
        label_p_value=permutation_p_value(distance, label_null, smaller=True),
        label_z_score=z_score(distance, label_null),
        grid_null=grid_null,
        grid_p_value=permutation_p_value(distance, grid_null, smaller=True),
        grid_z_score=z_score(distance, grid_null),
    )


@dataclass(frozen=True)
class MoransI:
    """How alike the values of neighbouring units are.

    Attributes
    ----------
    statistic : float
        Moran's I: near 1 for a smooth map, -1 / (n_units - 1) without order, below that for a checkerboard.
    expected : float
        -1 / (n_units - 1).
    null : ndarray of float64, shape (n_permutations,)
        The statistic with the values shuffled over the units that have one.
    p_value, z_score : float
        (1 + permutations at least as large) / (1 + permutations), and the distance from the null's mean in its
        standard deviations.
    n_units : int
        Units that have a value.
    """

    statistic: float
    expected: float
    null: np.ndarray = field(repr=False)
    p_value: float
    z_score: float
    n_units: int


def morans_i(
    values,
    *,
    map_type: str = "planar",
    grid_type: str = "rectangular",
    n_permutations: int = 1000,
    random_state: int = 0,
) -> MoransI:
    """Moran's I of one value per unit over the map, beside a shuffled grid.

    Parameters
    ----------
    values : array-like of float, shape (n_rows, n_columns)
        One value per unit, such as P(class | unit); NaN for empty units, which are left out.
    map_type : {"planar", "toroid"}
    grid_type : {"rectangular", "hexagonal"}
    n_permutations : int
    random_state : int

    Returns
    -------
    MoransI

    Raises
    ------
    ValueError
        If the values are not a map, do not vary, or no two units that have one touch.

    Notes
    -----
    I = (n / W) sum_ij w_ij z_i z_j / sum_i z_i^2, where z is the value less the mean, w_ij is 1 for units that touch
    and 0 otherwise, and W is the sum of w.

    Examples
    --------
    >>> smooth = np.add.outer(np.arange(6.0), np.arange(8.0))
    >>> found = morans_i(smooth, n_permutations=99)
    >>> found.statistic > 0.7, found.p_value
    (True, 0.01)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"values must have shape (n_rows, n_columns), got {values.shape}; reshape it as the map")
    n_permutations = check_count(n_permutations, "n_permutations")
    touching = neighbors(*values.shape, map_type=map_type, grid_type=grid_type)
    values = values.ravel()
    known = np.flatnonzero(np.isfinite(values))
    place = np.full(len(values) + 1, -1)  # the last entry serves the -1 that fills up the neighbours
    place[known] = np.arange(len(known))
    one = np.repeat(np.arange(len(known)), touching.shape[1])
    other = place[touching[known]].ravel()
    one, other = one[other >= 0], other[other >= 0]
    z = values[known] - values[known].mean() if len(known) else values[known]
    if len(one) == 0 or not np.any(np.abs(z) > 1e-12 * np.abs(values[known]).max()):
        raise ValueError(
            f"expected values that vary, on units that touch, got {len(known)} units with a value; "
            "use a smaller map or more samples"
        )
    scale = len(known) / len(one) / (z @ z)
    rng = np.random.default_rng(random_state)
    statistic = float(scale * (z[one] @ z[other]))
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        shuffled = rng.permutation(z)
        null[i] = scale * (shuffled[one] @ shuffled[other])
    return MoransI(
        statistic=statistic,
        expected=-1 / (len(known) - 1),
        null=null,
        p_value=permutation_p_value(statistic, null),
        z_score=z_score(statistic, null),
        n_units=len(known),
    )
