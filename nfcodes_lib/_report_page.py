"""The page that :func:`nfcodes_lib.report.report` makes: HTML with its figures inside, which asks no other host."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
import torch

from .capture import LayerCodes
from .diagnose import Diagnosis
from .untrained import image_at

WIDEST = 96  # pixels that an example image keeps
N_UNITS, N_EXAMPLES = 6, 4  # units shown of each layer, and images of each
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 46rem; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #444; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } caption { text-align: left; color: #444; padding: .3rem 0; }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(report, codes: LayerCodes, images, diagnosis: Diagnosis, judge: np.ndarray, names) -> str:
    """The page, as a string of HTML.

    Parameters
    ----------
    report : nfcodes_lib.report.Report
        Its findings.
    codes : LayerCodes
        Of all images.
    images : torch.Tensor or Dataset
        From which the examples are taken.
    diagnosis : Diagnosis
        Holds the maps.
    judge : ndarray of int
        Images that were kept back.
    names : sequence of str
        Of the outputs.
    """
    title = f"Codes of {report.model_name}"
    parts = [_head(title, report), *_association(report), *_use_and_shape(report), *_errors(report)]
    parts.append("<h2>What single units stand for</h2>")
    for layer in codes:
        parts += _units(layer, codes, images, diagnosis, judge, names)
    return PAGE.format(title=escape(title), style=STYLE, body="\n".join(parts))


def _head(title: str, report) -> str:
    chosen = f" The layers were chosen by themselves ({escape(report.chosen)})." if report.chosen else ""
    accuracy = ""
    if report.accuracy is not None:
        low, high = report.accuracy_interval
        accuracy = f" On these the network is right in {report.accuracy:.1%} ({low:.1%} to {high:.1%})."
    beside = "" if report.control is None else " The same network with new, untrained weights stands beside it."
    return (
        f"<h1>{escape(title)}</h1>\n<p>{report.n_fit:,} images trained a self-organizing map of {report.side} × "
        f"{report.side} units for each layer; everything below was measured on {report.n_judge:,} other images."
        f"{accuracy}{chosen}{beside}</p>\n<p>A code is what a layer answers to an image, pooled to a list of numbers; "
        "a unit of a map stands for the codes that lie nearest to it. Intervals hold 95 % and say how much other "
        "images would change a number; they do not cover another training run of the network or of the map.</p>"
    )


def _association(report) -> list[str]:
    from . import plots

    short = dict(zip(report.layers, _short(report.layers), strict=True))
    curves = {"trained": report.layers} | ({} if report.control is None else {"untrained": report.control})
    results = {
        name: {short[layer]: found.association for layer, found in curve.items()} for name, curve in curves.items()
    }
    rows = []
    for layer, found in report.layers.items():
        low, high = found.association.interval
        row = [layer, f"{found.association.adjusted_mutual_information:.2f} ({low:.2f} to {high:.2f})"]
        row += [f"{np.quantile(found.association.null, 0.975):.2f}", f"{found.association.p_value:.2g}"]
        if report.control is not None:
            row.append(f"{report.control[layer].association.adjusted_mutual_information:.2f}")
        if found.class_association is not None:
            row.append(f"{found.class_association.adjusted_mutual_information:.2f}")
        rows.append(row)
    columns = ["layer", "with the answers", "shuffled, 97.5 %", "p"]
    columns += [] if report.control is None else ["untrained"]
    columns += [] if next(iter(report.layers.values())).class_association is None else ["with the classes"]
    caption = (
        "Adjusted mutual information of an image's unit and the network's answer: 0 is chance, and with more units "
        "than answers it stays below 1. Grey: the answers shuffled. The untrained network's units are held against the "
        "trained one's answers: what its random filters follow, no training was needed for."
    )
    ends = [f"{found.association.adjusted_mutual_information:.2f}" for found in report.layers.values()]
    alt = f"Adjusted mutual information from {ends[0]} in the first layer to {ends[-1]} in the last; the table has all."
    return [
        "<h2>Do the codes go with the answers?</h2>",
        _figure(lambda: _tilted(plots.plot_association(results), report.layers), alt, caption),
        _table(columns, rows, "Association of units and answers, by layer."),
    ]


def _use_and_shape(report) -> list[str]:
    from .plots_geometry import plot_measures

    found, control = report.layers, report.control

    def curves(name, extra=None):
        both = {"trained": [value(each, name) for each in found.values()]}
        both |= {} if control is None else {"untrained": [value(each, name) for each in control.values()]}
        return both | ({} if extra is None else {"k-means": [value(each, extra) for each in found.values()]})

    def value(each, name):
        return each.occupancy.perplexity if name == "perplexity" else getattr(each, name)

    measures = {
        "units in use (perplexity)": curves("perplexity"),
        "quantization error / spread": curves("quantization_error", "kmeans_error"),
        "participation ratio": curves("participation_ratio"),
        "intrinsic dimension": curves("dimension"),
    }
    rows = []
    for layer, each in found.items():
        row = [layer, f"{each.occupancy.n_occupied} of {report.side**2}", f"{each.occupancy.perplexity:.0f}"]
        row += [f"{each.quantization_error:.2f}", f"{each.kmeans_error:.2f}", f"{each.participation_ratio:.1f}"]
        row += [str(each.components_90), f"{each.dimension:.1f}"]
        for one in [each] if control is None else [each, control[layer]]:
            row.append("–" if one.geometry is None else f"{one.geometry.classes.variance_ratio:.2f}")
        rows.append(row)
    columns = ["layer", "units used", "perplexity", "error", "k-means", "participation", "components", "dimension"]
    columns += ["within / between"] + ([] if control is None else ["untrained"])
    caption = (
        "Perplexity: as many units in equal use would be as hard to guess; a set of n images cannot use more than n. "
        "Error: distance of a code to its unit over the spread of the codes, small if few patterns say it all. k-means "
        "has as many centres and no order to keep, so it should do a little better. Participation ratio and intrinsic "
        "dimension: in how many directions codes spread, by their covariance and by nearest neighbours."
    )
    alt = "Four panels over the layers, with the numbers of the table: units in use, error, two counts of directions."
    note = (
        "Components: that hold 90 % of the variance. Within / between: variance inside classes over that between them, "
        "smaller where classes part (the network's answers stand for classes if these are not known)."
    )
    names = _short(found)
    return [
        "<h2>How many patterns, in how many directions?</h2>",
        _figure(lambda: _tilted(plot_measures(names, measures), found), alt, caption),
        _table(columns, rows, note),
    ]


def _errors(report) -> list[str]:
    from .plots_diagnose import plot_aurocs

    heading = "<h2>Do codes give errors away?</h2>"
    if report.diagnosis is None:
        return [heading, f"<p>Not measured: {escape(report.why_no_diagnosis)}.</p>"]
    found = report.diagnosis
    caption = (
        f"AUROC: the chance that a wrong answer ({found.n_positive} of them) looks more suspicious than a right one "
        f"({found.n_negative}). 0.5 is chance. The softmax is what the codes must face: it costs nothing. The codes' "
        "score is how rarely images of a unit got the answer that this image got."
    )
    alt = "; ".join(f"{name} {value:.2f}" for name, value in zip(found.names, found.auroc, strict=True))
    told = "; ".join(f"{name}: {found.verdict(name)}" for name in found.names[1:])
    figure = _figure(lambda: plot_aurocs({"": found}), f"AUROC by score: {alt}.", caption)
    return [heading, figure, f"<p>Beside the softmax, by the interval of the paired difference: {escape(told)}.</p>"]


def _units(layer: str, codes: LayerCodes, images, diagnosis: Diagnosis, judge, names) -> list[str]:
    """Of a layer: where its images lie on the map, and images of its fullest units."""
    from . import plots
    from .codes import hit_map

    som = diagnosis.quantizers_[layer]
    x, answers = codes[layer][judge], codes.predictions[judge]
    units, distances = som.predict(x), som.transform(x)
    hits = hit_map(units, som.n_rows, som.n_columns)
    busy = [unit for unit in np.argsort(-hits.ravel(), kind="stable")[:N_UNITS] if hits.ravel()[unit]]
    shown, titles, told = [], [], []
    for unit in busy:
        members = np.flatnonzero(units == unit)
        members = members[np.argsort(distances[members, unit], kind="stable")][:N_EXAMPLES]
        tiles = [_thumbnail(images, int(judge[member])) for member in members]
        shown += tiles + [torch.ones_like(tiles[0])] * (N_EXAMPLES - len(tiles))
        titles += [f"unit {unit}" if i == 0 else "" for i in range(N_EXAMPLES)]
        values, counts = np.unique(answers[units == unit], return_counts=True)
        name = names[values[counts.argmax()]]
        told.append(f"unit {unit}: {counts.sum()} images, {counts.max()} of them answered “{name}”")
    side = max(max(tile.shape[1:]) for tile in shown)
    shown = torch.stack([_padded(tile, side) for tile in shown])
    caption = f"{layer}: images nearest to the {len(busy)} fullest units ({N_EXAMPLES} of each). {'; '.join(told)}."
    hits_alt = f"Map of {layer}: {np.count_nonzero(hits)} of {hits.size} units hold images, {hits.max()} the fullest."
    return [
        f"<h3>{escape(layer)}</h3>",
        _figure(lambda: plots.plot_hit_map(hits), hits_alt, f"{layer}: images per unit; hatched units have none."),
        _figure(
            lambda: plots.plot_images(shown, titles, n_columns=2 * N_EXAMPLES),
            f"Small images, {N_EXAMPLES} for each of {len(busy)} units of {layer}; the caption says what they are.",
            caption,
        ),
    ]


def _thumbnail(images, index: int) -> torch.Tensor:
    """One image, float (1 or 3, height, width) in [0, 1], at most WIDEST pixels a side."""
    image = image_at(images, index).detach().float().cpu()
    if not 0 <= image.min() <= image.max() <= 1:  # normalised outside the model: what it looked like is not known
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-12)
    image = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    scale = WIDEST / max(image.shape[1:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[1:]]
        image = torch.nn.functional.interpolate(image[None], size=size, mode="area")[0]
    return image


def _padded(image: torch.Tensor, side: int) -> torch.Tensor:
    """The image in the corner of a white square."""
    square = torch.ones(image.shape[0], side, side)
    square[:, : image.shape[1], : image.shape[2]] = image
    return square


def _short(layers) -> list[str]:
    """Names of layers without the parts that all of them begin with."""
    parts = [layer.split(".") for layer in layers]
    n_shared = 0
    while all(len(part) > n_shared + 1 and part[n_shared] == parts[0][n_shared] for part in parts):
        n_shared += 1
    return [".".join(part[n_shared:]) for part in parts]


def _tilted(axes, layers):
    """Turn the names of layers where they would run into each other."""
    if sum(map(len, _short(layers))) > 24:
        for ax in np.ravel(axes):
            ax.tick_params(axis="x", rotation=40)
    return axes


def _figure(draw, alt: str, caption: str) -> str:
    """What `draw` draws, as a figure element; the figure is closed again."""
    import matplotlib.pyplot as plt

    figure = np.ravel(draw())[0].figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _table(columns, rows, caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
