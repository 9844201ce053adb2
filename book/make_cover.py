"""Draw the figure of the introduction, ``book/images/cover.png``: eight maps, four layers, before and after training.

Run it with ``make cover``. One map per layer is fitted on the codes of 5,000 training images, as in chapter 3; the test
images then say what each unit holds. Its colour is the label that most of its images carry, and it fades to white as
their share falls to a tenth, which is what ten classes mixed evenly would have. Equal runs give equal files.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

import nfcodes_lib as nf
from nfcodes_lib.plots import CLASS_COLORS

LAYERS = ("layer1", "layer2", "layer3", "layer4")
SIDE, SEED, N_FIT = 16, 0, 5000
COVER = Path(__file__).resolve().parent / "images" / "cover.png"
EVEN = 1 / len(nf.CLASS_NAMES)  # purity of a unit in which all classes are alike


def label_tables(*, pretrained: bool) -> list[nf.codes.CodeTable]:
    """P(label | unit) of each layer's map, counted on the test images."""
    fit_images, _ = nf.load_images("train", n_samples=N_FIT, random_state=SEED)
    images, labels = nf.load_images("test")
    network = nf.load_model("resnet", seed=SEED, pretrained=pretrained)
    fit_codes = nf.capture(network, fit_images, layers=LAYERS)
    codes = nf.capture(network, images, layers=LAYERS)
    tables = []
    for layer in LAYERS:
        som = nf.SOM(SIDE, SIDE, backend="torch", random_state=SEED).fit(fit_codes[layer])
        units = som.predict(codes[layer])
        tables.append(nf.code_table(units, labels, n_units=SIDE * SIDE, n_outputs=len(nf.CLASS_NAMES)))
    return tables


def majority_colors(table: nf.codes.CodeTable) -> np.ndarray:
    """Colour of each unit, shape (SIDE, SIDE, 3): its majority's, mixed with white the less pure it is."""
    color = np.array([to_rgb(CLASS_COLORS[output]) for output in table.majority])
    strength = np.nan_to_num((table.purity - EVEN) / (1 - EVEN))[:, None]  # an empty unit stays white
    return (strength * color + (1 - strength)).reshape(SIDE, SIDE, 3)


def draw(rows: dict[str, list[nf.codes.CodeTable]]) -> plt.Figure:
    """One row of maps for each network, one legend for all; sized to be read on a phone."""
    with mpl.rc_context({"font.size": 14, "axes.titlesize": 14, "axes.labelsize": 14, "legend.fontsize": 13}):
        figure, axes = plt.subplots(len(rows), len(LAYERS), figsize=(6.5, 4.4), layout="constrained", facecolor="white")
        for row, (name, tables) in zip(axes, rows.items(), strict=True):
            row[0].set_ylabel(name)
            for ax, table in zip(row, tables, strict=True):
                ax.imshow(majority_colors(table), interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_color("#999999")
        for ax, layer in zip(axes[0], LAYERS, strict=True):
            ax.set_title(layer)
        handles = [Patch(color=color, label=name) for color, name in zip(CLASS_COLORS, nf.CLASS_NAMES, strict=True)]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, frameon=False, handlelength=1, columnspacing=1.2
        )
    return figure


def main() -> None:
    """Fit, draw and write the figure."""
    figure = draw({"trained": label_tables(pretrained=True), "untrained": label_tables(pretrained=False)})
    COVER.parent.mkdir(exist_ok=True)
    figure.savefig(COVER, dpi=200, metadata={"Software": None})
    print(f"wrote {COVER.relative_to(Path.cwd()) if COVER.is_relative_to(Path.cwd()) else COVER}")


if __name__ == "__main__":
    main()
