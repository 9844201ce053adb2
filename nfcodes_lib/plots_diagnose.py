"""Figures of diagnosis: AUROC with intervals and in tables, risk against coverage, reliability, spreads of scores.

Import them from ``plots``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ._plot_style import INK, axes_grid, axes_or_new, check_names, line_looks, styled, write_numbers
from .detection import Comparison
from .risk import Reliability, RiskCoverage


@styled
def plot_aurocs(comparisons: dict, *, names=None, difference: bool = False, ax: Axes | None = None, **artist) -> Axes:
    """AUROC of several detectors with intervals: a row per detector, a colour per series, a point per run.

    Parameters
    ----------
    comparisons : dict of str -> Comparison or sequence of Comparison
        Series, such as a kind of network -> its comparison, or one for each training run.
    names : sequence of str, optional
        Detectors to draw; all of the first comparison (with `difference`, all but its reference) if None.
    difference : bool
        Draw the paired difference to the reference instead.
    ax : matplotlib.axes.Axes, optional
        New ones if None.
    **artist
        Passed to ``errorbar``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a detector is not compared, or there are more series than can be told apart.
    """
    series = {name: [each] if isinstance(each, Comparison) else list(each) for name, each in comparisons.items()}
    first = next(iter(series.values()))[0]
    if names is None:
        names = [name for name in first.names if not (difference and name == first.reference)]
    styles = line_looks(len(series))
    n_points = sum(map(len, series.values()))
    ax = axes_or_new(ax, size=(7.0, 1.3 + (0.26 + 0.1 * n_points) * len(names)))
    step = 0.76 / n_points
    for row, name in enumerate(names):
        if row:
            ax.axhline(row - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        place = row - (n_points - 1) / 2 * step
        for runs, (color, marker, _) in zip(series.values(), styles, strict=True):
            for run in runs:
                at = run.row(name)
                value = (run.difference if difference else run.auroc)[at]
                low, high = (run.difference_interval if difference else run.interval)[at]
                settings = {"color": color, "marker": marker, "markersize": 5, "capsize": 2, "linestyle": "none"}
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                ax.errorbar([value], [place], xerr=reach, **(settings | artist))
                place += step
    ax.axvline(0 if difference else 0.5, color=INK, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=f"AUROC less that of {first.reference}" if difference else "AUROC (0.5: chance)")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    if len(series) > 1:
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="none", label=name)
            for name, (color, marker, _) in zip(series, styles, strict=True)
        ]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(series), 3))
    return ax


@styled
def plot_auroc_table(values, rows, columns, *, xlabel: str = "", ax: Axes | None = None, **artist) -> Axes:
    """A table of AUROCs, coloured from 0 (ranks the wrong way round) over 0.5 (chance, white) to 1.

    Parameters
    ----------
    values : array-like of float, shape (n_rows, n_columns)
        NaN leaves a cell empty.
    rows, columns : sequence of str
    xlabel : str
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``imshow``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the names do not fit the table.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"values must have shape (n_rows, n_columns), got {values.shape}")
    rows, columns = check_names(rows, values.shape[0], "rows"), check_names(columns, values.shape[1], "columns")
    ax = axes_or_new(ax, size=(7.0, 1.4 + 0.42 * len(rows)))
    image = ax.imshow(values, **({"cmap": "PuOr_r", "vmin": 0, "vmax": 1, "aspect": "auto"} | artist))
    write_numbers(ax, image, np.isfinite(values), fontsize=11)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xlabel(xlabel)
    ax.spines[:].set_visible(False)
    return ax


