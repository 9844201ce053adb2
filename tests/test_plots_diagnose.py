"""Figures of diagnosis, by their artists and labels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from nfcodes_lib._plot_style import SERIES
from nfcodes_lib.detection import compare_detectors
from nfcodes_lib.plots_diagnose import (
    plot_auroc_table,
    plot_aurocs,
    plot_reliability,
    plot_risk_coverage,
    plot_score_distributions,
)
from nfcodes_lib.risk import reliability, risk_coverage

POSITIVE = np.arange(60) % 3 == 0


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def compared():
    rng = np.random.default_rng(0)
    suspicions = {name: rng.normal(size=60) + gain * POSITIVE for name, gain in {"a": 2, "b": 1, "c": 0}.items()}
    return compare_detectors(suspicions, POSITIVE, n_bootstrap=50)


def test_plot_aurocs_has_a_point_with_its_interval_for_each_detector(compared):
    ax = plot_aurocs({"net": compared})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    points = [container.lines[0].get_xdata()[0] for container in ax.containers]
    np.testing.assert_allclose(points, compared.auroc)
    reach = ax.containers[1].lines[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(reach, compared.interval[1])
    assert ax.get_legend() is None
    assert ax.get_ylim() == (2.5, -0.5)


def test_plot_aurocs_draws_differences_of_every_run_without_the_reference(compared):
    ax = plot_aurocs({"x": [compared, compared], "y": compared}, difference=True)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c"]
    assert ax.get_xlabel() == "AUROC less that of a"
    lines = [container.lines[0] for container in ax.containers]
    np.testing.assert_allclose([line.get_xdata()[0] for line in lines], np.repeat(compared.difference[1:], 3))
    assert [to_hex(line.get_color()) for line in lines[:3]] == [
        s.lower() for s in (SERIES[0][0],) * 2 + (SERIES[1][0],)
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]


def test_plot_auroc_table_writes_each_number():
    ax = plot_auroc_table([[0.5, 0.987], [np.nan, 0.1]], ["r", "s"], ["one", "two"], xlabel="attack")
    assert sorted(text.get_text() for text in ax.texts) == ["0.10", "0.50", "0.99"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["r", "s"]
    assert ax.images[0].get_clim() == (0, 1)


def test_plot_risk_coverage_ends_at_the_error_rate():
    curve = risk_coverage(np.arange(60), POSITIVE)
    ax = plot_risk_coverage({"score": curve}, least=0.5)
    line, best, chance = ax.get_lines()
    assert line.get_xdata().min() == 50
    assert line.get_ydata()[-1] == best.get_ydata()[-1] == chance.get_ydata()[0] == pytest.approx(100 / 3)
    assert best.get_ydata()[39] == 0
    assert (best.get_ydata()[29:] <= line.get_ydata() + 1e-9).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["score", "best possible", "chance"]


def test_plot_reliability_draws_percentages_with_intervals():
    curve = reliability([0.1] * 30 + [0.6] * 30, POSITIVE, n_bins=2)
    ax = plot_reliability({"p": curve})
    points = ax.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), [10, 60])
    np.testing.assert_allclose(points.get_ydata(), 100 * curve.observed)
    reach = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose(reach, 100 * curve.interval[0])
    assert ax.get_xlim() == ax.get_ylim()
    assert 60 < ax.get_ylim()[1] <= 100
    ax.figure.canvas.draw()  # the scale's functions run


def test_plot_score_distributions_keeps_the_colour_of_a_kind():
    axes = plot_score_distributions(
        {"s": {"x": [3, 1], "y": [2]}, "t": {"y": [5, 6]}}, xlabels={"t": "m"}, thresholds={"t": 5.5}
    )
    assert [ax.get_xlabel() for ax in axes] == ["", "m"]
    first = axes[0].get_lines()[0]
    assert (first.get_xdata().tolist(), first.get_ydata().tolist()) == ([1, 3], [50, 100])
    assert axes[1].get_lines()[0].get_color() == axes[0].get_lines()[1].get_color()
    assert axes[1].get_lines()[1].get_xdata() == [5.5, 5.5]
    assert [text.get_text() for text in axes[0].figure.legends[0].get_texts()] == ["x", "y"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: plot_aurocs({"net": c}, names=["d"]), r"name must be one of \['a', 'b', 'c'\], got 'd'"),
        (lambda c: plot_aurocs({str(i): c for i in range(7)}), "at most 6 curves to tell apart, got 7"),
        (lambda c: plot_auroc_table([0.5], ["r"], ["c"]), r"shape \(n_rows, n_columns\), got \(1,\)"),
        (lambda c: plot_auroc_table([[0.5], [0.6]], ["r"], ["c"]), "one name for each of 2 rows, got 1"),
    ],
)
def test_errors_say_what_was_expected(compared, call, message):
    with pytest.raises(ValueError, match=message):
        call(compared)
