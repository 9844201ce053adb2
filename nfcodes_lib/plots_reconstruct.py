"""Figures of reconstructed images: laid out as a map, row by row beside what they came from, and their checks.

Import them from ``plots``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ._indices import check_indices
from ._plot_style import EMPTY, INK, SERIES, axes_grid, axes_or_new, label_line_ends, styled

CHECKS = {
    "exact": "falls on its own unit",
    "within_one_step": "or on one that touches it",
    "agreement": "network gives its class",
    "second": "judge gives its class",
}


@styled
def plot_image_map(
    images, units, *, n_rows: int, n_columns: int, title: str = "", ax: Axes | None = None, **artist
) -> Axes:
    """Images laid out as a map: each in the cell of its unit, empty units hatched.

    Parameters
    ----------
    images : array-like of float, shape (k, 1 or 3, height, width)
        Pixels in [0, 1]: reconstructions, or exemplars.
    units : array-like of int, shape (k,)
        Flat unit index of each image.
    n_rows, n_columns : int
        Size of the map.
    title : str
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
        If images and units do not fit each other or the map.
    """
    images = _as_pictures(images)
    units = check_indices(units, "units", n_values=n_rows * n_columns, n_values_name="n_rows * n_columns")
    if len(images) != len(units):
        raise ValueError(f"expected one unit for each image, got {len(images)} images and {len(units)} units")
    if len(np.unique(units)) < len(units):
        raise ValueError("units must be different, got some twice; choose one image for each unit")
    ax = axes_or_new(ax, size=(6.0, 6.0 * n_rows / n_columns + 0.3), layout="compressed")
    height, width = images.shape[1:3]
    mosaic = np.zeros((n_rows * height, n_columns * width, 3))
    for image, unit in zip(images, units, strict=True):
        top, left = unit // n_columns * height, unit % n_columns * width
        mosaic[top : top + height, left : left + width] = image
    settings = {"interpolation": "nearest", "aspect": "auto"} | artist
    ax.imshow(mosaic, extent=(-0.5, n_columns - 0.5, n_rows - 0.5, -0.5), **settings)
    for unit in np.setdiff1d(np.arange(n_rows * n_columns), units):
        ax.add_patch(Rectangle((unit % n_columns - 0.5, unit // n_columns - 0.5), 1, 1, **EMPTY))
    step = max(1, n_columns // 5)
    ax.set(xticks=range(0, n_columns, step), yticks=range(0, n_rows, step), aspect=height / width, title=title)
    ax.set(xlabel="column", ylabel="row")
    return ax


@styled
def plot_image_maps(
    panels: Mapping[str, object], units, *, n_rows: int, n_columns: int, axes=None, **artist
) -> np.ndarray:
    """Several image maps of the same units, side by side: reconstructions beside exemplars.

    Parameters
    ----------
    panels : dict of str to images
        Title -> images, as in :func:`plot_image_map`.
    units, n_rows, n_columns
        As there; the same for every panel.
    axes : array of Axes, optional
        New ones if None.
    **artist
        Passed to ``imshow``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (len(panels),)
    """
    axes = axes_grid(axes, len(panels), n_columns=2, panel_size=(3.7, 3.5 * n_rows / n_columns + 0.5))
    for ax, (title, images) in zip(axes, panels.items(), strict=True):
        plot_image_map(images, units, n_rows=n_rows, n_columns=n_columns, title=title, ax=ax, **artist)
    return axes


@styled
def plot_image_rows(
    rows: Mapping[str, object], *, notes: Sequence[str] | None = None, ax: Axes | None = None, **artist
) -> Axes:
    """One row of images per name: what stands in one column belongs together.

    Parameters
    ----------
    rows : dict of str to array-like of float, shape (n, 1 or 3, height, width)
        Name, written to the left -> images, the same number in every row.
    notes : sequence of str, optional
        One to the right of each row: what was measured of it.
    ax, **artist
        As in :func:`plot_image_map`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the rows differ in length or shape, or notes and rows do not fit.
    """
    pictures = [_as_pictures(images) for images in rows.values()]
    if len({images.shape for images in pictures}) != 1:
        raise ValueError(f"rows must hold images of one number and shape, got {[p.shape for p in pictures]}")
    if notes is not None and len(notes) != len(rows):
        raise ValueError(f"notes must hold one text for each of {len(rows)} rows, got {len(notes)}")
    n_images, height, width = pictures[0].shape[:3]
    cell = height / width
    ax = axes_or_new(ax, size=(7.0, max(1.2, 5.2 / n_images * cell * len(rows) * 1.08)), layout="compressed")
    for i, (name, images) in enumerate(zip(rows, pictures, strict=True)):
        top = i * 1.06 * cell
        for j, image in enumerate(images):
            settings = {"interpolation": "nearest"} | artist
            ax.imshow(image, extent=(j + 0.02, j + 0.98, top + 0.98 * cell, top + 0.02 * cell), **settings)
        ax.text(-0.12, top + cell / 2, name, ha="right", va="center")
        if notes is not None:
            ax.text(n_images + 0.12, top + cell / 2, notes[i], ha="left", va="center")
    ax.set(xlim=(0, n_images), ylim=(len(rows) * 1.06 * cell, 0), aspect="equal")
    ax.set_axis_off()
    return ax


@styled
def plot_code_errors(losses: Mapping[str, object], *, ax: Axes | None = None, **artist) -> Axes:
    """How the code error falls during reconstruction, one line per name.

    Parameters
    ----------
    losses : dict of str to array-like of float, shape (n_steps + 1,)
        Name -> ``Reconstruction.loss``.
    ax : matplotlib.axes.Axes, optional
        New ones if None.
    **artist
        Passed to ``plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_or_new(ax)
    ends = []
    for i, (name, loss) in enumerate(losses.items()):
        loss = np.asarray(loss, dtype=float)
        color, marker, dash = SERIES[i % len(SERIES)]
        every = max(1, len(loss) // 8)
        ax.plot(loss, color=color, marker=marker, linestyle=dash, markevery=every, **({"markersize": 5} | artist))
        ends.append((len(loss) - 1, loss[-1], name, color))
    ax.set(yscale="log", xlabel="step", ylabel="code error (share of the code's variance)")
    label_line_ends(ax, ends)
    return ax


@styled
def plot_image_checks(checks: Mapping[str, Mapping[str, object]], *, axes=None, **artist) -> np.ndarray:
    """Claim 6 in one figure: for each layer, what share of images passes each check, reconstructions and baselines.

    Parameters
    ----------
    checks : dict of str to dict of str to ImageCheck
        Layer -> name of a set of images -> its check, with one judge beside the network itself.
    axes : array of Axes, optional
        One panel per check; new ones if None.
    **artist
        Passed to ``errorbar``.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (4,)

    Notes
    -----
    Bars are Wilson's 95 % intervals over units.
    """
    layers = list(checks)
    names = list(next(iter(checks.values())))
    axes = axes_grid(axes, len(CHECKS), n_columns=2, panel_size=(3.5, 2.7))
    for ax, (check, title) in zip(axes, CHECKS.items(), strict=True):
        for i, name in enumerate(names):
            shown = [checks[layer][name] for layer in layers]
            shares = np.array([_share(one, check) for one in shown])
            bounds = np.array([one.interval(share) for one, share in zip(shown, shares, strict=True)])
            color, marker, dash = SERIES[i % len(SERIES)]
            places = np.arange(len(layers)) + 0.06 * (i - (len(names) - 1) / 2)  # side by side, so that none hides
            settings = {"color": color, "marker": marker, "linestyle": dash, "elinewidth": 1.2} | artist
            reach = 100 * np.abs(bounds.T - shares)
            ax.errorbar(places, 100 * shares, yerr=reach, label=name, **settings)
        ax.set(ylim=(-4, 104), title=title, xticks=range(len(layers)))
        ax.set_xticklabels([layer.removeprefix("layer") for layer in layers], color=INK)
        ax.set_xlabel("layer")
    for ax in axes[::2]:
        ax.set_ylabel("share of units (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return axes


def _share(check, name: str) -> float:
    """One number of an ImageCheck, by its key in ``CHECKS``."""
    if name == "agreement":
        return check.agreement[0]
    return check.agreement[1] if name == "second" else getattr(check, name)


def _as_pictures(images) -> np.ndarray:
    """Images as (n, height, width, 3) in [0, 1]; grey ones with three equal channels."""
    images = np.clip(np.asarray(images, dtype=float), 0, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape (n, 1 or 3, height, width), got {images.shape}")
    return np.broadcast_to(np.moveaxis(images, 1, -1), (len(images), *images.shape[2:], 3))
