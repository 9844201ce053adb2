"""Figures with a curve: effects over layers, training, nulls, occupancy. Import them from ``plots``."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ._plot_style import SERIES, SHADE, axes_or_new, label_line_ends, line_looks, styled

MEASURES = {  # attribute -> (attribute of its interval, of its null if it has one, label)
    "adjusted_mutual_information": ("interval", "null", "adjusted mutual information"),
    "uncertainty_coefficient": ("uncertainty_interval", None, "uncertainty coefficient (share of entropy)"),
    "accuracy": ("interval", "null", "code-to-output accuracy"),
}


@styled
def plot_history(history, *, ax: Axes | None = None, **artist) -> Axes:
    """Quantization error after each epoch of training.

    Parameters
    ----------
    history : SOM, array-like of float, shape (n_epochs,), or dict of name -> either
        Several are told apart by labels at their ends.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    runs = history if isinstance(history, dict) else {"": history}
    ax = axes_or_new(ax)
    ends = []
    for (name, run), (color, marker, _) in zip(runs.items(), line_looks(len(runs)), strict=True):
        errors = np.asarray(getattr(run, "history_", run), dtype=float)
        epochs = np.arange(1, len(errors) + 1)
        ax.plot(epochs, errors, **({"color": color, "marker": marker, "markersize": 4, "label": name} | artist))
        ends.append((epochs[-1], errors[-1], name, color))
    ax.set(xlabel="epoch", ylabel="quantization error (activation)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if isinstance(history, dict):
        label_line_ends(ax, ends)
    return ax


@styled
def plot_curve_with_interval(
    x, series: dict, *, xlabel: str = "", ylabel: str = "", ax: Axes | None = None, **artist
) -> Axes:
    """Curves with their intervals as bands, each labelled at its end.

    Parameters
    ----------
    x : sequence of float or of str, shape (n,)
        Positions, or names such as those of the layers.
    series : dict of str -> array-like of shape (n,) or (3, n)
        Per curve its values, or values, low ends and high ends.
    xlabel, ylabel : str
        With the unit, if there is one.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a curve does not have as many points as `x`.
    """
    ax = axes_or_new(ax)
    x = list(x)
    named = all(isinstance(value, str) for value in x)
    at = np.arange(len(x)) if named else np.asarray(x, dtype=float)
    ends = []
    for (name, values), (color, marker, dash) in zip(series.items(), line_looks(len(series)), strict=True):
        values = np.atleast_2d(np.asarray(values, dtype=float))
        if values.shape not in ((1, len(x)), (3, len(x))):
            raise ValueError(
                f"series {name!r} must have shape ({len(x)},) or, with low and high ends, (3, {len(x)}), "
                f"got {values.shape}"
            )
        settings = {"color": color, "marker": marker, "linestyle": dash, "markersize": 5, "label": name}
        ax.plot(at, values[0], **(settings | artist))
        if len(values) == 3:
            ax.fill_between(at, values[1], values[2], color=color, alpha=0.2, linewidth=0)
        ends.append((at[-1], values[0, -1], name, color))
    if named:
        ax.set_xticks(at, x)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    label_line_ends(ax, ends)
    return ax


@styled
def plot_association(
    results: dict,
    *,
    measure: str = "adjusted_mutual_information",
    xlabel: str = "layer",
    ax: Axes | None = None,
    **artist,
) -> Axes:
    """Association or accuracy per layer with its interval, over the band in which 95 % of the null falls.

    Parameters
    ----------
    results : dict of str -> Association or CodeAccuracy, or dict of such dicts
        Layer -> result; or name of a curve ("trained", "untrained") -> layer -> result.
    measure : {"adjusted_mutual_information", "uncertainty_coefficient", "accuracy"}
    xlabel : str
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``errorbar``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `measure` is unknown, or the curves do not share their layers.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {sorted(MEASURES)}, got {measure!r}")
    curves = results if isinstance(next(iter(results.values())), dict) else {"": results}
    layers = list(next(iter(curves.values())))
    if any(list(curve) != layers for curve in curves.values()):
        raise ValueError(f"every curve must have the layers {layers}, got {[list(curve) for curve in curves.values()]}")
    interval, null, ylabel = MEASURES[measure]
    ax = axes_or_new(ax)
    at = np.arange(len(layers))
    ends = []
    if null:
        pooled = [np.concatenate([getattr(curve[layer], null) for curve in curves.values()]) for layer in layers]
        low, middle, high = np.array([np.quantile(values, [0.025, 0.5, 0.975]) for values in pooled]).T
        ax.fill_between(at, low, high, color=SHADE, alpha=0.8, label="null (95 %)")
        ax.plot(at, middle, color="#777777", linewidth=1, linestyle=":")
        ends.append((at[-1], middle[-1], "null (95 %)", "#666666"))
    for i, ((name, curve), (color, marker, dash)) in enumerate(
        zip(curves.items(), line_looks(len(curves)), strict=True)
    ):
        values = np.array([getattr(curve[layer], measure) for layer in layers])
        reach = np.array([getattr(curve[layer], interval) for layer in layers]).T
        shift = 0.04 * (i - (len(curves) - 1) / 2)  # so that intervals at equal heights stay apart
        settings = {"color": color, "marker": marker, "linestyle": dash, "markersize": 6, "capsize": 4, "label": name}
        ax.errorbar(at + shift, values, np.maximum(np.abs(reach - values), 0), **(settings | artist))
        ends.append((at[-1], values[-1], name, color))
    ax.set_xticks(at, layers)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    label_line_ends(ax, [end for end in ends if end[2]])
    return ax


@styled
def plot_null(
    null, observed: float, *, xlabel: str = "adjusted mutual information", ax: Axes | None = None, **artist
) -> Axes:
    """Histogram of a permutation null, and where the observed value lies.

    Parameters
    ----------
    null : array-like of float, shape (n_permutations,)
    observed : float
    xlabel : str
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``hist``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    null = np.asarray(null, dtype=float)
    ax = axes_or_new(ax, size=(7.0, 3.4))
    ax.hist(null, **({"bins": "auto", "color": "#8c8c8c", "label": "permutations"} | artist))
    ax.axvline(observed, color=SERIES[1][0], linewidth=2, label="observed")
    ax.autoscale_view()
    place = (ax.transData + ax.transAxes.inverted()).transform((observed, 0))[0]
    side = "left" if place < 0.15 else "right" if place > 0.85 else "center"
    above = ax.get_xaxis_transform()
    ax.text(observed, 1.02, f"observed {observed:.3f}", transform=above, ha=side, color=SERIES[1][0], fontweight="bold")
    ax.set(xlabel=xlabel, ylabel=f"number of {len(null):,} permutations")
    return ax


@styled
def plot_occupancy(occupancies, *, ax: Axes | None = None, **artist) -> Axes:
    """Rank-frequency curve: the share of samples of each unit, from the fullest to the emptiest.

    Parameters
    ----------
    occupancies : Occupancy, or dict of name -> Occupancy
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    runs = occupancies if isinstance(occupancies, dict) else {"": occupancies}
    ax = axes_or_new(ax)
    for (name, run), (color, _, dash) in zip(runs.items(), line_looks(len(runs)), strict=True):
        shares = np.sort(run.counts)[::-1] / run.n_samples
        label = f"{name + ': ' if name else ''}perplexity {run.perplexity:.0f} of {len(shares)}"
        settings = {"color": color, "linestyle": dash, "linewidth": 2, "label": label}
        ax.plot(np.arange(1, len(shares) + 1), np.where(shares > 0, 100 * shares, np.nan), **(settings | artist))
    for n_units in sorted({len(run.counts) for run in runs.values()}):
        ax.axhline(100 / n_units, color="#777777", linestyle=":", linewidth=1.2, label=f"even use of {n_units} units")
    ax.set(xlabel="rank of the unit", ylabel="share of samples (%)")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right")
    return ax
