"""Explorers of paths: one image on its way through the layers' maps, and what an attack makes of that way.

:func:`explore_trace` asks what Bluff asks (Das et al. 2020, arXiv:2009.02608), along which paths an attack leads an
image astray, of the units of maps instead of neurons. Import both from :mod:`nfcodes_lib.widgets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import plots
from ._explorer import Canvas, Explorer, choice_or_slider, colors, mark, picture_grid, say_unit, sheet
from ._indices import check_indices
from ._plot_style import check_names
from .codes import CodeTable, code_table
from .grids import unit_positions
from .plots_trace import budget_name
from .reconstruction import exemplars


def explore_layers(
    soms: Mapping, codes, images, *, chosen: Sequence[int], labels=None, names=None, n_neighbors: int = 5
) -> Explorer:
    """How one image's code becomes its answer: from layer to layer, its unit, its nearest images and what they say.

    Parameters
    ----------
    soms : dict of str -> SOM
        Layer -> fitted map, from shallow to deep.
    codes : LayerCodes
        Codes of `images` in these layers, with the network's answers.
    images : array-like of float, shape (n_samples, 1 or 3, height, width)
        In [0, 1].
    chosen : sequence of int
        Which of them can be chosen. They are left out of the tables and never shown as neighbours.
    labels : array-like of int, shape (n_samples,), optional
        True classes, told beside the answer.
    names : sequence of str, optional
        Name of each output.
    n_neighbors : int
        How many images with the nearest codes to show.

    Returns
    -------
    Explorer

    Raises
    ------
    ValueError
        If there are not as many codes as images, or a chosen image is not among them.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, labels = nf.load_images("test", n_samples=60)
    >>> codes = nf.capture(nf.load_model("resnet"), images, layers=["layer1", "layer4"])
    >>> soms = {k: nf.SOM(3, 4, backend="torch", n_epochs=3, random_state=0).fit(codes[k]) for k in codes}
    >>> explore_layers(soms, codes, images, chosen=[0, 1, 2], labels=labels)
    <Explorer 'From code to answer, layer by layer': image (3), layer (2)>
    """
    images, layers = np.asarray(images), list(soms)
    n_samples, n_outputs = codes.logits.shape
    if len(images) != n_samples:
        raise ValueError(f"images must be those of the codes, {n_samples} of them, got {len(images)}")
    chosen = check_indices(chosen, "chosen", n_values=n_samples, n_values_name="the number of images")
    names, answers = check_names(names, n_outputs, "outputs"), codes.predictions
    others = np.setdiff1d(np.arange(n_samples), chosen)
    shares, texts, neighbors, backgrounds, marks = ([] for _ in range(5))
    for layer in layers:
        units = soms[layer].predict(codes[layer])
        table = code_table(units[others], answers[others], n_units=soms[layer].codebook_[..., 0].size,
                           n_outputs=n_outputs)  # fmt: skip
        canvas, places = region_map(soms[layer], table, names)
        backgrounds.append(canvas.picture(f"Map of {layer}: each unit in the colour of the answer it stands for."))
        neighbors.append(others[exemplars(codes[layer][others], codes[layer][chosen], n_exemplars=n_neighbors).indices])
        here = units[chosen]
        n_columns = soms[layer].codebook_.shape[1]
        said = [say_unit(unit, table, names, n_columns) for unit in here]
        marks.append([{"items": [mark("circle", places[unit])], "text": f"Marked: {each}."}
                      for unit, each in zip(here, said, strict=True)])  # fmt: skip
        texts.append([f"In {layer} the image falls to {each}." for each in said])
        shares.append([None if table.n_samples[unit] == 0 else table.probabilities[unit].round(3).tolist()
                       for unit in here])  # fmt: skip
    logits = codes.logits[chosen].astype(np.float64)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    truths = None if labels is None else [names[int(labels[k])] for k in chosen]
    said_last = [f" The network answers {names[answers[k]]}." for k in chosen]
    if truths:
        said_last = [f"{said[:-1]}; it is: {truth}." for said, truth in zip(said_last, truths, strict=True)]
    kept, places = np.unique(np.stack(neighbors), return_inverse=True)
    items = [
        [[[int(k), names[answers[kept[k]]]] for k in of_image] for of_image in of_layer]
        for of_layer in places.reshape(len(layers), len(chosen), n_neighbors)
    ]
    titles = truths or [names[answers[k]] for k in chosen]
    tiles = {"sheet": 0, "labels": [f"image {i + 1}: {title}" for i, title in enumerate(titles)]}
    both = ["layer", "image"]
    numbered = [f"{k}  {name}" for k, name in enumerate(names)]  # the map shows the numbers
    return Explorer(
        "From code to answer, layer by layer",
        [picture_grid("image", "Image", tiles), choice_or_slider("layer", "Layer", layers)],
        [
            {"kind": "text", "name": "state", "by": both,
             "texts": [[text + ending for text, ending in zip(row, said_last, strict=True)] for row in texts]},
            {"kind": "picture", "name": "map", "title": "Its unit on the layer's map", "by": ["layer"], "size": "half",
             "pictures": backgrounds, "marks": marks, "marks_by": both},
            {"kind": "bars", "name": "table", "title": "P(answer | unit): what its unit says", "by": both,
             "shares": shares, "names": numbered, "colors": colors(n_outputs), "size": "half"},
            {"kind": "images", "name": "neighbors", "title": "Nearest codes in this layer, and their answers",
             "by": both, "items": items, "sheet": 1, "size": "half"},
            {"kind": "bars", "name": "answer", "title": "The network's answer (softmax)", "by": ["image"],
             "shares": softmax.round(3).tolist(), "names": numbered, "colors": colors(n_outputs), "size": "half"},
        ],
        [sheet(images[chosen]), sheet(images[kept])],
    )  # fmt: skip


def explore_trace(
    traces: Mapping,
    attacked: Mapping,
    soms: Mapping,
    tables: Mapping,
    images,
    *,
    chosen: Sequence[int] | None = None,
    names=None,
) -> Explorer:
    """An attack's path through the maps: choose an image, an attack and a budget, and see where the paths part.

    On each layer's map a circle marks the unit of the clean image, a cross that of the attacked one, a triangle that of
    the image with noise of equal length.

    Parameters
    ----------
    traces : dict of str -> Trace
        Name of the attack -> what :func:`nfcodes_lib.adversarial.trace_attack` found with it; all of the same images,
        layers and budgets, and with `tables`.
    attacked : dict of str -> AttackedImages
        Name of the attack -> ``attack_images(model, images[trace.index], labels[trace.index], ...)`` with the settings
        of its trace, which gives the same images again.
    soms : dict of str -> SOM
    tables : dict of str -> CodeTable
        Layer -> map and table, those of the traces.
    images : array-like of float, shape (n, 1 or 3, height, width)
        The traced images, ``images[trace.index]``.
    chosen : sequence of int, optional
        Which of them can be chosen; the first six if None.
    names : sequence of str, optional
        Name of each output.

    Returns
    -------
    Explorer

    Raises
    ------
    ValueError
        If the traces differ in images, layers or budgets, or the attacked images get other answers than the traces.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> from nfcodes_lib.adversarial import trace_attack
    >>> from nfcodes_lib.attacks import attack_images
    >>> model = nf.load_model("resnet")
    >>> images, labels = nf.load_images("test", n_samples=80)
    >>> codes = nf.capture(model, images[20:], layers=["layer1", "layer4"])
    >>> soms = {k: nf.SOM(3, 4, backend="torch", n_epochs=3, random_state=0).fit(codes[k]) for k in codes}
    >>> tables = {k: nf.code_table(soms[k].labels_, codes.predictions, n_units=12, n_outputs=10) for k in codes}
    >>> settings = {"attack": "fgsm", "epsilons": [0, 8 / 255]}
    >>> trace = trace_attack(model, images[:20], labels[:20], soms, tables=tables, **settings)
    >>> seen, truth = images[:20][trace.index], labels[:20][trace.index]
    >>> attacked = attack_images(model, seen, truth, **settings)
    >>> explore_trace({"FGSM": trace}, {"FGSM": attacked}, soms, tables, seen, chosen=[0, 1])
    <Explorer 'The path of an attack': image (2), attack (1), budget (2)>
    """
    images, kinds, first = np.asarray(images), list(traces), next(iter(traces.values()))
    _check_traces(traces, attacked, images)
    layers, n_outputs = first.layers, tables[first.layers[0]].counts.shape[1]
    names = check_names(names, n_outputs, "outputs")
    chosen = range(min(6, len(images))) if chosen is None else chosen
    chosen = check_indices(list(chosen), "chosen", n_values=len(images), n_values_name="the number of traced images")
    maps, spots = [], []
    for layer in layers:
        canvas, places = region_map(soms[layer], tables[layer], names)
        maps.append(canvas.picture(f"Map of {layer}: each unit in the colour of the answer it stands for."))
        spots.append(places)

    def at_each(tell) -> list:
        """What `tell` says of each image, attack and budget, nested in this order."""
        return [[[tell(i, traces[kind], e) for e in range(len(first.epsilons))] for kind in kinds] for i in chosen]

    def marks(trace, layer, i, e) -> dict:
        clean, there = spots[layer][trace.clean_units[layer, i]], spots[layer][trace.paths.units[e, layer, i]]
        noisy = spots[layer][trace.noise.paths.units[e, layer, i]]
        items = [mark("triangle", noisy, radius=13), mark("line", clean, to=there), mark("circle", clean, radius=12)]
        says = [names[k] if k >= 0 else "nothing" for k in _regions(trace, layer, i, e)]
        text = "Circle, the clean image: {}. Cross, attacked: {}. Triangle, noise: {}.".format(*says)
        return {"items": [*items, mark("cross", there, radius=9)], "text": text}

    def rows(i, trace, e) -> list:
        found, noise = trace.paths, trace.noise.paths
        return [
            [layer, *(names[k] if k >= 0 else "–" for k in _regions(trace, at, i, e)),
             f"{found.grid_distance[e, at, i]:.1f} / {noise.grid_distance[e, at, i]:.1f}",
             f"{found.relative_change[e, at, i]:.2f} / {noise.relative_change[e, at, i]:.2f}"]
            for at, layer in enumerate(layers)
        ]  # fmt: skip

    def said(i, trace, e) -> str:
        answer, noisy = names[trace.paths.predictions[e, i]], names[trace.noise.paths.predictions[e, i]]
        where = trace.paths.parting_layer[e, i]
        parts = f"the paths part in {layers[where]}" if where < len(layers) else "the paths do not part"
        return f"Clean: {names[trace.labels[i]]}. Attacked: {answer}. With noise of equal length: {noisy}. And {parts}."

    shown, items = [images[chosen]], []
    largest = max(float(np.abs(np.asarray(each.images) - images[None]).max()) for each in attacked.values())
    for kind in kinds:
        perturbed = np.asarray(attacked[kind].images)[:, chosen]
        change = 0.5 + (perturbed - images[chosen]) / max(2 * largest, 1e-12)
        shown += [perturbed.reshape(-1, *images.shape[1:]), change.reshape(-1, *images.shape[1:])]
    n, n_budgets = len(chosen), len(first.epsilons)
    for j in range(n):
        items.append([[[[j, "clean"], [n + k * 2 * n * n_budgets + n * n_budgets + e * n + j, "change, magnified"],
                        [n + k * 2 * n * n_budgets + e * n + j, "attacked"]] for e in range(n_budgets)]
                      for k in range(len(kinds))])  # fmt: skip
    labels = [f"image {j + 1}: {names[first.labels[i]]}" for j, i in enumerate(chosen)]
    tiles = {"sheet": 0, "labels": labels}
    by = ["image", "attack", "budget"]
    pictures = [
        {"kind": "picture", "name": layer, "title": layer, "size": "small", "pictures": maps[at], "marks_by": by,
         "marks": at_each(lambda i, trace, e, at=at: marks(trace, at, i, e))}
        for at, layer in enumerate(layers)
    ]  # fmt: skip
    key = [(color, f"{k}  {name}") for k, (color, name) in enumerate(zip(colors(n_outputs), names, strict=True))]
    columns = ["layer", "clean stands for", "attacked", "noise", "steps on the map, attack / noise",
               "relative change, attack / noise"]  # fmt: skip
    budgets = [budget_name(epsilon, first.norm) for epsilon in first.epsilons]
    return Explorer(
        "The path of an attack",
        [
            picture_grid("image", "Image", tiles),
            choice_or_slider("attack", "Attack", kinds),
            choice_or_slider("budget", "Budget epsilon", budgets, kind="slider", play=True, value=n_budgets // 2),
        ],
        [
            {"kind": "text", "name": "state", "by": by, "texts": at_each(said)},
            {"kind": "images", "name": "images", "title": "What the network is shown", "by": by, "items": items,
             "sheet": 0},
            *pictures,
            {"kind": "key", "name": "key", "items": [(None, "○ clean"), (None, "✕ attacked"), (None, "△ noise"), *key]},
            {"kind": "table", "name": "table", "title": "Layer by layer", "by": by, "columns": columns,
             "rows": at_each(rows)},
        ],
        [sheet(np.concatenate(shown))],
    )  # fmt: skip


def region_map(som, table: CodeTable, names) -> tuple[Canvas, np.ndarray]:
    """A layer's map in the colours of what its units stand for, and where on the picture each unit lies."""
    n_rows, n_columns = som.codebook_.shape[:2]
    canvas = Canvas(3.0, 3.0 * n_rows / n_columns)
    plots.plot_majority_map(
        table, n_rows=n_rows, n_columns=n_columns, names=names, grid_type=som.grid_type, ax=canvas.ax
    )
    canvas.ax.get_legend().remove()  # the key stands beside, in the page's own letters
    canvas.ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    return canvas, canvas.places(unit_positions(n_rows, n_columns, grid_type=som.grid_type))


def _regions(trace, layer: int, i: int, e: int) -> list[int]:
    """What the units of the clean, the attacked and the noisy image stand for."""
    return [
        int(trace.clean_regions[layer, i]),
        int(trace.paths.regions[e, layer, i]),
        int(trace.noise.paths.regions[e, layer, i]),
    ]


def _check_traces(traces: Mapping, attacked: Mapping, images: np.ndarray) -> None:
    first = next(iter(traces.values()))
    for kind, trace in traces.items():
        if trace.layers != first.layers or not np.array_equal(trace.epsilons, first.epsilons):
            raise ValueError(f"the traces must share layers and budgets, but those of {kind!r} are others")
        if not np.array_equal(trace.index, first.index) or len(images) != len(trace.index):
            raise ValueError(f"images must be the {len(trace.index)} that {kind!r} traced, images[trace.index], "
                             f"got {len(images)}")  # fmt: skip
        if kind not in attacked or not np.array_equal(attacked[kind].predictions, trace.paths.predictions):
            raise ValueError(f"attacked[{kind!r}] must get the answers of its trace; attack images[trace.index] with "
                             "the same attack, budgets, batch size and random_state")  # fmt: skip
