"""Where the units of a map lie, how far apart they are, and which of them touch.

A unit is counted row by row: unit k sits in row k // n_columns and column k % n_columns. On a rectangular grid unit
(i, j) lies at the point (i, j). On a hexagonal one every second row is shifted by half a step and the rows move
together, (i sqrt(3)/2, j + (i mod 2)/2), so that each unit has six neighbours at distance 1. A toroid map is glued at
its edges: rows and columns wrap around, and distances take the shorter way (Ultsch 2003, "Maps for the visualization
of high-dimensional data spaces", for why one wants that).

All distances between units follow from a small table, one entry per difference of rows and of columns, so a map of K
units needs O(K) numbers where the full matrix has K squared.
"""

from __future__ import annotations

import numpy as np

MAP_TYPES = ("planar", "toroid")
GRID_TYPES = ("rectangular", "hexagonal")
ADJACENT = {"rectangular": 2.0, "hexagonal": 1.0}  # squared distance up to which two units touch: 8 or 6 neighbours
ROW_STEP_SQUARED = {"rectangular": 1.0, "hexagonal": 0.75}


def unit_positions(n_rows: int, n_columns: int, *, grid_type: str = "rectangular") -> np.ndarray:
    """Where each unit lies in the plane.

    Parameters
    ----------
    n_rows, n_columns : int
    grid_type : {"rectangular", "hexagonal"}

    Returns
    -------
    ndarray, float64, shape (n_units, 2)
        Vertical position (down the rows) and horizontal position (along the columns), in steps of the grid.

    Examples
    --------
    >>> unit_positions(2, 2, grid_type="hexagonal").round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.866, 0.5], [0.866, 1.5]]
    """
    rows, columns = (axis.ravel().astype(float) for axis in np.indices((n_rows, n_columns)))
    if grid_type == "hexagonal":
        return np.column_stack([rows * np.sqrt(0.75), columns + rows % 2 / 2])
    return np.column_stack([rows, columns])


def offset_table(
    n_rows: int, n_columns: int, *, map_type: str = "planar", grid_type: str = "rectangular"
) -> np.ndarray:
    """Squared grid distances for every difference of position.

    Parameters
    ----------
    n_rows, n_columns : int
    map_type : {"planar", "toroid"}
    grid_type : {"rectangular", "hexagonal"}

    Returns
    -------
    ndarray, float64, shape (1 or 2, 2 n_rows - 1, 2 n_columns - 1)
        Entry ``[p, n_rows - 1 + di, n_columns - 1 + dj]`` is the squared distance from a unit (i, j) to the unit
        (i + di, j + dj), in squared steps of the grid. On a hexagonal grid p = i mod 2, since even and odd rows see
        their surroundings differently; on a rectangular grid there is one table for all.

    Raises
    ------
    ValueError
        For a name that is not listed above, sizes below 1, or a hexagonal toroid with an odd number of rows: gluing
        its edges would put two rows of the same shift side by side.

    Examples
    --------
    >>> offset_table(2, 2)[0].tolist()
    [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]
    """
    check_grid(n_rows, n_columns, map_type, grid_type)
    di = np.arange(1 - n_rows, n_rows)[:, None]
    dj = np.arange(1 - n_columns, n_columns)[None, :].astype(float)
    if grid_type == "rectangular":
        dj = dj[None]
    else:  # going down an odd number of rows moves right by half a step from an even row, left from an odd one
        half = (di % 2) / 2
        dj = np.stack([dj + half, dj - half])
    di, dj = np.abs(di).astype(float), np.abs(dj)
    if map_type == "toroid":
        di = np.minimum(di, n_rows - di)
        dj = np.minimum(dj, np.abs(n_columns - dj))
    return dj**2 + ROW_STEP_SQUARED[grid_type] * di[None] ** 2


def grid_distance(
    units, others, n_rows: int, n_columns: int, *, map_type: str = "planar", grid_type: str = "rectangular"
) -> np.ndarray:
    """Distance on the map between units, pair by pair.

    Parameters
    ----------
    units, others : array-like of int
        Flat unit indices, of shapes that broadcast against each other.
    n_rows, n_columns, map_type, grid_type
        The map, as in :func:`offset_table`.

    Returns
    -------
    ndarray, float64
        Euclidean distance in steps of the grid, in the broadcast shape.

    Raises
    ------
    ValueError
        If an index is not that of a unit of this map, or the map itself is refused by :func:`offset_table`.

    Examples
    --------
    >>> grid_distance([0, 0], [4, 19], 4, 5).round(3).tolist()
    [4.0, 5.0]
    >>> float(grid_distance(0, 19, 4, 5, map_type="toroid").round(3))
    1.414
    """
    table = offset_table(n_rows, n_columns, map_type=map_type, grid_type=grid_type)
    units, others = np.asarray(units), np.asarray(others)
    for index in (units, others):
        if index.size and (index.min() < 0 or index.max() >= n_rows * n_columns):
            raise ValueError(
                f"expected unit indices from 0 to {n_rows * n_columns - 1} on a map of {n_rows} x {n_columns} units, "
                f"got {index.min()} to {index.max()}; was the map trained with another size?"
            )
    row, column = np.divmod(units, n_columns)
    other_row, other_column = np.divmod(others, n_columns)
    parity = row % len(table)
    return np.sqrt(table[parity, other_row - row + n_rows - 1, other_column - column + n_columns - 1])


