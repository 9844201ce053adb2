"""Figures of the geometry of codes: spectra, measures from layer to layer, the law of separation, class means.

Import them from ``plots``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ._plot_style import (
    INK,
    axes_grid,
    axes_or_new,
    check_names,
    label_line_ends,
    line_looks,
    plain_numbers,
    styled,
    write_numbers,
)


@styled
def plot_spectra(spectra: dict, *, share: float = 0.9, ax: Axes | None = None, **artist) -> Axes:
    """How much of the variance the first components hold, and how many of them hold `share`.

    Parameters
    ----------
    spectra : dict of str -> array-like of float, shape (n_components,)
        Name -> eigenvalues from large to small (:func:`nfcodes_lib.dimension.variance_spectrum`).
    share : float
        A dotted line marks it.
    ax : matplotlib.axes.Axes, optional
        New ones if None.
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are more spectra than lines that can be told apart.
    """
    ax = axes_or_new(ax)
    for (name, spectrum), (color, marker, dash) in zip(spectra.items(), line_looks(len(spectra)), strict=True):
        held = np.cumsum(spectrum) / np.sum(spectrum)
        needed = int(np.count_nonzero(held < share - 1e-9)) + 1
        settings = {"color": color, "linestyle": dash, "label": f"{name}: {needed}"}
        ax.plot(np.arange(1, len(held) + 1), 100 * held, **(settings | artist))
        ax.plot(needed, 100 * held[needed - 1], marker, color=color, markersize=7)
    ax.axhline(100 * share, color="#777777", linestyle=":", linewidth=1.2)
    ax.set(xlabel="number of principal components", ylabel="share of the variance (%)", ylim=(None, 102))
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    ax.legend(loc="lower right", title=f"components for {100 * share:g} %")
    return ax


@styled
def plot_measures(layers, measures: dict, *, log=(), n_columns: int = 2, axes=None, **artist) -> np.ndarray:
    """Several measures from layer to layer, a panel each, the same curves in all of them.

    Parameters
    ----------
    layers : sequence of str
    measures : dict of str -> dict of str -> array-like of shape (n_layers,) or (3, n_layers)
        Label of the panel's axis -> name of the curve -> values, or values, low ends and high ends.
    log : collection of str
        Labels of panels with a logarithmic axis, on which equal factors are equal heights.
    n_columns : int
        Panels per row.
    axes : array-like of matplotlib.axes.Axes, optional
        One for each measure; new ones if None.
    **artist
        Passed to ``plot``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_measures,)

    Raises
    ------
    ValueError
        If a curve does not have one value for each layer, or there are too few axes.
    """
    layers = list(layers)
    names = list(dict.fromkeys(name for curves in measures.values() for name in curves))
    styles = dict(zip(names, line_looks(len(names)), strict=True))
    axes = axes_grid(axes, len(measures), n_columns=n_columns, panel_size=(3.5, 2.9))
    at = np.arange(len(layers))
    for ax, (label, curves) in zip(axes, measures.items(), strict=True):
        for name, values in curves.items():
            values = np.atleast_2d(np.asarray(values, dtype=float))
            if values.shape not in ((1, len(layers)), (3, len(layers))):
                raise ValueError(
                    f"{name!r} of {label!r} must have shape ({len(layers)},) or, with low and high ends, "
                    f"(3, {len(layers)}), got {values.shape}"
                )
            color, marker, dash = styles[name]
            settings = {"color": color, "marker": marker, "linestyle": dash, "markersize": 5, "label": name}
            ax.plot(at, values[0], **(settings | artist))
            if len(values) == 3:
                ax.fill_between(at, values[1], values[2], color=color, alpha=0.2, linewidth=0)
        ax.set_xticks(at, layers)
        ax.set_title(label, loc="left")
        if label in log:
            ax.set_yscale("log")
            plain_numbers(ax.yaxis)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle=dash, label=name)
        for name, (color, marker, dash) in styles.items()
    ]
    axes[0].figure.legend(handles=handles, loc="outside upper center", ncols=min(len(names), 3), frameon=False)
    return axes


@styled
def plot_depth_change(changes: dict, *, xlabel: str = "deepest layer / shallowest", ax: Axes | None = None, **artist):
    """By what factor measures change from the shallowest layer to the deepest, with intervals: a row per measure.

    Parameters
    ----------
    changes : dict of str -> dict of str -> sequence of three floats
        Measure -> series -> factor, low end, high end. Right of 1 the measure grows with depth.
    xlabel : str
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``errorbar``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    names = list(dict.fromkeys(name for row in changes.values() for name in row))
    styles = dict(zip(names, line_looks(len(names)), strict=True))
    ax = axes_or_new(ax, size=(7.0, 1.4 + (0.2 + 0.11 * len(names)) * len(changes)))
    step = 0.72 / max(len(names), 1)
    for row, series in enumerate(changes.values()):
        for i, name in enumerate(names):
            if name not in series:
                continue
            factor, low, high = series[name]
            color, marker, _ = styles[name]
            settings = {"color": color, "marker": marker, "markersize": 6, "capsize": 3, "linestyle": "none"}
            reach = [[max(factor - low, 0)], [max(high - factor, 0)]]
            ax.errorbar([factor], [row + (i - (len(names) - 1) / 2) * step], xerr=reach, **(settings | artist))
        if row:
            ax.axhline(row - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
    ax.axvline(1, color=INK, linewidth=1)
    ax.set_yticks(range(len(changes)), list(changes))
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=xlabel, ylim=(len(changes) - 0.5, -0.5))
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=name)
        for name, (color, marker, _) in styles.items()
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=min(len(names), 2))
    return ax


