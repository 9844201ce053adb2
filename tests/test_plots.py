"""plots: what is drawn, by artists and labels. Nothing is compared by pixels."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba

from nfcodes_lib import plots
from nfcodes_lib._plot_style import CLASS_COLORS, STYLE, label_line_ends, styled
from nfcodes_lib.codes import association, code_accuracy, code_table, hit_map, hit_maps
from nfcodes_lib.controls import occupancy
from nfcodes_lib.som import SOM

N_ROWS, N_COLUMNS = 3, 5
RNG = np.random.default_rng(0)
OUTPUTS = RNG.integers(0, 4, 400)
UNITS = np.where(RNG.random(400) < 0.8, OUTPUTS * 3, 1)  # units 0, 1, 3, 6, 9 of 15
TABLE = code_table(UNITS, OUTPUTS, n_units=15)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def som():
    data = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    return SOM(N_ROWS, N_COLUMNS, backend="torch", n_epochs=4, random_state=0).fit(data)


def associations(shift=0):
    settings = {"n_permutations": 19, "n_resamples": 9}
    return {layer: association(UNITS, np.roll(OUTPUTS, shift), **settings) for layer in ("layer1", "layer2")}


def cells(ax):
    """The collections of empty units and of units with a value."""
    empty, known = [each for each in ax.collections if isinstance(each, PolyCollection)]
    return empty, known


def texts(ax):
    return [text.get_text() for text in ax.texts]


EVERY = {
    "images": lambda ax: plots.plot_images(np.zeros((3, 4, 4)), ["a", "b", "c"], ax=ax),
    "codes": lambda ax: plots.plot_codes(RNG.random((6, 4)), [0, 1, 0, 1, 2, 2], ax=ax),
    "map": lambda ax: plots.plot_map(RNG.random((3, 4)), ax=ax),
    "u_matrix": lambda ax: plots.plot_u_matrix(RNG.random((3, 4)), ax=ax),
    "hit_map": lambda ax: plots.plot_hit_map(hit_map(UNITS, 3, 5), ax=ax),
    "majority_map": lambda ax: plots.plot_majority_map(TABLE, n_rows=3, n_columns=5, ax=ax),
    "codebook_2d": lambda ax: plots.plot_codebook_2d(RNG.random((2, 3, 2)), RNG.random((9, 2)), ax=ax),
    "history": lambda ax: plots.plot_history([3.0, 2.0, 1.0], ax=ax),
    "curve": lambda ax: plots.plot_curve_with_interval([1, 2], {"a": [1, 2]}, ax=ax),
    "association": lambda ax: plots.plot_association(associations(), ax=ax),
    "null": lambda ax: plots.plot_null(RNG.normal(size=50), 4.0, ax=ax),
    "code_table": lambda ax: plots.plot_code_table(TABLE, ax=ax),
    "occupancy": lambda ax: plots.plot_occupancy(occupancy(UNITS, n_units=15), ax=ax),
}


@pytest.mark.parametrize("name", EVERY)
def test_draws_on_the_axes_given(name):
    ax = plt.subplots()[1]
    assert EVERY[name](ax) is ax
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("name", EVERY)
def test_own_axes_are_opaque_white_and_settings_stay_the_readers(name):
    with plt.style.context("dark_background"):
        before = dict(mpl.rcParams)
        ax = EVERY[name](None)
        assert dict(mpl.rcParams) == before
    assert isinstance(ax, Axes)
    assert to_rgba(ax.figure.get_facecolor()) == (1, 1, 1, 1)
    assert ax.get_facecolor()[3] == 1
    assert ax.xaxis.label.get_color() != "white"


@pytest.mark.parametrize("name", EVERY)
def test_figures_can_be_drawn_and_no_text_is_too_small(name):
    ax = EVERY[name](None)
    ax.figure.canvas.draw()
    assert 6 <= ax.figure.get_figwidth() <= 7.5
    assert min(text.get_fontsize() for text in ax.findobj(mpl.text.Text) if text.get_text()) >= 9


@pytest.mark.parametrize("name", [name for name in EVERY if name != "images"])
def test_axes_say_what_they_show(name):
    ax = EVERY[name](None)
    if name == "curve":
        ax = plots.plot_curve_with_interval([1, 2], {"a": [1, 2]}, xlabel="epsilon", ylabel="share")
    assert ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("name", ["map", "u_matrix", "hit_map", "majority_map"])
def test_row_zero_is_at_the_top(name):
    ax = EVERY[name](None)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")


def test_images_are_tiled_in_order_with_titles():
    images = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 1, 6, 6) / 5
    ax = plots.plot_images(images, list("abcde"), n_columns=3)
    assert [float(image.get_array().mean()) for image in ax.images] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    left, _, bottom, top = ax.images[4].get_extent()
    assert (round(left), bottom > top) == (1, True)  # second row, second column, upright
    assert texts(ax) == list("abcde")


def test_colour_images_keep_their_channels():
    ax = plots.plot_images(np.random.default_rng(0).random((2, 3, 4, 4)))
    assert ax.images[0].get_array().shape == (4, 4, 3)


def test_codes_are_sorted_by_class_and_standardized():
    codes = np.array([[0.0, 5.0], [10.0, 5.0], [0.0, 5.0], [10.0, 5.0]])
    ax = plots.plot_codes(codes, [1, 0, 1, 0], names=["low", "high"])
    np.testing.assert_allclose(ax.images[0].get_array(), [[1, 0], [1, 0], [-1, 0], [-1, 0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["low", "high"]
    raw = plots.plot_codes(codes, [1, 0, 1, 0], standardize=False)
    assert raw.images[0].get_array().max() == 10


def test_empty_units_are_hatched_and_not_zero():
    hits = hit_map(UNITS, N_ROWS, N_COLUMNS)
    empty, known = cells(plots.plot_hit_map(hits))
    assert len(empty.get_paths()) == 10
    assert empty.get_hatch() == "////"
    assert known.get_array().tolist() == hits[hits > 0].tolist()


def test_cells_lie_where_their_units_are():
    values = np.full((2, 3), np.nan)
    values[1, 2] = 7
    _, known = cells(plots.plot_map(values))
    assert known.get_paths()[0].get_extents().bounds == pytest.approx((1.5, 0.5, 1, 1))
    _, known = cells(plots.plot_map(values, grid_type="hexagonal"))
    extents = known.get_paths()[0].get_extents()
    assert (extents.x0 + extents.x1) / 2 == pytest.approx(2.5)
    assert (extents.y0 + extents.y1) / 2 == pytest.approx(np.sqrt(0.75))


def test_u_matrix_takes_a_map_or_its_array(som):
    from_som, from_array = (cells(plots.plot_u_matrix(each))[1] for each in (som, som.u_matrix()))
    np.testing.assert_array_equal(from_som.get_array(), from_array.get_array())
    np.testing.assert_allclose(from_som.get_array(), som.u_matrix().ravel())


def test_hit_maps_share_one_scale_and_carry_names():
    maps = hit_maps(UNITS, OUTPUTS, N_ROWS, N_COLUMNS)
    axes = plots.plot_hit_maps(maps, names=list("abcd"))
    assert [ax.get_title() for ax in axes] == list("abcd")
    assert {cells(ax)[1].get_clim() for ax in axes} == {(1, maps.max())}
    assert len(axes[0].figure.axes) == 5  # four panels and one colour bar


def test_component_planes_show_the_features_asked_for(som):
    axes = plots.plot_component_planes(som, [1, 0])
    assert [ax.get_title() for ax in axes] == ["feature 1", "feature 0"]
    np.testing.assert_allclose(cells(axes[0])[1].get_array(), som.codebook_[:, :, 1].ravel())


def test_panels_given_are_used():
    figure, given = plt.subplots(1, 4)
    axes = plots.plot_hit_maps(hit_maps(UNITS, OUTPUTS, N_ROWS, N_COLUMNS), axes=given)
    assert list(axes) == list(given)
    assert all(ax.figure is figure for ax in axes)


def test_majority_map_has_colour_number_and_purity():
    ax = plots.plot_majority_map(TABLE, n_rows=N_ROWS, n_columns=N_COLUMNS, names=["top", "shoe", "bag", "hat"])
    _, known = cells(ax)
    seen = np.flatnonzero(TABLE.n_samples)
    np.testing.assert_allclose(known.get_facecolor(), [to_rgba(CLASS_COLORS[i]) for i in TABLE.majority[seen]])
    assert texts(ax) == [str(i) for i in TABLE.majority[seen]]
    widths = [path.get_extents().width for path in known.get_paths()]
    np.testing.assert_allclose(np.square(widths), TABLE.purity[seen], rtol=1e-6)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["0  top", "1  shoe", "2  bag", "3  hat", "no sample"]


def test_majority_map_by_hits():
    ax = plots.plot_majority_map(TABLE, n_rows=N_ROWS, n_columns=N_COLUMNS, size="hits")
    areas = np.square([path.get_extents().width for path in cells(ax)[1].get_paths()])
    hits = TABLE.n_samples[TABLE.n_samples > 0]
    np.testing.assert_allclose(areas, np.maximum(hits / hits.max(), 0.05), rtol=1e-6)


@pytest.mark.parametrize("name", ["majority_map", "association"])
def test_legends_and_labels_stay_inside_the_figure_and_off_the_data(name):
    ax = EVERY[name](None)
    figure = ax.figure
    figure.canvas.draw()
    data = ax.get_window_extent()
    outside = [ax.get_legend()] if ax.get_legend() else [text for text in ax.texts if text.get_text()]
    for artist in outside:
        box = artist.get_window_extent()
        assert box.x0 >= data.x1 - 1
        assert box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= box.y0 < box.y1 <= figure.bbox.y1 + 1


def test_codebook_2d_joins_neighbours_only(som):
    data = np.zeros((10, 2))
    ax = plots.plot_codebook_2d(som, data, labels=[0, 1] * 5, names=["even", "odd"])
    links = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(links) == N_ROWS * (N_COLUMNS - 1) + N_COLUMNS * (N_ROWS - 1)
    drawn = np.column_stack(ax.lines[-1].get_data())
    np.testing.assert_allclose(drawn, som.codebook_.reshape(-1, 2))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["even", "odd"]


def test_codebook_2d_wraps_a_toroid():
    ax = plots.plot_codebook_2d(RNG.random((4, 5, 2)), RNG.random((9, 2)), map_type="toroid")
    assert len([line for line in ax.lines if len(line.get_xdata()) == 2]) == 2 * 4 * 5


def test_history_of_a_map_and_of_several(som):
    line = plots.plot_history(som).lines[0]
    np.testing.assert_allclose(line.get_ydata(), som.history_)
    assert line.get_xdata()[0] == 1
    assert sorted(texts(plots.plot_history({"ours": som, "other": [4, 3, 2]}))) == ["other", "ours"]


def test_curves_have_bands_markers_and_labels_apart():
    low_high = ([1.0, 2.0], [0.5, 1.5], [1.5, 2.5])
    series = {"trained": low_high, "untrained": [1.0, 2.01], "shuffled": [0.0, 0.0]}
    ax = plots.plot_curve_with_interval(["layer1", "layer2"], series, xlabel="layer", ylabel="AMI")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["layer1", "layer2"]
    assert len(ax.collections) == 1
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}) == 3
    assert sorted(texts(ax)) == ["shuffled", "trained", "untrained"]
    heights = sorted(text.get_position()[1] for text in ax.texts)
    assert np.diff(heights).min() >= 0.07


def test_labels_that_do_not_collide_stay_at_their_lines():
    ax = plt.subplots()[1]
    ax.set_ylim(0, 1)
    label_line_ends(ax, [(0, 0.2, "low", "black"), (0, 0.8, "high", "black")])
    assert {text.get_text(): text.get_position()[1] for text in ax.texts} == pytest.approx({"low": 0.2, "high": 0.8})


def test_association_has_intervals_and_the_null_band():
    curves = {"trained": associations(), "shuffled": associations(shift=7)}
    ax = plots.plot_association(curves)
    assert sorted(texts(ax)) == ["null (95 %)", "shuffled", "trained"]
    first = curves["trained"]["layer1"]
    bars = ax.containers[0]
    assert bars.lines[0].get_ydata()[0] == first.adjusted_mutual_information
    assert bars.lines[2][0].get_segments()[0][:, 1] == pytest.approx(first.interval)
    band = ax.collections[0].get_paths()[0].get_extents()
    null = np.concatenate([curve["layer1"].null for curve in curves.values()])
    assert (band.y0, band.y1) == pytest.approx(tuple(np.quantile(null, [0.025, 0.975])))
    assert plots.plot_association(associations(), measure="uncertainty_coefficient").get_ylabel().startswith("uncert")


def test_association_draws_accuracy_too():
    judged = {"layer1": code_accuracy(TABLE, UNITS, OUTPUTS, n_permutations=19)}
    ax = plots.plot_association(judged, measure="accuracy")
    assert ax.containers[0].lines[0].get_ydata() == [judged["layer1"].accuracy]
    assert ax.get_ylabel() == "code-to-output accuracy"


def test_null_shows_all_permutations_and_the_observed_value():
    ax = plots.plot_null(np.random.default_rng(0).normal(size=200), 5.0, xlabel="AMI")
    assert sum(bar.get_height() for bar in ax.patches) == 200
    assert ax.lines[0].get_xdata() == [5.0, 5.0]
    assert texts(ax) == ["observed 5.000"]


def test_code_table_shows_the_units_asked_for():
    ax = plots.plot_code_table(TABLE, units=[3, 2], names=list("abcd"))
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown[0], TABLE.probabilities[3])
    assert shown.mask[1].all()  # unit 2 is empty
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"3  (n = {TABLE.n_samples[3]})", "2  (n = 0)"]


def test_occupancy_is_ranked_and_in_per_cent():
    ax = plots.plot_occupancy({"map": occupancy([0, 0, 0, 2], n_units=4)})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [75, 25, np.nan, np.nan])
    assert ax.lines[1].get_ydata()[0] == 25
    assert ax.get_legend().get_texts()[0].get_text() == "map: perplexity 2 of 4"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_images(np.zeros((4, 4))), r"\(n, height, width\).* got \(4, 4\); a single image"),
        (lambda: plots.plot_images(np.zeros((2, 4, 4)), ["one"]), "each of 2 images, got 1"),
        (lambda: plots.plot_codes(np.zeros((2, 4)), [1]), "one label each"),
        (lambda: plots.plot_map(np.zeros(4)), r"shape \(n_rows, n_columns\), got \(4,\); reshape"),
        (lambda: plots.plot_hit_maps(np.zeros((3, 4))), "n_outputs, n_rows, n_columns"),
        (lambda: plots.plot_hit_maps(np.ones((3, 2, 2)), axes=[None]), "at least 3 panels, got 1"),
        (lambda: plots.plot_component_planes(np.zeros((2, 2, 3)), [3]), r"indices in \[0, 3\), got \[3\]"),
        (lambda: plots.plot_component_planes(np.zeros((2, 3)), [0]), "fitted SOM or a codebook"),
        (lambda: plots.plot_majority_map(TABLE, n_rows=4, n_columns=4), "n_rows .* n_columns = 16 units, got 15"),
        (lambda: plots.plot_majority_map(TABLE, n_rows=3, n_columns=5, size="big"), "'purity' or 'hits', got 'big'"),
        (lambda: plots.plot_codebook_2d(np.zeros((2, 2, 3)), np.zeros((4, 3))), "two features to draw"),
        (lambda: plots.plot_curve_with_interval([1, 2], {"a": [1]}), r"series 'a' must have shape \(2,\)"),
        (lambda: plots.plot_curve_with_interval([1], {str(i): [1] for i in range(7)}), "at most 6 curves .* got 7"),
        (lambda: plots.plot_association(associations(), measure="auc"), "measure must be one of .* got 'auc'"),
        (lambda: plots.plot_code_table(TABLE, units=[15]), r"indices in \[0, 15\), got \[15\]"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_settings_that_a_first_figure_changes_stay_changed():
    # A notebook's backend turns interactive mode on when the first figure loads it; undone, no figure would be shown.
    @styled
    def first_figure():
        mpl.rcParams["interactive"] = True
        return mpl.rcParams["font.size"]

    before = mpl.rcParams["interactive"], mpl.rcParams["font.size"]
    try:
        assert first_figure() == STYLE["font.size"]
        assert mpl.rcParams["interactive"]
        assert mpl.rcParams["font.size"] == before[1]
    finally:
        mpl.rcParams["interactive"] = before[0]
