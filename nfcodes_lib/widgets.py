"""Explorers: figures that answer to the hand, in a live notebook and, without a kernel, in the book's pages.

Each function takes results that are already computed, draws what can be chosen with the functions of
:mod:`nfcodes_lib.plots`, and returns one :class:`~nfcodes_lib._explorer.Explorer`. Mouse, touch and keyboard serve
alike: Tab goes from control to control, the arrow keys change one.

:func:`explore_map` is after the Activation Atlas (Carter et al. 2019, doi:10.23915/distill.00015), at the scale of one
map of a few hundred units. The two explorers that follow images from layer to layer live in
:mod:`nfcodes_lib.widgets_paths`; this module is the one to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import plots
from ._explorer import Canvas, Explorer, choice_or_slider, colors, mark, picture_grid, say_unit, sheet
from ._indices import check_indices
from ._plot_style import check_names
from .codes import code_table, hit_map
from .grids import unit_positions
from .reconstruction import exemplars
from .widgets_paths import explore_layers, explore_trace

__all__ = ["explore_layers", "explore_map", "explore_trace", "explore_training"]


def explore_training(
    epochs: Sequence, data, *, labels=None, names=None, map_type: str = "planar", grid_type: str = "rectangular"
) -> Explorer:
    """A slider over the epochs of a map's training: the codebook folds itself over the data.

    Parameters
    ----------
    epochs : sequence of Epoch
        What a callback of :meth:`nfcodes_lib.SOM.fit` got: ``som.fit(x, callback=epochs.append)``.
    data : array-like of float, shape (n_samples, n_features)
        The training data, or some of it. Of more than two features the plane of the first two principal components
        is shown, in which the sheet may seem to cross itself where it does not.
    labels : array-like of int, shape (n_samples,), optional
        Class of each sample, for its colour.
    names : sequence of str, optional
        Name of each class.
    map_type, grid_type : str
        As of the map.

    Returns
    -------
    Explorer

    Raises
    ------
    ValueError
        If there is no epoch, or data and codebook differ in their features.

    Examples
    --------
    >>> from nfcodes_lib import SOM
    >>> x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    >>> epochs = []
    >>> som = SOM(3, 4, backend="torch", n_epochs=4, random_state=0).fit(x, callback=epochs.append)
    >>> explore_training(epochs, x)
    <Explorer 'A map in training': epoch (5)>
    """
    data, epochs = np.asarray(data, dtype=float), list(epochs)
    if not epochs:
        raise ValueError("expected at least one epoch, got none; collect them with som.fit(x, callback=epochs.append)")
    n_features = epochs[0].codebook.shape[-1]
    if data.ndim != 2 or data.shape[1] != n_features:
        raise ValueError(f"data must have shape (n_samples, {n_features}), as the codebook, got {data.shape}")
    axis_names = ("feature 0", "feature 1")
    center, plane = np.zeros(n_features), np.eye(n_features)
    if n_features > 2:
        center = data.mean(0)
        plane = np.linalg.svd(data - center, full_matrices=False)[2][:2].T
        axis_names = ("first principal component", "second principal component")
    seen = (data - center) @ plane
    sheets = [(epoch.codebook - center) @ plane for epoch in epochs]
    both = np.concatenate([seen, *(each.reshape(-1, 2) for each in sheets)])
    low, high = both.min(0), both.max(0)
    margin = 0.04 * (high - low)
    height = float(np.clip(4.0 * (high - low)[1] / (high - low)[0] + 0.5, 2.0, 4.6))  # inches: no empty space about it
    pictures, texts = [], []
    for epoch, codebook in zip(epochs, sheets, strict=True):
        canvas = Canvas(4.6, height)
        plots.plot_codebook_2d(
            codebook, seen, labels=labels, names=names, map_type=map_type, grid_type=grid_type, ax=canvas.ax, s=5
        )
        canvas.ax.set(
            xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]),
            xlabel=axis_names[0], ylabel=axis_names[1],
        )  # fmt: skip
        what = "before training" if epoch.radius is None else f"after epoch {epoch.index}, radius {epoch.radius:.2f}"
        texts.append(f"The map {what}: quantization error {epoch.quantization_error:.3g}.")
        pictures.append(
            canvas.picture(f"The codebook as a net of {codebook[..., 0].size} units over the data, {what}.")
        )
    options = [f"{epoch.index} of {epochs[-1].index}" for epoch in epochs]
    return Explorer(
        "A map in training",
        [choice_or_slider("epoch", "Epoch", options, kind="slider", play=True)],
        [
            {"kind": "text", "name": "state", "by": ["epoch"], "texts": texts},
            {"kind": "picture", "name": "codebook", "title": "", "by": ["epoch"], "pictures": pictures},
        ],
    )


def explore_map(
    soms: Mapping,
    codes: Mapping,
    images,
    outputs,
    *,
    reconstructions: Mapping | None = None,
    names=None,
    n_exemplars: int = 5,
) -> Explorer:
    """The units of each layer's map as images, as large as they are much used: choose one and see what it stands for.

    Parameters
    ----------
    soms : dict of str -> SOM
        Layer -> fitted map, all of one size. Up to about 16 columns can be hit with a finger on a phone.
    codes : mapping of str -> ndarray, shape (n_samples, n_features)
        Layer -> codes of the images, for example a LayerCodes.
    images : array-like of float, shape (n_samples, 1 or 3, height, width)
        In [0, 1].
    outputs : array-like of int, shape (n_samples,)
        What the table counts for each image: the model's answers, or labels.
    reconstructions : dict of str -> array-like of float, shape (n_units, 1 or 3, height, width), optional
        Layer -> one image per unit, such as ``reconstruct(model, layer, som.codebook_).images``. Without them each unit
        shows the real image whose code is nearest.
    names : sequence of str, optional
        Name of each output.
    n_exemplars : int
        How many of the nearest real images to show of a unit.

    Returns
    -------
    Explorer

    Raises
    ------
    ValueError
        If a layer has no codes or reconstructions, or maps differ in size.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, _ = nf.load_images("test", n_samples=50)
    >>> codes = nf.capture(nf.load_model("resnet"), images, layers=["layer1", "layer4"])
    >>> soms = {k: nf.SOM(3, 4, backend="torch", n_epochs=3, random_state=0).fit(codes[k]) for k in codes}
    >>> explore_map(soms, codes, images, codes.predictions, names=nf.CLASS_NAMES)
    <Explorer 'What the units of a map stand for': layer (2), unit (12)>
    """
    layers = list(soms)
    for given, what in ((codes, "codes"), (reconstructions, "reconstructions")):
        missing = [] if given is None else [layer for layer in layers if layer not in given]
        if missing:
            raise ValueError(f"{what} must hold every layer of soms, got none for {missing}")
    shapes = {soms[layer].codebook_.shape[:2] for layer in layers}
    if len(shapes) != 1:
        raise ValueError(f"the maps must have one size, got {sorted(shapes)}; make one explorer for each")
    ((n_rows, n_columns),) = shapes
    n_units, images = n_rows * n_columns, np.asarray(images)
    outputs = check_indices(outputs, "outputs")
    names = check_names(names, int(outputs.max()) + 1, "outputs")
    sheets, views, hits, marks, shares, texts, used = ([] for _ in range(7))
    for layer in layers:
        units = soms[layer].predict(codes[layer])
        table = code_table(units, outputs, n_units=n_units, n_outputs=len(names))
        found = exemplars(codes[layer], soms[layer].codebook_, n_exemplars=n_exemplars).indices
        shown = images[found[:, 0]] if reconstructions is None else np.asarray(reconstructions[layer])
        if len(shown) != n_units:
            raise ValueError(f"reconstructions of {layer} must hold one image for each of {n_units} units, "
                             f"got {len(shown)}")  # fmt: skip
        said = [say_unit(unit, table, names, n_columns) for unit in range(n_units)]
        size = np.sqrt(table.n_samples / table.n_samples.max())
        size = np.where(table.n_samples > 0, 0.3 + 0.7 * size, 0).round(2)
        sheets.append(sheet(shown))
        views.append({"sheet": len(sheets) - 1, "labels": said, "sizes": size.tolist()})
        used.append(found)
        canvas = Canvas(4.2, 3.6)
        plots.plot_hit_map(hit_map(units, n_rows, n_columns), grid_type=soms[layer].grid_type, ax=canvas.ax)
        hits.append(canvas.picture(f"Hit map of {layer}: how many images fell to each unit."))
        places = canvas.places(unit_positions(n_rows, n_columns, grid_type=soms[layer].grid_type))
        marks.append([{"items": [mark("square", p, radius=14)], "text": f"Marked: {s}"}
                      for p, s in zip(places, said, strict=True)])  # fmt: skip
        shares.append([None if n == 0 else row.round(3).tolist()
                       for n, row in zip(table.n_samples, table.probabilities, strict=True)])  # fmt: skip
        texts.append([f"{layer}, {each}." for each in said])
    kept, places = np.unique(np.stack(used), return_inverse=True)
    sheets.append(sheet(images[kept]))
    nearest = [
        [[[int(at), names[outputs[kept[at]]]] for at in unit] for unit in of_layer]
        for of_layer in places.reshape(len(layers), n_units, n_exemplars)
    ]
    what = "nearest real image" if reconstructions is None else "reconstruction"
    both, own = ["layer", "unit"], []
    if reconstructions is not None:  # else it is the first of the exemplars
        items = [[[[unit, f"unit {unit}"]] for unit in range(n_units)]] * len(layers)
        own = [
            {
                "kind": "images",
                "name": "own",
                "title": "Its reconstruction",
                "by": both,
                "items": items,
                "sheet": list(range(len(layers))),
                "sheet_by": ["layer"],
            }
        ]
    fullest = int(np.argmax(views[-1]["sizes"]))
    return Explorer(
        "What the units of a map stand for",
        [
            choice_or_slider("layer", "Layer", layers, value=len(layers) - 1),
            picture_grid("unit", f"Unit: its {what}, larger the more images it has", views, by=["layer"],
                         columns=n_columns, value=fullest),
        ],
        [
            {"kind": "text", "name": "unit", "by": both, "texts": texts},
            *own,
            {"kind": "images", "name": "exemplars", "title": "The real images whose codes are nearest", "by": both,
             "items": nearest, "sheet": len(layers), "size": "half"},
            {"kind": "bars", "name": "table", "title": "P(output | unit)", "by": both, "shares": shares, "size": "half",
             "names": names, "colors": colors(len(names))},
            {"kind": "picture", "name": "hits", "title": "Where it lies: the hit map", "by": ["layer"],
             "pictures": hits, "marks": marks, "marks_by": both, "size": "half"},
        ],
        sheets,
    )  # fmt: skip