@styled
def plot_separation_law(laws: dict, layers=None, *, ax: Axes | None = None, **artist) -> Axes:
    """Separation fuzziness over depth, and the straight line of a geometric law through it.

    Parameters
    ----------
    laws : dict of str -> tuple of (array-like of float, SeparationLaw)
        Name -> fuzziness of each layer, and the law fitted to it.
    layers : sequence of str, optional
        Names of the depths; their numbers if None.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot`` of the points.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_or_new(ax)
    ends = []
    for (name, (fuzziness, law)), (color, marker, dash) in zip(laws.items(), line_looks(len(laws)), strict=True):
        at = np.arange(len(fuzziness))
        settings = {"color": color, "marker": marker, "linestyle": "none", "markersize": 6, "label": name}
        ax.plot(at, fuzziness, **(settings | artist))
        ax.plot(at, law.fitted, color=color, linestyle=dash, linewidth=1.2)
        ends.append((at[-1], law.fitted[-1], f"{name}\n× {law.factor:.2f} a step", color))
    ax.set_yscale("log")
    plain_numbers(ax.yaxis)
    if layers is not None:
        ax.set_xticks(range(len(layers)), layers)
    ax.set(xlabel="depth", ylabel="separation fuzziness D")
    label_line_ends(ax, ends, gap=0.15)
    return ax


@styled
def plot_mean_cosines(cosines, *, names=None, order=None, ax: Axes | None = None, **artist) -> Axes:
    """Cosines between the centred means of the classes, as a table of colours.

    Parameters
    ----------
    cosines : array-like of float, shape (n_classes, n_classes)
        ``ClassGeometry.mean_cosines``.
    names : sequence of str, optional
        Name of each class.
    order : sequence of int, optional
        Order of the classes in the figure.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``imshow``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the table is not square, or `order` does not name every class once.
    """
    cosines = np.asarray(cosines, dtype=float)
    if cosines.ndim != 2 or cosines.shape[0] != cosines.shape[1]:
        raise ValueError(f"cosines must have shape (n_classes, n_classes), got {cosines.shape}")
    n = len(cosines)
    order = np.arange(n) if order is None else np.asarray(order)
    if sorted(order.tolist()) != list(range(n)):
        raise ValueError(f"order must name each of {n} classes once, got {order.tolist()}")
    names = check_names(names, n, "classes")
    ax = axes_or_new(ax, size=(7.0, 5.2))
    image = ax.imshow(cosines[np.ix_(order, order)], **({"cmap": "RdBu_r", "vmin": -1, "vmax": 1} | artist))
    write_numbers(ax, image, ~np.eye(n, dtype=bool), digits=1)
    shown = [names[i] for i in order]
    ax.set_xticks(range(n), shown, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), shown)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label="cosine between class means")
    return ax