def neighbors(n_rows: int, n_columns: int, *, map_type: str = "planar", grid_type: str = "rectangular") -> np.ndarray:
    """The units that touch each unit: eight on a rectangular grid (diagonals count), six on a hexagonal one.

    Returns
    -------
    ndarray, int64, shape (n_units, n)
        Sorted flat indices of each unit's neighbours, filled up with -1 where a unit at the edge has fewer.

    Examples
    --------
    >>> neighbors(2, 3)[0].tolist()
    [1, 3, 4, -1, -1]
    """
    table = offset_table(n_rows, n_columns, map_type=map_type, grid_type=grid_type)
    near = (table > 0) & (table <= ADJACENT[grid_type] + 1e-9)
    rows, columns = (axis.ravel() for axis in np.indices((n_rows, n_columns)))
    shifts = np.argwhere(near.any(axis=0)) - [n_rows - 1, n_columns - 1]
    found = []
    for di, dj in shifts:
        i, j = rows + di, columns + dj
        inside = (i >= 0) & (i < n_rows) & (j >= 0) & (j < n_columns)
        touching = inside & near[rows % len(table), di + n_rows - 1, dj + n_columns - 1]
        found.append(np.where(touching, i * n_columns + j, n_rows * n_columns))
    if not found:
        return np.empty((n_rows * n_columns, 0), np.int64)
    found = np.sort(np.stack(found, axis=1), axis=1).astype(np.int64)
    found = found[:, (found < n_rows * n_columns).any(axis=0)]
    return np.where(found < n_rows * n_columns, found, -1)


def u_matrix(codebook: np.ndarray, *, map_type: str = "planar", grid_type: str = "rectangular") -> np.ndarray:
    """Mean distance of each codebook vector to those of the neighbouring units (Ultsch and Siemon 1990).

    High values are ridges: neighbours on the map that are far apart in the data.

    Parameters
    ----------
    codebook : ndarray, shape (n_rows, n_columns, n_features)
    map_type : {"planar", "toroid"}
    grid_type : {"rectangular", "hexagonal"}

    Returns
    -------
    ndarray, float64, shape (n_rows, n_columns)
        0 for a map of a single unit, which has no neighbours.

    Examples
    --------
    >>> u_matrix(np.array([[[0.0], [1.0], [5.0]]])).tolist()
    [[1.0, 2.5, 4.0]]
    """
    n_rows, n_columns, n_features = codebook.shape
    around = neighbors(n_rows, n_columns, map_type=map_type, grid_type=grid_type)
    flat = codebook.reshape(-1, n_features)
    total = np.zeros(len(flat))
    step = max(1, 2**22 // n_features)  # about 32 MB of differences at a time
    for column in around.T:
        for start in range(0, len(flat), step):
            here = slice(start, start + step)
            difference = flat[column[here]].astype(np.float64) - flat[here]
            total[here] += np.where(column[here] >= 0, np.sqrt(np.einsum("kd,kd->k", difference, difference)), 0.0)
    count = (around >= 0).sum(axis=1)
    return (total / np.maximum(count, 1)).reshape(n_rows, n_columns)


def check_grid(n_rows: int, n_columns: int, map_type: str, grid_type: str) -> None:
    """Raise ValueError, naming the argument, if this is no map (the cases are listed in :func:`offset_table`)."""
    for name, size in (("n_rows", n_rows), ("n_columns", n_columns)):
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
    for name, value, known in (("map_type", map_type, MAP_TYPES), ("grid_type", grid_type, GRID_TYPES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {list(known)}, got {value!r}")
    if map_type == "toroid" and grid_type == "hexagonal" and n_rows % 2:
        raise ValueError(
            f"a hexagonal toroid needs an even number of rows, got n_rows={n_rows}; use {n_rows + 1}, or a planar map"
        )
