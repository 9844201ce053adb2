"""Figures laid out as a map: one cell per unit, row 0 at the top, empty units hatched. Import them from ``plots``.

A value drawn for a unit without samples would be an invention, so such units are masked (NaN) and hatched, never 0.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from ._plot_style import CLASS_COLORS, EMPTY, axes_grid, axes_or_new, check_names, ink_on, styled
from .grids import unit_positions


@styled
def plot_map(
    values, *, grid_type: str = "rectangular", label: str = "", colorbar: bool = True, ax: Axes | None = None, **artist
) -> Axes:
    """One value per unit, laid out as the map.

    Parameters
    ----------
    values : array-like of float, shape (n_rows, n_columns)
        NaN marks units without a value; they are hatched.
    grid_type : {"rectangular", "hexagonal"}
    label : str
        What the colours mean, with its unit; written at the colour bar.
    colorbar : bool
    ax : matplotlib.axes.Axes, optional
        New ones if None.
    **artist
        Passed to matplotlib's PolyCollection: ``cmap``, ``clim``, ``norm``...

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `values` does not have two axes.
    """
    values = _as_map(values, "values")
    ax = axes_or_new(ax, size=_map_size(values.shape), layout="compressed")
    _, cells = draw_units(ax, values, grid_type=grid_type, **artist)
    if colorbar:
        ax.figure.colorbar(cells, ax=ax, label=label, shrink=0.9)
    return ax


def plot_u_matrix(som, *, grid_type: str | None = None, ax: Axes | None = None, **artist) -> Axes:
    """U-matrix: how far each unit's codebook vector lies from its neighbours'. Dark ridges part the regions of the map.

    Parameters
    ----------
    som : SOM or array-like of float, shape (n_rows, n_columns)
        A fitted map, or the array that its ``u_matrix()`` returns.
    grid_type : {"rectangular", "hexagonal"}, optional
        The map's own, or rectangular for an array.
    ax, **artist
        As in :func:`plot_map`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = som.u_matrix() if hasattr(som, "u_matrix") else som
    settings = {"cmap": "cividis_r", "label": "mean distance to neighbours (activation)"} | artist
    return plot_map(values, grid_type=grid_type or getattr(som, "grid_type", "rectangular"), ax=ax, **settings)


