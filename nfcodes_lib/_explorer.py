"""What an explorer is made of: controls, panels, and one HTML text that needs nothing but a browser.

The page of the book has no kernel behind it, so an explorer carries all that it can show, and a script of a few
kilobytes (``explorer.js``) that swaps pictures, marks and words as the controls say. The same text is what
a live notebook displays. ipywidgets were tried: the manager that a page without a kernel needs weighs 3.6 MB, their
sliders have no name and their images no text for a screen reader.

Controls and panels are dictionaries, written as JSON. ``by`` names the controls that a panel depends on, and what it
shows is nested once for each of them: ``by=["layer", "unit"]`` reads ``texts[layer][unit]``.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ._plot_style import CLASS_COLORS

N_COLORS = 96  # of a figure's palette: a third of the bytes of true colour, and no difference to the eye


@dataclass(frozen=True)
class Explorer:
    """Controls and panels that Jupyter, the book's pages and any browser show from their HTML.

    Attributes
    ----------
    title : str
    controls : list of dict
    panels : list of dict
    sheets : list of dict
        Of small images, from :func:`sheet`; controls and panels name them by their place in this list.
    """

    title: str
    controls: list[dict] = field(repr=False)
    panels: list[dict] = field(repr=False)
    sheets: list[dict] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        choices = ", ".join(f"{each['name']} ({each.get('n') or len(each['options'])})" for each in self.controls)
        return f"<Explorer {self.title!r}: {choices}>"

    def to_html(self) -> str:
        """The whole explorer: data, style and script, as one piece of HTML.

        Returns
        -------
        str
        """
        data = {"title": self.title, "controls": self.controls, "panels": self.panels, "sheets": self.sheets}
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
        style, script = _source("explorer.css"), _source("explorer.js")
        without = "This explorer needs JavaScript; the figure before it tells the same in one picture."
        return (
            f'<div class="nfcodes-explorer" data-title="{html.escape(self.title)}"><noscript>{without}</noscript>\n'
            f'<style>\n{style}</style>\n<script type="application/json">{text}</script></div>\n'
            f"<script>\n{script}</script>\n"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


class Canvas:
    """A figure that pyplot does not know, with one axes: drawn on, then turned into a picture with places on it.

    Parameters
    ----------
    width, height : float
        In inches, at 150 dots each; the text is then readable on a phone.
    layout : str
        As in matplotlib: "compressed" for maps, "constrained" for the rest.
    """

    def __init__(self, width: float = 4.0, height: float = 4.0, *, layout: str = "compressed"):
        self.figure = Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.ax: Axes = self.figure.add_subplot()

    def picture(self, alt: str) -> dict:
        """What has been drawn, as a picture of a palette, with its text for those who do not see it."""
        self.figure.canvas.draw()
        pixels = np.asarray(self.figure.canvas.buffer_rgba())[..., :3]
        image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(N_COLORS, dither=Image.Dither.NONE)
        return {"src": _data_uri(image), "alt": alt, "width": image.width, "height": image.height}

    def places(self, positions: np.ndarray) -> np.ndarray:
        """Pixels (x, y) of the picture at points (y, x) of the axes, as ``grids.unit_positions`` gives them."""
        self.figure.canvas.draw()
        x, y = self.ax.transData.transform(np.asarray(positions)[:, ::-1]).T
        return np.column_stack([x, self.figure.bbox.height - y]).round(1)


def sheet(images) -> dict:
    """Small images as tiles of one picture.

    Parameters
    ----------
    images : array-like of float, shape (n, 1 or 3, height, width)
        In [0, 1].

    Returns
    -------
    dict
        ``src``, and how many ``columns`` and ``rows`` of tiles it has; ``aspect`` of a tile.

    Raises
    ------
    ValueError
        If the images have another shape.
    """
    images = np.asarray(images, dtype=float)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape (n, 1 or 3, height, width), got {images.shape}")
    n, channels, height, width = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    tiles[:n] = np.moveaxis(np.clip(images, 0, 1) * 255, 1, -1).round()
    pixels = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return {"src": _data_uri(picture), "columns": columns, "rows": rows, "aspect": f"{width}/{height}"}


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def mark(kind: str, place: Sequence[float], *, to: Sequence[float] | None = None, radius: float = 11.0) -> dict:
    """A mark on a picture: a circle, cross, triangle or square at `place` in pixels, or a line from there to `to`."""
    found = {"kind": kind, "x": float(place[0]), "y": float(place[1]), "r": radius}
    return found if to is None else found | {"x2": float(to[0]), "y2": float(to[1])}


def choice_or_slider(name: str, label: str, options: Sequence[str], *, kind: str = "choice", **more) -> dict:
    """A control over few `options` ("choice": all are seen) or an order of many ("slider")."""
    return {"kind": kind, "name": name, "label": label, "options": list(options), "value": 0} | more


def picture_grid(name: str, label: str, views, *, by: Sequence[str] = (), columns: int | None = None, **more) -> dict:
    """A control of pictures to choose from; `views` (nested by the controls `by`) hold ``sheet`` and ``labels``."""
    first = views
    while isinstance(first, list):
        first = first[0]
    settings = {"by": list(by), "columns": columns, "n": len(first["labels"]), "value": 0}
    return {"kind": "grid", "name": name, "label": label, "views": views} | settings | more


def colors(n_outputs: int) -> list[str]:
    """The colour of each output, as the plots have it."""
    return [CLASS_COLORS[i % len(CLASS_COLORS)] for i in range(n_outputs)]


def say_unit(unit: int, table, names: Sequence[str], n_columns: int) -> str:
    """A unit in words: where it lies, how many images it has, and what most of them are."""
    row, column = divmod(int(unit), n_columns)
    n = int(table.n_samples[unit])
    where = f"unit {int(unit)} (row {row}, column {column})"
    if n == 0:
        return f"{where}, which has no image"
    share, most = table.purity[unit], names[table.majority[unit]]
    return f"{where} with {n} image{'s' if n > 1 else ''}, {share:.0%} of them {most}"