@styled
def plot_risk_coverage(curves: dict[str, RiskCoverage], *, least: float = 0.05, ax: Axes | None = None, **artist):
    """Error rate among the answered images against their share, down to a share of `least`.

    Parameters
    ----------
    curves : dict of str -> RiskCoverage
        Name -> curve; all of the same images, whose best possible curve is drawn below them.
    least : float
        Coverages below it hold few images, and their error rate is noise.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_or_new(ax)
    for (name, curve), (color, _, dash) in zip(curves.items(), line_looks(len(curves)), strict=True):
        shown = curve.coverage >= least
        settings = {"color": color, "linestyle": dash, "label": name}
        ax.plot(100 * curve.coverage[shown], 100 * curve.risk[shown], **(settings | artist))
    some = next(iter(curves.values()))
    errors = some.chance_area
    best = np.maximum(some.coverage - (1 - errors), 0) / some.coverage
    ax.plot(100 * some.coverage, 100 * best, color="#999999", linewidth=1, label="best possible")
    ax.axhline(100 * errors, color="#999999", linewidth=1, linestyle=":", label="chance")
    ax.set(xlabel="images answered (%)", ylabel="errors among them (%)", xlim=(0, 100), ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.88))
    return ax


@styled
def plot_reliability(curves: dict[str, Reliability], *, ax: Axes | None = None, **artist) -> Axes:
    """Observed against predicted shares, on axes that give small shares room (square roots).

    Parameters
    ----------
    curves : dict of str -> Reliability
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``errorbar``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_or_new(ax, size=(7.0, 5.2))
    for (name, curve), (color, marker, dash) in zip(curves.items(), line_looks(len(curves)), strict=True):
        low, high = curve.interval.T
        reach = 100 * np.maximum([curve.observed - low, high - curve.observed], 0)
        settings = {"color": color, "marker": marker, "linestyle": dash, "linewidth": 1, "capsize": 2, "label": name}
        ax.errorbar(100 * curve.predicted, 100 * curve.observed, yerr=reach, **(settings | artist))
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=1, zorder=0)
    most = max(max(curve.predicted.max(), curve.interval.max()) for curve in curves.values())
    ticks = [0, 1, 5, 10, 20, 40, 60, 80, 100]
    for axis, set_scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        set_scale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
    ax.set(xlabel="predicted chance of an error (%)", ylabel="errors observed (%)")
    ax.set(xlim=(0, 100 * min(1.05 * most, 1)), ylim=(0, 100 * min(1.05 * most, 1)))
    ax.legend(loc="upper left")
    return ax


@styled
def plot_score_distributions(panels: dict, *, xlabels=None, thresholds=None, axes=None, **artist) -> np.ndarray:
    """How scores of several kinds of images spread: the share of images at or below each value, a panel per score.

    Parameters
    ----------
    panels : dict of str -> dict of str -> array-like of float
        Score -> kind of images -> one value per image. The same kinds in all panels share a colour.
    xlabels : dict of str -> str, optional
        Score -> what it is measured in (:data:`nfcodes_lib.diagnosis_scores.SCALES`).
    thresholds : dict of str -> float, optional
        Score -> value to mark.
    axes : array-like of matplotlib.axes.Axes, optional
        One per score; new ones if None.
    **artist
        Passed to ``step``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_scores,)
    """
    kinds = list(dict.fromkeys(kind for panel in panels.values() for kind in panel))
    styles = dict(zip(kinds, line_looks(len(kinds)), strict=True))
    new = axes is None
    axes = axes_grid(axes, len(panels), n_columns=2, panel_size=(3.5, 3.2))
    if new:  # room between a row's labels and the titles of the next
        axes[0].figure.get_layout_engine().set(h_pad=0.12)
    for ax, (score, panel) in zip(axes, panels.items(), strict=True):
        for kind, values in panel.items():
            values = np.sort(np.asarray(values, dtype=float))
            color, _, dash = styles[kind]
            share = 100 * np.arange(1, len(values) + 1) / len(values)
            ax.step(values, share, where="post", **({"color": color, "linestyle": dash, "label": kind} | artist))
        if score in (thresholds or {}):
            ax.axvline(thresholds[score], color=INK, linewidth=1)
        ax.set(title=score, xlabel=(xlabels or {}).get(score, ""), ylabel="images at or below (%)", ylim=(0, 102))
    handles = [Line2D([], [], color=color, linestyle=dash, label=kind) for kind, (color, _, dash) in styles.items()]
    axes[0].figure.legend(handles=handles, loc="outside upper center", ncols=min(len(kinds), 3), frameon=False)
    return axes
