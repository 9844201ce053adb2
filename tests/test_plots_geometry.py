"""Figures of geometry, by their artists and labels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from nfcodes_lib._plot_style import SERIES
from nfcodes_lib.plots_geometry import (
    plot_depth_change,
    plot_mean_cosines,
    plot_measures,
    plot_separation_law,
    plot_spectra,
)
from nfcodes_lib.separation import separation_law


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_plot_spectra_marks_how_many_components_are_needed():
    ax = plot_spectra({"flat": [1.0] * 10, "steep": [8.0, 1.5, 0.5]})
    curve, mark = ax.get_lines()[:2]
    np.testing.assert_allclose(curve.get_ydata(), np.arange(10, 101, 10))
    assert (mark.get_xdata()[0], round(mark.get_ydata()[0])) == (9, 90)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["flat: 9", "steep: 2"]
    assert ax.get_lines()[-1].get_ydata()[0] == 90


def test_plot_measures_keeps_the_style_of_a_curve_in_all_panels():
    band = np.array([[1.0, 2.0], [0.5, 1.5], [1.5, 2.5]])
    axes = plot_measures(["a", "b"], {"one": {"x": [1, 2], "y": band}, "two": {"y": [3, 4]}}, log=["two"])
    assert len(axes) == 2
    first, second = axes
    assert [line.get_label() for line in first.get_lines()] == ["x", "y"]
    assert to_hex(second.get_lines()[0].get_color()) == to_hex(SERIES[1][0])
    assert len(first.collections) == 1
    assert len(second.collections) == 0
    heights = first.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.5, 2.5)
    assert (first.get_yscale(), second.get_yscale()) == ("linear", "log")
    assert first.get_title(loc="left") == "one"
    assert [text.get_text() for text in first.figure.legends[0].get_texts()] == ["x", "y"]


def test_plot_depth_change_puts_a_row_per_measure_and_one_at_the_line():
    ax = plot_depth_change({"first": {"x": (2.0, 1.5, 3.0), "y": (0.5, 0.4, 0.6)}, "second": {"y": (4, 3, 5)}})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    points = [container.lines[0] for container in ax.containers]
    assert [point.get_xdata()[0] for point in points] == [2.0, 0.5, 4]
    assert [round(point.get_ydata()[0]) for point in points] == [0, 0, 1]
    assert points[1].get_color() == points[2].get_color() != points[0].get_color()
    reach = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(reach, [1.5, 3.0])
    assert ax.get_xscale() == "log"
    assert ax.get_ylim() == (1.5, -0.5)


def test_plot_separation_law_draws_points_and_line():
    fuzziness = [100.0, 30.0, 10.0]
    law = separation_law(fuzziness)
    ax = plot_separation_law({"net": (fuzziness, law)}, ["a", "b", "c"])
    points, line = ax.get_lines()
    np.testing.assert_allclose(points.get_ydata(), fuzziness)
    np.testing.assert_allclose(line.get_ydata(), law.fitted)
    assert f"× {law.factor:.2f} a step" in ax.texts[0].get_text()
    assert ax.get_yscale() == "log"


def test_plot_mean_cosines_in_the_order_asked_for():
    cosines = np.array([[1.0, 0.5, -0.2], [0.5, 1.0, -0.01], [-0.2, -0.01, 1.0]])
    ax = plot_mean_cosines(cosines, names="abc", order=[2, 0, 1])
    np.testing.assert_allclose(ax.images[0].get_array()[0], [1.0, -0.2, -0.01])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a", "b"]
    assert [text.get_text() for text in ax.texts[:2]] == ["−0.2", "0.0"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot_measures(["a", "b"], {"m": {"x": [1, 2, 3]}}),
            r"'x' of 'm' must have shape \(2,\).*got \(1, 3\)",
        ),
        (lambda: plot_spectra({str(i): [1.0] for i in range(7)}), "at most 6 curves to tell apart, got 7"),
        (lambda: plot_mean_cosines(np.ones((2, 3))), r"shape \(n_classes, n_classes\), got \(2, 3\)"),
        (lambda: plot_mean_cosines(np.eye(3), order=[0, 1, 1]), r"each of 3 classes once, got \[0, 1, 1\]"),
        (lambda: plot_mean_cosines(np.eye(3), names="ab"), "one name for each of 3 classes, got 2"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
