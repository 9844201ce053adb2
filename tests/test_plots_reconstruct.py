"""plots_reconstruct: what is drawn, by artists and labels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from nfcodes_lib import plots_reconstruct as plots
from nfcodes_lib.reconstruction import ImageCheck
from nfcodes_lib.statistics import wilson_interval

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_image_map_puts_each_image_in_its_cell_and_hatches_the_rest():
    images = np.stack([np.full((1, 4, 6), 0.25), np.full((1, 4, 6), 0.75)])
    ax = plots.plot_image_map(images, [1, 5], n_rows=2, n_columns=3, title="layer4")
    mosaic = ax.images[0].get_array()
    assert mosaic.shape == (8, 18, 3)
    assert (mosaic[:4, 6:12] == 0.25).all()
    assert (mosaic[4:, 12:] == 0.75).all()
    empty = [(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in ax.patches if isinstance(patch, Rectangle)]
    assert sorted(empty) == [(0, 0), (0, 1), (1, 1), (2, 0)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 at the top
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("column", "row", "layer4")


def test_colour_images_keep_their_colours():
    images = np.zeros((1, 3, 2, 2))
    images[:, 1] = 0.5
    ax = plots.plot_image_map(images, [0], n_rows=1, n_columns=1)
    np.testing.assert_array_equal(ax.images[0].get_array()[0, 0], [0, 0.5, 0])


def test_image_maps_have_one_panel_each():
    images = RNG.random((2, 1, 4, 4))
    axes = plots.plot_image_maps({"a": images, "b": images}, [0, 1], n_rows=1, n_columns=2)
    assert [ax.get_title() for ax in axes] == ["a", "b"]


def test_image_rows_are_named_and_noted():
    rows = {"pixels": RNG.random((3, 1, 4, 4)), "decoder": RNG.random((3, 1, 4, 4))}
    ax = plots.plot_image_rows(rows, notes=["1 %", "2 %"])
    assert len(ax.images) == 6
    assert [text.get_text() for text in ax.texts] == ["pixels", "1 %", "decoder", "2 %"]


def test_code_errors_are_lines_on_a_logarithmic_axis():
    ax = plots.plot_code_errors({"pixels": [1.0, 0.1, 0.01], "decoder": [0.5, 0.2, 0.1]})
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, 0.1, 0.01])
    assert [text.get_text() for text in ax.texts] == ["pixels", "decoder"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in ax.lines}) == 2


def test_image_checks_show_each_share_in_its_panel():
    check = ImageCheck(n_images=4, code_error=0.1, exact=0.5, within_one_step=0.75, agreement=(0.25, 1.0))
    axes = plots.plot_image_checks({layer: {"ours": check} for layer in ("layer1", "layer2")})
    assert [ax.lines[0].get_ydata().tolist() for ax in axes] == [[50, 50], [75, 75], [25, 25], [100, 100]]
    bar = axes[3].containers[0].lines[2][0].get_segments()[0]  # 4 of 4 units
    np.testing.assert_allclose(bar[:, 1], [100 * low for low in (wilson_interval(4, 4)[0], 1)])
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["1", "2"]
    assert [ax.get_ylabel() for ax in axes] == ["share of units (%)", ""] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: plots.plot_image_map(x, [0], n_rows=1, n_columns=2), "got 2 images and 1 units"),
        (lambda x: plots.plot_image_map(x, [0, 0], n_rows=1, n_columns=2), "units must be different"),
        (lambda x: plots.plot_image_map(x, [0, 2], n_rows=1, n_columns=2), r"units must lie in \[0, 2\), got 2"),
        (lambda x: plots.plot_image_map(x[:, 0], [0, 1], n_rows=1, n_columns=2), "images must have shape"),
        (lambda x: plots.plot_image_rows({"a": x, "b": x[:1]}), "images of one number and shape"),
        (lambda x: plots.plot_image_rows({"a": x}, notes=[]), "one text for each of 1 rows, got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 1, 4, 4)))
