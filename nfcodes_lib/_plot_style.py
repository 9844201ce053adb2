"""What all figures share: colours, fonts, fresh axes, labels at the ends of lines.

Nothing here touches matplotlib's settings for good: a plot function runs inside :func:`styled`, which lends it the
settings below and gives the reader's own back. The face is opaque white, so that a figure reads on a dark page too.
"""

from __future__ import annotations

from functools import wraps

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import LogLocator, NullFormatter

# Ten colours found by an optimisation for colour-vision deficiencies and lightness (Petroff 2021, arXiv:2107.02270)
CLASS_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
# Lines, told apart by colour, marker and dash (colours of Okabe and Ito 2008, less the yellow that fades on white)
SERIES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#56B4E9", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#000000", "X", (0, (1, 3))),
)
INK, SHADE = "#222222", "#bbbbbb"
EMPTY = {"facecolor": "#f2f2f2", "edgecolor": "#bdbdbd", "hatch": "////", "linewidth": 0.0}
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "auto",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#666666",
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 11.0,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
}


def styled(function):
    """Run a plot function with ``STYLE`` in force, and only there."""

    @wraps(function)
    def inner(*args, **kwargs):
        # Not mpl.rc_context: it gives every setting back, also those that a notebook's backend sets when the first
        # figure loads it, and figures would no longer be shown.
        own = {name: mpl.rcParams[name] for name in STYLE}
        mpl.rcParams.update(STYLE)
        try:
            return function(*args, **kwargs)
        finally:
            mpl.rcParams.update(own)

    return inner


def axes_or_new(ax: Axes | None, *, size: tuple[float, float] = (7.0, 4.2), layout: str = "constrained") -> Axes:
    """Return `ax`, or the axes of a new figure of `size` inches; opaque and white in either case.

    Axes of equal scale, such as a map's, need the layout "compressed": "constrained" does not see that they shrink.
    """
    if ax is None:
        ax = plt.subplots(figsize=size, layout=layout)[1]
    ax.set_facecolor("white")
    return ax


def axes_grid(axes, n_panels: int, *, n_columns: int, panel_size: tuple[float, float]) -> np.ndarray:
    """Return `axes` as a flat array of at least `n_panels`, or those of a new figure; unused new ones are removed."""
    if axes is not None:
        axes = np.ravel(axes)
        if len(axes) < n_panels:
            raise ValueError(f"axes must hold at least {n_panels} panels, got {len(axes)}; None makes new ones")
        return axes[:n_panels]
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    size = (panel_size[0] * n_columns, panel_size[1] * n_rows)
    axes = plt.subplots(n_rows, n_columns, figsize=size, layout="compressed", squeeze=False)[1].ravel()
    for unused in axes[n_panels:]:
        unused.remove()
    return axes[:n_panels]


def check_names(names, n_names: int, what: str) -> list[str]:
    """Return `names` as a list of `n_names` strings; the numbers from 0 if None."""
    names = [str(i) for i in range(n_names)] if names is None else [str(name) for name in names]
    if len(names) < n_names:
        raise ValueError(f"names must hold one name for each of {n_names} {what}, got {len(names)}")
    return names[:n_names]


def line_looks(n_series: int) -> list[tuple]:
    """Colour, marker and dash of each of `n_series` lines."""
    if n_series > len(SERIES):
        raise ValueError(f"expected at most {len(SERIES)} curves to tell apart, got {n_series}; draw fewer per figure")
    return list(SERIES[:n_series])


def plain_numbers(axis) -> None:
    """Label a logarithmic axis with plain numbers: at 1, 2 and 5, or at powers of ten if it is long."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def ink_on(color) -> str:
    """Black or white, whichever stands out more on `color` (relative luminance as the WCAG define it)."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ [0.2126, 0.7152, 0.0722] < 0.179 else "black"


def write_numbers(ax: Axes, image, chosen: np.ndarray, *, digits: int = 2, fontsize: float = 9) -> None:
    """Write the values of an image's `chosen` cells (a mask) on them, in the ink that their colour asks for."""
    values = image.get_array()
    for row, column in np.argwhere(chosen):
        value = round(float(values[row, column]), digits) + 0.0  # no -0.0
        text = f"{value:.{digits}f}".replace("-", "−")
        color = ink_on(image.cmap(image.norm(value)))
        ax.text(column, row, text, ha="center", va="center", fontsize=fontsize, color=color)


def label_line_ends(ax: Axes, ends: list[tuple[float, float, str, str]], *, gap: float = 0.075) -> None:
    """Write each line's name to the right of its end, moved apart until no two are closer than `gap` of the axis.

    `ends` holds (x, y, name, colour) of each line.
    """
    ax.autoscale_view()  # matplotlib puts this off until it draws, but the places are needed now
    to_axes = (ax.transData + ax.transAxes.inverted()).transform
    at = np.array([to_axes((x, y))[1] for x, y, _, _ in ends])
    order = np.argsort(at, kind="stable")
    spread = at[order].copy()
    for _ in range(200):  # push close pairs apart, half the lack to either side
        lack = gap - np.diff(spread)
        if (lack <= 1e-9).all():
            break
        for i in np.flatnonzero(lack > 1e-9):
            move = (gap - (spread[i + 1] - spread[i])) / 2
            if move > 0:
                spread[i] -= move
                spread[i + 1] += move
    for place, i in zip(spread, order, strict=True):
        *_, name, color = ends[i]
        ax.text(1.015, place, name, color=color, transform=ax.transAxes, va="center", ha="left", fontweight="bold")
