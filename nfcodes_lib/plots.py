"""Every figure of the book: one function each, ``plot_x(result, *, ax=None, **artist) -> Axes``.

A function draws on `ax`, or on axes of its own if None, and never shows or saves. Colours are safe for colour-vision
deficiencies and never the only difference; units stand on the axes. This module is the one to import: curves live in
:mod:`nfcodes_lib.plots_curves`, figures laid out as a map in :mod:`nfcodes_lib.plots_maps`, those of one chapter in
:mod:`nfcodes_lib.plots_geometry`, :mod:`nfcodes_lib.plots_reconstruct`, :mod:`nfcodes_lib.plots_paths`,
:mod:`nfcodes_lib.plots_trace` and :mod:`nfcodes_lib.plots_diagnose`; images, tables and the map in the plane of its
data here.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ._plot_style import CLASS_COLORS, INK, SHADE, axes_or_new, check_names, styled, write_numbers
from .grids import neighbors
from .plots_curves import plot_association, plot_curve_with_interval, plot_history, plot_null, plot_occupancy
from .plots_diagnose import (
    plot_auroc_table,
    plot_aurocs,
    plot_reliability,
    plot_risk_coverage,
    plot_score_distributions,
)
from .plots_geometry import (
    plot_depth_change,
    plot_mean_cosines,
    plot_measures,
    plot_separation_law,
    plot_spectra,
)
from .plots_maps import (
    as_codebook,
    plot_component_planes,
    plot_hit_map,
    plot_hit_maps,
    plot_majority_map,
    plot_map,
    plot_u_matrix,
)
from .plots_paths import plot_attack, plot_paths, plot_transitions
from .plots_reconstruct import plot_code_errors, plot_image_checks, plot_image_map, plot_image_maps, plot_image_rows
from .plots_trace import budget_name, plot_networks, plot_patching, plot_propagation, plot_stages

__all__ = [
    "CLASS_COLORS",
    "budget_name",
    "plot_association",
    "plot_attack",
    "plot_auroc_table",
    "plot_aurocs",
    "plot_code_errors",
    "plot_code_table",
    "plot_codebook_2d",
    "plot_codes",
    "plot_component_planes",
    "plot_curve_with_interval",
    "plot_depth_change",
    "plot_history",
    "plot_hit_map",
    "plot_hit_maps",
    "plot_image_checks",
    "plot_image_map",
    "plot_image_maps",
    "plot_image_rows",
    "plot_images",
    "plot_majority_map",
    "plot_map",
    "plot_mean_cosines",
    "plot_measures",
    "plot_networks",
    "plot_null",
    "plot_occupancy",
    "plot_patching",
    "plot_paths",
    "plot_propagation",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_score_distributions",
    "plot_separation_law",
    "plot_spectra",
    "plot_stages",
    "plot_transitions",
    "plot_u_matrix",
]


@styled
def plot_images(images, titles=None, *, n_columns: int = 8, ax: Axes | None = None, **artist) -> Axes:
    """Images side by side, as tiles of one axes.

    Parameters
    ----------
    images : array-like of float, shape (n, height, width) or (n, channels, height, width)
        Pixels in [0, 1]; one channel is drawn grey, three as RGB.
    titles : sequence of str, optional
        One above each image.
    n_columns : int
        Images per row.
    ax : matplotlib.axes.Axes, optional
        New ones if None.
    **artist
        Passed to ``imshow``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the images have another shape, or there are fewer titles than images.
    """
    images = np.asarray(images, dtype=float)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
        images = images[..., 0] if images.shape[-1] == 1 else images
    elif images.ndim != 3 or len(images) == 0:
        raise ValueError(
            f"images must have shape (n, height, width) or (n, 1 or 3, height, width), got {images.shape}; "
            "a single image needs a first axis of 1"
        )
    titles = None if titles is None else check_names(titles, len(images), "images")
    n_columns = min(n_columns, len(images))
    n_rows = -(-len(images) // n_columns)
    row_height = 1.1 * images.shape[1] / images.shape[2] + (0.0 if titles is None else 0.28)
    ax = axes_or_new(ax, size=(7.0, max(1.0, 7.0 / n_columns * row_height * n_rows)))
    settings = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | artist
    for i, image in enumerate(np.clip(images, 0, 1)):
        x, y = i % n_columns, i // n_columns * row_height
        ax.imshow(image, extent=(x + 0.03, x + 0.97, y + row_height - 0.06, y + row_height - 1), **settings)
        if titles is not None:
            ax.text(x + 0.5, y + row_height - 1.03, titles[i], ha="center", va="bottom", fontsize=9)
    ax.set(xlim=(0, n_columns), ylim=(n_rows * row_height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


@styled
def plot_codes(codes, labels, *, names=None, standardize: bool = True, ax: Axes | None = None, **artist) -> Axes:
    """The codes of a layer as a heat map: one row per sample, sorted by class, one column per feature.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
    labels : array-like of int, shape (n_samples,)
        Classes by which the rows are sorted; lines part them.
    names : sequence of str, optional
        Name of each class.
    standardize : bool
        Show each feature in standard deviations from its mean, so that weak features are seen beside strong ones.
    ax, **artist
        As in :func:`plot_images`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If codes and labels do not describe the same samples.
    """
    codes, labels = np.asarray(codes, dtype=float), np.asarray(labels)
    if codes.ndim != 2 or labels.shape != (len(codes),):
        raise ValueError(
            f"expected codes (n_samples, n_features) and one label each, got {codes.shape} and {labels.shape}"
        )
    names = check_names(names, int(labels.max()) + 1, "classes")
    settings = {"cmap": "viridis", "interpolation": "nearest", "aspect": "auto"}
    label = "activation"
    if standardize:
        spread = codes.std(0)
        codes = (codes - codes.mean(0)) / np.where(spread > 0, spread, 1)
        settings |= {"cmap": "RdBu_r", "vmin": -3, "vmax": 3}
        label = "activation (standard deviations\nfrom the feature's mean)"
    order = np.argsort(labels, kind="stable")
    ax = axes_or_new(ax, size=(7.0, 5.0))
    image = ax.imshow(codes[order], **(settings | artist))
    classes, sizes = np.unique(labels, return_counts=True)
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="black", linewidth=0.8)
    ax.set_yticks(ends - sizes / 2 - 0.5, [names[i] for i in classes])
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="feature", ylabel="samples, by class")
    ax.figure.colorbar(image, ax=ax, label=label, extend="both" if standardize else "neither")
    return ax


@styled
def plot_code_table(table, *, units=None, names=None, ax: Axes | None = None, **artist) -> Axes:
    """P(output | unit) of some units as a heat map.

    Parameters
    ----------
    table : CodeTable
    units : sequence of int, optional
        Which units to show, from top to bottom; the twelve with the most samples if None.
    names : sequence of str, optional
        Name of each output.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``imshow``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a unit is not in the table.
    """
    n_units, n_outputs = table.counts.shape
    names = check_names(names, n_outputs, "outputs")
    units = np.argsort(-table.n_samples, kind="stable")[:12] if units is None else np.asarray(units)
    if units.ndim != 1 or len(units) == 0 or units.min() < 0 or units.max() >= n_units:
        raise ValueError(f"units must be indices in [0, {n_units}), got {units.tolist()}")
    ax = axes_or_new(ax, size=(7.0, 1.6 + 0.3 * len(units)))
    shown = np.ma.masked_invalid(table.probabilities[units])
    ax.set_facecolor("#f2f2f2")  # what an empty unit's row shows
    image = ax.imshow(shown, **({"cmap": "Blues", "vmin": 0, "vmax": 1, "aspect": "auto"} | artist))
    write_numbers(ax, image, shown.filled(0) >= 0.05)
    ax.set_xticks(range(n_outputs), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(units)), [f"{unit}  (n = {table.n_samples[unit]})" for unit in units])
    ax.tick_params(length=0)
    ax.tick_params(axis="x", pad=1)
    ax.set(xlabel="output", ylabel="unit")
    ax.figure.colorbar(image, ax=ax, label="P(output | unit)")
    return ax


@styled
def plot_codebook_2d(
    som,
    data,
    *,
    labels=None,
    names=None,
    map_type: str | None = None,
    grid_type: str | None = None,
    ax: Axes | None = None,
    **artist,
) -> Axes:
    """A map in the plane of its data: samples as dots, units as circles, lines between units that touch on the map.

    Parameters
    ----------
    som : SOM or array-like of float, shape (n_rows, n_columns, 2)
        A fitted map of two features, or its codebook.
    data : array-like of float, shape (n_samples, 2)
    labels : array-like of int, shape (n_samples,), optional
        Class of each sample, for its colour.
    names : sequence of str, optional
        Name of each class, for the legend.
    map_type, grid_type : str, optional
        The map's own, or planar and rectangular for an array. On a rectangular grid only rows and columns are drawn.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to the dots' ``scatter``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If codebook or data do not have two features.
    """
    codebook, data = as_codebook(som), np.asarray(data)
    if codebook.shape[2] != 2 or data.ndim != 2 or data.shape[1] != 2:
        raise ValueError(f"expected two features to draw in a plane, got {codebook.shape} and {data.shape}; "
                         "project both onto two components first")  # fmt: skip
    ax = axes_or_new(ax, size=(7.0, 4.6), layout="compressed")
    settings = {"s": 8, "linewidths": 0, "alpha": 0.6} | artist
    if labels is None:
        ax.scatter(*data.T, **({"color": SHADE} | settings))
    else:
        labels = np.asarray(labels)
        classes = np.unique(labels)
        for output, name in zip(classes, check_names(names, int(classes.max()) + 1, "classes"), strict=False):
            color = CLASS_COLORS[output % len(CLASS_COLORS)]
            ax.scatter(*data[labels == output].T, **({"color": color, "label": name} | settings))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=2.5)
    flat = codebook.reshape(-1, 2)
    for one, other in _lattice(som, codebook.shape[:2], map_type, grid_type):
        ax.plot(*flat[[one, other]].T, color=INK, linewidth=0.8, zorder=2)
    ax.plot(*flat.T, "o", color="white", markeredgecolor=INK, markersize=4.5, zorder=3)
    ax.set(xlabel="feature 0", ylabel="feature 1", aspect="equal")
    return ax


def _lattice(som, shape, map_type, grid_type):
    """Pairs of units to join by a line."""
    n_rows, n_columns = shape
    map_type = map_type or getattr(som, "map_type", "planar")
    grid_type = grid_type or getattr(som, "grid_type", "rectangular")
    for one, around in enumerate(neighbors(n_rows, n_columns, map_type=map_type, grid_type=grid_type)):
        for other in around[around > one]:
            diagonal = one // n_columns != other // n_columns and one % n_columns != other % n_columns
            if grid_type == "hexagonal" or not diagonal:
                yield one, other
