"""statistics: known intervals, and p-values under hypotheses that are true."""

import numpy as np
import pytest

from nfcodes_lib.statistics import depth_trend, permutation_p_value, recentred_interval, wilson_interval, z_score


def test_permutation_p_value_counts_ties_and_is_never_zero():
    assert permutation_p_value(1.0, np.array([1.0, 0.0, 0.5])) == 0.5
    assert permutation_p_value(2.0, np.array([1.0, 0.0, 0.5])) == 0.25
    assert permutation_p_value(0.0, np.array([1.0, 0.0, 0.5]), smaller=True) == 0.5


def test_wilson_interval_of_known_shares():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927 as tabulated since
    assert wilson_interval(0, 20)[0] == 0


def test_recentred_interval_ignores_a_shift_and_keeps_the_ceiling():
    replicates = np.random.default_rng(0).normal(size=500)
    assert recentred_interval(0.2, replicates) == pytest.approx(recentred_interval(0.2, replicates + 3))
    assert recentred_interval(0.9, replicates, ceiling=1.0)[1] == 1.0


def test_depth_trend_of_straight_lines():
    trend = depth_trend([[0, 1, 2, 3], [1, 3, 5, 7], [0, 3, 6, 9]])
    assert trend.slopes.tolist() == [1, 2, 3]
    assert trend.slope == 2
    assert trend.interval == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert trend.kendall_tau == pytest.approx([1, 1, 1])
    assert trend.page_p_value < 0.001


def test_depth_trend_without_a_trend_covers_zero():
    rng = np.random.default_rng(7)
    trends = [depth_trend(rng.normal(size=(3, 4))) for _ in range(400)]
    assert 0.92 < np.mean([t.interval[0] <= 0 <= t.interval[1] for t in trends]) < 0.98
    assert np.mean([t.page_p_value <= 0.05 for t in trends]) < 0.08


def test_one_seed_has_a_slope_and_no_interval():
    trend = depth_trend([[0.1, 0.4, 0.2]])
    assert trend.slope == pytest.approx(0.05)
    assert np.isnan([*trend.interval, trend.page_p_value]).all()


def test_z_score_of_a_known_null():
    assert z_score(5.0, np.array([1.0, 3.0])) == 3.0
    assert np.isnan(z_score(5.0, np.array([1.0, 1.0])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: depth_trend([0.1, 0.2]), r"shape \(n_seeds, n_layers\).*got \(2,\); put each seed in a row"),
        (lambda: depth_trend([[0.1, np.nan]]), "finite, got 1 that are not"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
