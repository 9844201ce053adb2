"""Figures of what attacks do from layer to layer, averaged over images. Import them from ``plots``.

Wherever an attack is drawn, its noise of equal length is drawn beside it: attacks as solid lines with filled markers,
noise as dashed lines with open ones.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ._plot_style import EMPTY, INK, SERIES, SHADE, axes_or_new, label_line_ends, plain_numbers, styled

LABELS = {
    "success": "share of answers changed",
    "relative_change": "change of the activation,\nrelative to its length",
    "cosine_change": "1 − cosine of clean and\nperturbed activation",
    "code_change": "change of the code,\nrelative to its length",
    "bmu_changed": "share of images with another BMU",
    "grid_distance": "steps moved on the map",
    "quantization_error": "quantization error (activation)",
    "parted": "share of paths parted so far",
    "entered": "share of successes in the\nnew answer's region for good",
}
ATTACK_KEY = [
    Line2D([], [], color=INK, marker="o", label="attack"),
    Line2D([], [], color=INK, marker="o", linestyle="--", markerfacecolor="white", label="noise of equal length"),
]


@styled
def plot_propagation(
    trace, measure: str = "relative_change", *, epsilons=None, log: bool = False, ax: Axes | None = None, **artist
) -> Axes:
    """One measure from layer to layer, for each budget, attack beside noise, with 95 % intervals.

    Parameters
    ----------
    trace : Trace
    measure : str
        Any average of a :class:`nfcodes_lib.traces.Propagation` over layers.
    epsilons : sequence of float, optional
        Which of the traced budgets; all but 0 if None.
    log : bool
        Logarithmic vertical axis, on which equal factors are equal heights.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    epsilons = [epsilon for epsilon in trace.epsilons if epsilon > 0] if epsilons is None else list(epsilons)
    shades = mpl.colormaps["viridis_r"](np.linspace(0.25, 0.95, len(epsilons)))
    curves = [
        (budget_name(epsilon, trace.norm), trace, epsilon, color, "o")
        for epsilon, color in zip(epsilons, shades, strict=True)
    ]
    return _attack_and_noise(curves, measure, log, ax, artist)


@styled
def plot_networks(
    traces: dict,
    measure: str = "relative_change",
    *,
    epsilon: float,
    log: bool = False,
    ax: Axes | None = None,
    **artist,
) -> Axes:
    """One measure from layer to layer at one budget, for several networks, attack beside noise.

    Parameters
    ----------
    traces : dict of str -> Trace
        Name of the network -> its trace; all over the same layers.
    measure, log, ax, **artist
        As in :func:`plot_propagation`.
    epsilon : float
        A budget that all of them have.

    Returns
    -------
    matplotlib.axes.Axes
    """
    curves = [
        (name, trace, epsilon, color, marker)
        for (name, trace), (color, marker, _) in zip(traces.items(), SERIES, strict=False)
    ]
    return _attack_and_noise(curves, measure, log, ax, artist)


@styled
def plot_stages(trace, which: str = "parting", *, noise: bool = False, ax: Axes | None = None, **artist) -> Axes:
    """At which layer the paths part, or enter the new answer's region for good, as stacked shares over the budgets.

    Parameters
    ----------
    trace : Trace
    which : {"parting", "entry"}
    noise : bool
        Show the noise's paths instead of the attack's.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``bar``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `which` is something else.
    """
    if which not in ("parting", "entry"):
        raise ValueError(f"which must be 'parting' or 'entry', got {which!r}")
    paths = (trace.noise if noise else trace).paths
    stages = paths.parting_layer if which == "parting" else paths.entry_layer
    n_layers = len(trace.layers)
    ax = axes_or_new(ax, size=(7.0, 3.8))
    at, bottom = np.arange(len(trace.epsilons)), np.zeros(len(trace.epsilons))
    known = np.maximum((stages >= 0).sum(1), 1)
    shades = mpl.colormaps["cividis"](np.linspace(0.05, 0.95, n_layers))
    for stage in range(n_layers + 1):
        share = (stages == stage).sum(1) / known
        never = "never" if which == "parting" else "not even in the last"
        look = {"facecolor": shades[stage], "label": trace.layers[stage]} if stage < n_layers else (
            {**EMPTY, "label": never}
        )  # fmt: skip
        ax.bar(at, share, bottom=bottom, **({"width": 0.8, "edgecolor": "white"} | look | artist))
        bottom += share
    ax.set_xticks(at, [budget_name(epsilon, trace.norm) for epsilon in trace.epsilons])
    what = "share of images" if which == "parting" else "share of changed answers"
    ax.set(xlabel=f"budget epsilon ({trace.norm})", ylabel=what, ylim=(0, 1))
    title = "first other BMU" if which == "parting" else "enters for good"
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], title=title, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


@styled
def plot_patching(result, control=None, *, ax: Axes | None = None, **artist) -> Axes:
    """Share of runs that give the asked answer over the share of feature maps replaced, one curve per layer.

    Parameters
    ----------
    result : PatchResult
    control : PatchResult, optional
        The same with other donors, drawn dashed.
    ax : matplotlib.axes.Axes, optional
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_or_new(ax, size=(6.4, 4.0))
    ends = []
    for i, (layer, (color, marker, _)) in enumerate(zip(result.layers, SERIES, strict=False)):
        settings = {"color": color, "marker": marker, "markersize": 5, "label": layer} | artist
        ax.plot(result.fractions, result.share[i], **settings)
        ax.fill_between(result.fractions, result.low[i], result.high[i], color=color, alpha=0.15, linewidth=0)
        if control is not None:
            open_marker = {"linestyle": "--", "markerfacecolor": "white", "label": None}
            ax.plot(control.fractions, control.share[i], **(settings | open_marker))
        ends.append((result.fractions[-1], result.share[i, -1], layer, color))
    ax.axhline(result.unpatched, color=SHADE, linewidth=1, zorder=0)
    ax.set(xlabel="share of the layer's feature maps replaced", ylabel="share of clean answers", ylim=(-0.03, 1.03))
    ax.set_xticks(result.fractions)
    ax.legend(loc="upper left")
    return ax


def budget_name(epsilon: float, norm: str = "linf") -> str:
    """A budget as its readers know it: pixels in 255ths for "linf", a plain number for "l2"."""
    return f"{epsilon * 255:.3g}/255" if norm == "linf" else f"{epsilon:.3g}"


def _attack_and_noise(curves, measure: str, log: bool, ax: Axes | None, artist: dict) -> Axes:
    """Draw (name, trace, epsilon, colour, marker) as a solid curve for the attack and a dashed one for its noise."""
    ax = axes_or_new(ax)
    ends = []
    for name, trace, epsilon, color, marker in curves:
        at, x = trace.budget(epsilon), np.arange(len(trace.layers))
        for kind, style in ((trace, {}), (trace.noise, {"linestyle": "--", "markerfacecolor": "white"})):
            values = getattr(kind, measure)[at]
            low, high = (end[at] for end in kind.interval(measure))
            label = name if kind is trace else None
            settings = {"color": color, "marker": marker, "markersize": 5, "label": label} | style | artist
            ax.plot(x, values, **settings)
            ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        ends.append((x[-1], getattr(trace, measure)[at, -1], name, color))
    ax.set_xticks(np.arange(len(curves[0][1].layers)), curves[0][1].layers)
    ax.set(xlabel="layer", ylabel=LABELS[measure])
    if log:
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
    label_line_ends(ax, [end for end in ends if np.isfinite(end[1])])
    ax.legend(handles=ATTACK_KEY, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return ax
