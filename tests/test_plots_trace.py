"""Figures of traces, by their artists and labels."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nfcodes_lib.codes import code_table
from nfcodes_lib.patching import PatchResult
from nfcodes_lib.plots_paths import plot_attack, plot_paths, plot_transitions
from nfcodes_lib.plots_trace import (
    LABELS,
    budget_name,
    plot_networks,
    plot_patching,
    plot_propagation,
    plot_stages,
)
from nfcodes_lib.traces import AVERAGES, SHARES, Paths, Propagation, Trace


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def paths(rng, strength):
    """Two layers of a 2 x 3 map, three budgets, five images."""
    shape = (3, 2, 5)
    values = {name: strength * rng.random(shape) for name in AVERAGES}
    return Paths(
        predictions=rng.integers(0, 3, (3, 5)),
        success=np.array([[False] * 5, [True] * 3 + [False] * 2, [True] * 5]),
        l2_norm=rng.random((3, 5)),
        linf_norm=rng.random((3, 5)),
        units=rng.integers(0, 6, shape),
        bmu_changed=rng.random(shape) < strength,
        regions=rng.integers(0, 3, shape),
        parting_layer=np.array([[2] * 5, [0, 0, 1, 1, 2], [0] * 5]),
        entry_layer=np.array([[-1] * 5, [0, 1, 2, -1, -1], [1] * 5]),
        **values,
    )


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    return Trace(
        paths=paths(rng, 1.0),
        noise=Propagation(paths(rng, 0.3)),
        layers=("layer1", "layer2"),
        epsilons=np.array([0, 2 / 255, 8 / 255]),
        norm="linf",
        index=np.arange(5),
        labels=np.array([0, 1, 2, 0, 1]),
        targets=None,
        accuracy=1.0,
        clean_units=rng.integers(0, 6, (2, 5)),
        clean_regions=rng.integers(0, 3, (2, 5)),
        clean_quantization_error=rng.random((2, 5)),
    )


def lines(ax):
    return [line for line in ax.get_lines() if len(line.get_xdata()) == 2]


def test_plot_propagation_draws_attack_and_noise_for_each_budget(trace):
    ax = plot_propagation(trace, "relative_change")
    solid, dashed = lines(ax)[0::2], lines(ax)[1::2]
    np.testing.assert_allclose(solid[1].get_ydata(), trace.relative_change[2])
    np.testing.assert_allclose(dashed[1].get_ydata(), trace.noise.relative_change[2])
    assert [line.get_linestyle() for line in (solid[0], dashed[0])] == ["-", "--"]
    assert {text.get_text() for text in ax.texts} == {"2/255", "8/255"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["layer1", "layer2"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["attack", "noise of equal length"]
    assert len(ax.collections) == 4  # an interval for each curve


@pytest.mark.parametrize("measure", [name for name in AVERAGES + SHARES if name != "success"])
def test_every_measure_over_layers_has_a_label_and_draws(trace, measure):
    assert plot_propagation(trace, measure, epsilons=[8 / 255]).get_ylabel() == LABELS[measure]


def test_names_stand_at_the_ends_of_their_curves_on_a_logarithmic_axis_too(trace):
    ax = plot_propagation(trace, "code_change", epsilons=[8 / 255], log=True)
    assert ax.get_yscale() == "log"
    ax.figure.draw_without_rendering()
    end = ax.transAxes.inverted().transform(ax.transData.transform((1, trace.code_change[2, 1])))[1]
    assert ax.texts[0].get_position()[1] == pytest.approx(end, abs=0.02)


def test_plot_networks_names_each_network(trace):
    ax = plt.subplots()[1]
    assert plot_networks({"one": trace, "two": trace}, "bmu_changed", epsilon=8 / 255, ax=ax, linewidth=3) is ax
    assert {text.get_text() for text in ax.texts} == {"one", "two"}
    assert {line.get_linewidth() for line in lines(ax)} == {3}


def test_plot_attack_shows_three_rows_and_the_magnification():
    clean = np.full((2, 1, 4, 4), 0.5)
    attacked = clean + np.array([0.02, -0.05]).reshape(2, 1, 1, 1)
    ax = plot_attack(clean, attacked, ["a to b", "c to d"])
    assert len(ax.images) == 6
    np.testing.assert_allclose(ax.images[3].get_array(), -1)  # the largest change fills the scale
    np.testing.assert_allclose(ax.images[2].get_array(), 0.4)
    assert {text.get_text() for text in ax.texts} == {"clean", "change\n× 20", "attacked", "a to b", "c to d"}
    with pytest.raises(ValueError, match="clean and attacked must both have shape"):
        plot_attack(clean, attacked[:1])


def test_plot_paths_marks_three_units_per_panel(trace):
    soms = dict.fromkeys(trace.layers, SimpleNamespace(n_rows=2, n_columns=3, grid_type="rectangular"))
    tables = dict.fromkeys(trace.layers, code_table([0, 1, 2, 3], [0, 1, 2, 2], n_units=6))
    axes = plot_paths(trace, soms, tables, epsilon=8 / 255, images=[0, 3], titles=["one", "two"], names="abc")
    assert axes.shape == (2, 2)
    assert [ax.get_title() for ax in axes[0]] == ["layer1", "layer2"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["one", "two"]
    start = axes[1, 1].collections[-2].get_offsets()[0]
    assert tuple(start) == (trace.clean_units[1, 3] % 3, trace.clean_units[1, 3] // 3)
    end = axes[1, 1].collections[-1].get_offsets()[0]
    assert tuple(end) == (trace.paths.units[2, 1, 3] % 3, trace.paths.units[2, 1, 3] // 3)
    names = [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()]
    assert names == ["clean", "attacked", "noise", "a", "b", "c"]


def test_plot_transitions_shows_shares_of_rows():
    ax = plot_transitions([[3, 1, 0], [0, 0, 0], [0, 2, 2]], names=["x", "y", "z"])
    assert [text.get_text() for text in ax.texts] == ["0.75", "0.25", "0.50", "0.50"]
    assert ax.images[0].get_array().mask[1].all()  # a class without images is masked, not zero
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x  (n = 4)", "y  (n = 0)", "z  (n = 4)"]
    with pytest.raises(ValueError, match="must be square"):
        plot_transitions([[1, 2]])


def test_plot_stages_stacks_shares(trace):
    ax = plot_stages(trace)
    heights = np.array([[bar.get_height() for bar in container] for container in ax.containers])
    np.testing.assert_allclose(heights, [[0, 0.4, 1], [0, 0.4, 0], [1, 0.2, 0]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["never", "layer2", "layer1"]
    entry = plot_stages(trace, "entry")
    heights = np.array([[bar.get_height() for bar in container] for container in entry.containers])
    np.testing.assert_allclose(heights, [[0, 1 / 3, 0], [0, 1 / 3, 1], [0, 1 / 3, 0]])
    with pytest.raises(ValueError, match="which must be 'parting' or 'entry', got 'end'"):
        plot_stages(trace, "end")


def test_plot_patching_draws_result_and_control():
    share = np.array([[0.2, 1.0], [0.4, 1.0]])
    result = PatchResult(("a", "b"), np.array([0.5, 1.0]), share, share - 0.1, share, 0.0, share[..., None])
    control = PatchResult(("a", "b"), np.array([0.5, 1.0]), share / 2, share, share, 0.0, share[..., None])
    ax = plot_patching(result, control)
    drawn = lines(ax)
    np.testing.assert_allclose(drawn[0].get_ydata(), [0.2, 1.0])
    np.testing.assert_allclose(drawn[3].get_ydata(), [0.2, 0.5])
    assert drawn[3].get_linestyle() == "--"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_budget_names():
    assert budget_name(8 / 255) == "8/255"
    assert budget_name(0.5 / 255) == "0.5/255"
    assert budget_name(0.25, "l2") == "0.25"