def plot_hit_map(hits, *, grid_type: str = "rectangular", ax: Axes | None = None, **artist) -> Axes:
    """How many samples each unit was best for; units without any are hatched.

    Parameters
    ----------
    hits : array-like of int, shape (n_rows, n_columns)
        From :func:`nfcodes_lib.codes.hit_map`.
    grid_type, ax, **artist
        As in :func:`plot_map`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    settings = {"cmap": "viridis_r", "label": "samples per unit"} | artist
    return plot_map(_hits_or_nan(hits), grid_type=grid_type, ax=ax, **settings)


@styled
def plot_hit_maps(
    hits, *, names=None, grid_type: str = "rectangular", n_columns: int = 5, axes=None, **artist
) -> np.ndarray:
    """One small hit map per output, all on one scale.

    Parameters
    ----------
    hits : array-like of int, shape (n_outputs, n_rows, n_columns)
        From :func:`nfcodes_lib.codes.hit_maps`.
    names : sequence of str, optional
        Name of each output.
    grid_type : {"rectangular", "hexagonal"}
    n_columns : int
        Panels per row.
    axes : array of Axes, optional
        New ones if None.
    **artist
        As in :func:`plot_map`.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_outputs,)
    """
    hits = np.asarray(hits)
    if hits.ndim != 3:
        raise ValueError(f"hits must have shape (n_outputs, n_rows, n_columns), got {hits.shape}; see codes.hit_maps")
    settings = {"cmap": "viridis_r", "clim": (1, max(int(hits.max()), 2))} | artist
    panels = [_hits_or_nan(each) for each in hits]
    names = check_names(names, len(hits), "outputs")
    return _small_maps(panels, names, "samples\nper unit", grid_type, n_columns, axes, settings)


@styled
def plot_component_planes(
    som, features, *, names=None, grid_type: str | None = None, n_columns: int = 4, axes=None, **artist
) -> np.ndarray:
    """Component planes: the values that one feature takes in the codebook, over the map, all on one scale.

    Parameters
    ----------
    som : SOM or array-like of float, shape (n_rows, n_columns, n_features)
        A fitted map, or its codebook.
    features : sequence of int
        Which features to show.
    names : sequence of str, optional
        Name of each feature shown; its index if None.
    grid_type, n_columns, axes, **artist
        As in :func:`plot_hit_maps`.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (len(features),)

    Raises
    ------
    ValueError
        If the codebook has another shape or lacks a feature.
    """
    codebook = as_codebook(som)
    features = [int(feature) for feature in features]
    if not features or min(features) < 0 or max(features) >= codebook.shape[2]:
        raise ValueError(f"features must be indices in [0, {codebook.shape[2]}), got {features}")
    names = check_names([f"feature {i}" for i in features] if names is None else names, len(features), "features")
    shown = codebook[:, :, features]
    settings = {"cmap": "viridis", "clim": (float(shown.min()), float(shown.max()))} | artist
    grid_type = grid_type or getattr(som, "grid_type", "rectangular")
    return _small_maps(list(np.moveaxis(shown, 2, 0)), names, "activation", grid_type, n_columns, axes, settings)


@styled
def plot_majority_map(
    table,
    *,
    n_rows: int,
    n_columns: int,
    names=None,
    size: str = "purity",
    grid_type: str = "rectangular",
    ax: Axes | None = None,
    **artist,
) -> Axes:
    """Each unit in the colour of its majority output, numbered as in the legend, so that no one depends on the colours.

    Parameters
    ----------
    table : CodeTable
    n_rows, n_columns : int
        Size of the map.
    names : sequence of str, optional
        Name of each output.
    size : {"purity", "hits"}
        What the area of a cell shows: the share of the unit's samples that the majority has, or the number of its
        samples relative to the fullest unit.
    grid_type, ax, **artist
        As in :func:`plot_map`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the table's units do not fill the map, `size` is unknown, or there are more outputs than colours.
    """
    n_units, n_outputs = table.counts.shape
    if n_units != n_rows * n_columns:
        raise ValueError(f"the table must have n_rows * n_columns = {n_rows * n_columns} units, got {n_units}")
    if n_outputs > len(CLASS_COLORS):
        raise ValueError(f"expected at most {len(CLASS_COLORS)} outputs to tell apart, got {n_outputs}; merge some")
    if size not in ("purity", "hits"):
        raise ValueError(f"size must be 'purity' or 'hits', got {size!r}")
    names = check_names(names, n_outputs, "outputs")
    ax = axes_or_new(ax, size=_map_size((n_rows, n_columns)), layout="compressed")
    area = table.purity if size == "purity" else table.n_samples / max(table.n_samples.max(), 1)
    side = np.where(table.n_samples > 0, np.sqrt(np.maximum(np.nan_to_num(area), 0.05)), 1.0)
    values = np.where(table.n_samples > 0, 1.0, np.nan).reshape(n_rows, n_columns)
    positions, cells = draw_units(ax, values, grid_type=grid_type, side=side, **artist)
    seen = table.majority >= 0
    cells.set_array(None)
    cells.set_facecolor([CLASS_COLORS[output] for output in table.majority[seen]])
    if max(n_rows, n_columns) <= 24:  # beyond that, the numbers would be too small to read
        for (y, x), output in zip(positions[seen], table.majority[seen], strict=True):
            ax.text(
                x, y, output, color=ink_on(CLASS_COLORS[output]), ha="center", va="center", fontsize=9, clip_on=True
            )
    handles = [Patch(facecolor=CLASS_COLORS[i], label=f"{i}  {names[i]}") for i in range(n_outputs)]
    if not seen.all():
        handles.append(Patch(**EMPTY, label="no sample"))
    what = "purity" if size == "purity" else "samples"
    ax.legend(handles=handles, title=f"majority\n(area: {what})", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def draw_units(ax: Axes, values: np.ndarray, *, grid_type: str = "rectangular", side=1.0, hatch: bool = True, **artist):
    """Draw each unit as a cell of width `side`, those without a value grey and, if `hatch`, hatched.

    Returns the positions (n_units, 2) as (y, x), and the PolyCollection of the units that have a value.
    """
    n_rows, n_columns = values.shape
    positions = unit_positions(n_rows, n_columns, grid_type=grid_type)
    if grid_type == "hexagonal":
        angles = np.pi / 6 + np.arange(6) * np.pi / 3
        outline = np.column_stack([np.cos(angles), np.sin(angles)]) / np.sqrt(3)
    else:
        outline = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    side = np.broadcast_to(side, len(positions))
    corners = positions[:, None, ::-1] + outline[None] * side[:, None, None]
    known = np.isfinite(values.ravel())
    ax.add_collection(
        PolyCollection(corners[~known], **(EMPTY | {"hatch": EMPTY["hatch"] if hatch else None}), label="empty units")
    )
    settings = {"edgecolor": "white", "linewidth": 0.4} | artist
    cells = PolyCollection(corners[known], array=values.ravel()[known].astype(float), **settings)
    ax.add_collection(cells)
    low, high = positions.min(0) - 0.6, positions.max(0) + 0.6
    ax.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]), aspect="equal", xlabel="column", ylabel="row")
    step = max(1, n_rows // 5), max(1, n_columns // 5)
    rows, columns = np.arange(0, n_rows, step[0]), np.arange(0, n_columns, step[1])
    ax.set_yticks(positions[rows * n_columns, 0], rows)
    ax.set_xticks(columns, columns)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return positions, cells


def _small_maps(panels, names, label, grid_type, n_columns, axes, settings) -> np.ndarray:
    """Draw maps side by side on one colour scale, with one colour bar; names as titles, no ticks."""
    shape = panels[0].shape
    settings = {"linewidth": 0.1} | settings
    axes = axes_grid(axes, len(panels), n_columns=n_columns, panel_size=(1.45, 1.45 * shape[0] / shape[1] + 0.35))
    for ax, values, name in zip(axes, panels, names, strict=True):
        ax.set_facecolor("white")
        _, cells = draw_units(ax, _as_map(values, "values"), grid_type=grid_type, hatch=False, **settings)
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="", title=name)
    axes[0].figure.colorbar(cells, ax=list(axes), label=label, shrink=0.8, aspect=25)
    return axes


def as_codebook(som) -> np.ndarray:
    """The codebook (n_rows, n_columns, n_features) of a fitted map, or the array itself."""
    codebook = np.asarray(getattr(som, "codebook_", som))
    if codebook.ndim != 3:
        raise ValueError(
            f"expected a fitted SOM or a codebook of shape (n_rows, n_columns, n_features), got shape {codebook.shape}"
        )
    return codebook


def _as_map(values, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape (n_rows, n_columns), got {values.shape}; reshape it as the map")
    return values


def _hits_or_nan(hits) -> np.ndarray:
    """Counts as floats, NaN for zero."""
    hits = _as_map(hits, "hits")
    return np.where(hits > 0, hits, np.nan)


def _map_size(shape: tuple[int, int]) -> tuple[float, float]:
    """Figure size in inches for a map of this shape with something beside it."""
    return 7.0, float(np.clip(5.0 * shape[0] / shape[1] + 0.7, 2.5, 7.0))
