"""Figures of single attacked images and of where they move on the maps. Import them from ``plots``."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ._plot_style import CLASS_COLORS, axes_grid, axes_or_new, check_names, styled, write_numbers
from .plots_maps import draw_units


@styled
def plot_attack(
    clean, attacked, titles=None, *, magnify: float | None = None, ax: Axes | None = None, **artist
) -> Axes:
    """Clean images, what the attack added, magnified, and the attacked images, one column each.

    Parameters
    ----------
    clean, attacked : array-like of float, shape (n, height, width) or (n, 1, height, width)
        In [0, 1].
    titles : sequence of str, optional
        One above each column.
    magnify : float, optional
        Factor by which the change is multiplied; such that the largest change fills the colour scale if None.
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
        If the images are not grey or the two arrays differ in shape.
    """
    clean, attacked = (np.asarray(each, dtype=float) for each in (clean, attacked))
    if clean.shape != attacked.shape or clean.ndim not in (3, 4) or (clean.ndim == 4 and clean.shape[1] != 1):
        raise ValueError(
            "clean and attacked must both have shape (n, height, width) or (n, 1, height, width), got "
            f"{clean.shape} and {attacked.shape}"
        )
    clean, attacked = (each.reshape(len(each), *each.shape[-2:]) for each in (clean, attacked))
    change = attacked - clean
    magnify = 1 / max(float(np.abs(change).max()), 1e-12) if magnify is None else magnify
    titles = None if titles is None else check_names(titles, len(clean), "columns")
    height = clean.shape[1] / clean.shape[2]
    ax = axes_or_new(ax, size=(7.0, 0.5 + 3 * height * 6.0 / len(clean)))
    grey, signed = {"cmap": "gray", "vmin": 0, "vmax": 1}, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    rows = [
        ("clean", clean, grey),
        (f"change\n× {magnify:.0f}", change * magnify, signed),
        ("attacked", attacked, grey),
    ]
    for row, (name, images, settings) in enumerate(rows):
        for column, image in enumerate(images):
            extent = (column + 0.03, column + 0.97, (row + 0.97) * height, (row + 0.03) * height)
            ax.imshow(image, extent=extent, **({"interpolation": "nearest"} | settings | artist))
        ax.text(-0.08, (row + 0.5) * height, name, ha="right", va="center")
    for column, title in enumerate(titles or []):
        ax.text(column + 0.5, -0.04, title, ha="center", va="bottom", fontsize=9)
    ax.set(xlim=(0, len(clean)), ylim=(3 * height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


@styled
def plot_paths(
    trace, soms: dict, tables: dict, *, epsilon: float, images, titles=None, names=None, axes=None
) -> np.ndarray:
    """Paths over the maps: one row per image, one panel per layer.

    Units are coloured by the output they stand for. A circle marks the BMU of the clean image, a cross that of the
    attacked one, a triangle that of the image with noise; an arrow leads from circle to cross.

    Parameters
    ----------
    trace : Trace
    soms : dict of str -> SOM
    tables : dict of str -> CodeTable
    epsilon : float
        One of the traced budgets.
    images : sequence of int
        Positions within the trace.
    titles : sequence of str, optional
        One for each image, written at the left.
    names : sequence of str, optional
        Name of each output, for the legend of the colours.
    axes : array of Axes, optional
        New ones if None.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_images, n_layers)
    """
    images = [int(i) for i in images]
    titles = check_names([""] * len(images) if titles is None else titles, len(images), "images")
    n_layers = len(trace.layers)
    axes = axes_grid(axes, len(images) * n_layers, n_columns=n_layers, panel_size=(2.1, 1.75))
    axes = axes.reshape(len(images), n_layers)
    at = trace.budget(epsilon)
    for row, image in enumerate(images):
        for column, layer in enumerate(trace.layers):
            ax, som, table = axes[row, column], soms[layer], tables[layer]
            ax.set_facecolor("white")
            seen = table.majority >= 0
            values = np.where(seen, 1.0, np.nan).reshape(som.n_rows, som.n_columns)
            positions, cells = draw_units(ax, values, grid_type=som.grid_type, linewidth=0.2)
            cells.set_array(None)
            cells.set_facecolor([CLASS_COLORS[output % len(CLASS_COLORS)] for output in table.majority[seen]])
            start, end, noisy = (
                positions[units][::-1]
                for units in (
                    trace.clean_units[column, image],
                    trace.paths.units[at, column, image],
                    trace.noise.paths.units[at, column, image],
                )
            )
            if tuple(start) != tuple(end):
                arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.6, "shrinkA": 5, "shrinkB": 5}
                ax.annotate("", xy=end, xytext=start, arrowprops=arrow)
            marks = {"edgecolor": "black", "linewidth": 1.1, "zorder": 4, "clip_on": False}
            ax.scatter(*noisy, marker="^", s=130, facecolor="#dddddd", **marks)  # large: seen behind a circle
            ax.scatter(*start, marker="o", s=58, facecolor="white", **marks)
            ax.scatter(*end, marker="X", s=58, facecolor="black", **(marks | {"edgecolor": "white"}))
            ax.set(xticks=[], yticks=[], xlabel="", ylabel="", title=layer if row == 0 else "")
        axes[row, 0].set_ylabel(titles[row], rotation=0, ha="right", va="center")
    key = [
        Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor="black", markersize=8, label="clean"),
        Line2D([], [], linestyle="", marker="X", color="black", markersize=8, label="attacked"),
        Line2D(
            [], [], linestyle="", marker="^", color="#dddddd", markeredgecolor="black", markersize=10, label="noise"
        ),
    ]
    n_outputs = tables[trace.layers[0]].counts.shape[1]
    key += [
        Line2D([], [], linestyle="", marker="s", color=CLASS_COLORS[i % len(CLASS_COLORS)], markersize=8, label=name)
        for i, name in enumerate(check_names(names, n_outputs, "outputs"))
    ]
    axes[0, 0].figure.legend(handles=key, loc="outside right center")
    return axes


@styled
def plot_transitions(matrix, *, names=None, ax: Axes | None = None, **artist) -> Axes:
    """A transition matrix as shares of its rows: from which region of a map to which the images were moved.

    Parameters
    ----------
    matrix : array-like of int, shape (n_classes, n_classes)
        From :func:`nfcodes_lib.traces.transition_matrix`.
    names : sequence of str, optional
        Name of each class.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``imshow``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the matrix is not square.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}")
    names = check_names(names, len(matrix), "classes")
    total = matrix.sum(1)
    shares = np.ma.masked_invalid(matrix / np.where(total > 0, total, np.nan)[:, None])
    ax = axes_or_new(ax, size=(6.4, 5.4))
    ax.set_facecolor("#f2f2f2")
    image = ax.imshow(shares, **({"cmap": "Blues", "vmin": 0, "vmax": 1} | artist))
    write_numbers(ax, image, shares.filled(0) >= 0.05, fontsize=8)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), [f"{name}  (n = {n})" for name, n in zip(names, total, strict=True)])
    ax.tick_params(length=0)
    ax.set(xlabel="region of the perturbed image", ylabel="region of the clean image")
    ax.figure.colorbar(image, ax=ax, label="share of the row", shrink=0.85)
    return ax
