"""codes, information and statistics: known tables, agreement with scikit-learn, nulls that are null."""

import time

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information as sklearn_expected

from nfcodes_lib.codes import association, code_accuracy, code_table, hit_map, hit_maps
from nfcodes_lib.information import expected_mutual_information
from nfcodes_lib.statistics import depth_trend, permutation_p_value, recentred_interval, wilson_interval


@pytest.fixture
def noisy():
    """2,000 samples, 60 units, 5 outputs: three samples in five carry a unit of their output, the rest any unit."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(0, 5, 2000)
    units = np.where(rng.random(2000) < 0.6, outputs * 12 + rng.integers(0, 12, 2000), rng.integers(0, 60, 2000))
    return units, outputs


# hit maps


def test_hit_map_is_laid_out_row_by_row():
    assert hit_map([0, 4, 4, 2], 2, 3).tolist() == [[1, 0, 1], [0, 2, 0]]


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor, lambda x: np.array(x, np.uint8)])
def test_arrays_lists_and_tensors_are_equal(convert):
    units, outputs = [0, 4, 4, 2], [1, 0, 1, 1]
    assert hit_maps(convert(units), convert(outputs), 2, 3).tolist() == hit_maps(units, outputs, 2, 3).tolist()
    assert code_table(convert(units), convert(outputs), n_units=6).counts[4].tolist() == [1, 1]


def test_hit_maps_add_up_to_the_hit_map(noisy):
    units, outputs = noisy
    maps = hit_maps(units, outputs, 6, 10, n_outputs=7)
    assert maps.shape == (7, 6, 10)
    assert (maps.sum(0) == hit_map(units, 6, 10)).all()
    assert maps[5:].sum() == 0


# code table


def test_code_table_of_a_known_table():
    table = code_table([0, 0, 0, 0, 2, 2], [0, 0, 0, 1, 1, 1], n_units=4, n_outputs=2)
    assert table.counts.tolist() == [[3, 1], [0, 0], [0, 2], [0, 0]]
    assert table.n_samples.tolist() == [4, 0, 2, 0]
    np.testing.assert_allclose(table.probabilities, [[0.75, 0.25], [np.nan] * 2, [0, 1], [np.nan] * 2])
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    np.testing.assert_allclose(table.entropy, [entropy, np.nan, 0, np.nan])
    np.testing.assert_allclose(table.purity, [0.75, np.nan, 1, np.nan])
    assert table.majority.tolist() == [0, -1, 1, -1]
    assert table.overall_entropy == pytest.approx(entropy * 4 / 6)
    assert table.overall_purity == pytest.approx(5 / 6)
    assert table.overall_majority == 0  # three against three: the lower index


def test_empty_units_answer_with_the_overall_majority():
    table = code_table([0, 1, 1], [2, 1, 1], n_units=5)
    assert table.predict([0, 1, 4, 3]).tolist() == [2, 1, 1, 1]


def test_conditional_entropy_and_information_add_up(noisy):
    units, outputs = noisy
    table, found = code_table(units, outputs, n_units=60), association(units, outputs, n_permutations=9, n_resamples=9)
    assert found.output_entropy - table.overall_entropy == pytest.approx(found.mutual_information)


def test_accuracy_on_held_out_samples_is_that_of_predict(noisy):
    units, outputs = noisy
    table = code_table(units[:1000], outputs[:1000], n_units=60)
    judged = code_accuracy(table, units[1000:], outputs[1000:], n_permutations=199)
    assert judged.accuracy == pytest.approx((table.predict(units[1000:]) == outputs[1000:]).mean())
    assert 0.5 < judged.interval[0] < judged.accuracy < judged.interval[1] < 0.8
    assert judged.p_value == 1 / 200
    assert abs(judged.null.mean() - 0.2) < 0.02  # five outputs alike
    assert judged.baseline == (outputs[1000:] == table.overall_majority).mean()


def test_pure_units_mean_nothing_without_held_out_samples():
    rng = np.random.default_rng(1)
    units, outputs = rng.integers(0, 400, 800), rng.integers(0, 10, 800)
    table = code_table(units[:400], outputs[:400], n_units=400, n_outputs=10)
    judged = code_accuracy(table, units[400:], outputs[400:], n_permutations=199)
    assert table.overall_purity > 0.6
    assert judged.accuracy < 0.16
    assert judged.p_value > 0.05
    assert judged.unseen == pytest.approx((table.n_samples[units[400:]] == 0).mean())
    assert judged.unseen > 0.3


# association


@pytest.mark.parametrize("seed", range(12))
def test_adjusted_mutual_information_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 300))
    units, outputs = rng.integers(0, rng.integers(2, 50), n), rng.integers(0, rng.integers(2, 12), n)
    outputs = np.where(rng.random(n) < rng.random(), units % 7, outputs)
    found = association(units, outputs, n_permutations=1, n_resamples=2)
    if len(set(units)) > 1 and len(set(outputs)) > 1:
        expected = adjusted_mutual_info_score(outputs, units)
        assert found.adjusted_mutual_information == pytest.approx(expected, abs=1e-10)


def test_expected_mutual_information_is_scikit_learns(noisy):
    units, outputs = noisy
    table = code_table(units, outputs, n_units=60).counts
    ours = expected_mutual_information(table.sum(1), table.sum(0))
    assert ours == pytest.approx(sklearn_expected(table, len(units)), rel=1e-9)


def test_null_is_centred_on_zero_and_permuted_values_are_exact(noisy):
    units, outputs = noisy
    found = association(units, outputs, n_permutations=400, n_resamples=99)
    assert abs(found.null.mean()) < 4 * found.null.std() / np.sqrt(400)
    first = np.random.default_rng(0).permutation(np.unique(outputs, return_inverse=True)[1])
    assert found.null[0] == pytest.approx(adjusted_mutual_info_score(first, units), abs=1e-10)
    assert found.p_value == 1 / 401
    assert found.z_score > 50


def test_p_values_are_uniform_without_association():
    rng = np.random.default_rng(3)
    p_values = [
        association(rng.integers(0, 20, 200), rng.integers(0, 5, 200), n_permutations=99, n_resamples=2).p_value
        for _ in range(200)
    ]
    assert 0.38 < np.mean(np.array(p_values) <= 0.5) < 0.62
    assert np.mean(np.array(p_values) <= 0.05) < 0.1


def test_interval_covers_the_mean_of_samples_of_this_size():
    rng = np.random.default_rng(4)

    def sample():
        outputs = rng.integers(0, 5, 400)
        return np.where(rng.random(400) < 0.5, outputs * 6, 0) + rng.integers(0, 6, 400), outputs

    truth = np.mean([adjusted_mutual_info_score(*sample()) for _ in range(200)])
    found = [association(*sample(), n_permutations=1, n_resamples=99) for _ in range(150)]
    covered = np.mean([low <= truth <= high for low, high in (each.interval for each in found)])
    assert 0.9 <= covered <= 1
    assert np.mean([high - low for low, high in (each.interval for each in found)]) < 0.15


def test_a_unit_that_determines_the_output_has_uncertainty_coefficient_one():
    outputs = np.repeat(np.arange(10), 100)
    units = outputs * 40 + np.tile(np.arange(20), 50)
    found = association(units, outputs, n_permutations=19, n_resamples=19)
    assert found.uncertainty_coefficient == pytest.approx(1)
    assert found.uncertainty_interval[1] == pytest.approx(1)
    assert found.adjusted_mutual_information < 0.65  # 200 units cannot share more with ten outputs


def test_strata_tell_prediction_from_label():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 1500)
    predictions = np.where(rng.random(1500) < 0.7, labels, rng.integers(0, 4, 1500))
    by_label, by_prediction = (3 * values + rng.integers(0, 3, 1500) for values in (labels, predictions))
    settings = {"n_permutations": 99, "n_resamples": 9, "strata": labels}
    assert association(by_label, predictions, n_permutations=99, n_resamples=9).p_value == 0.01
    assert association(by_label, predictions, **settings).p_value > 0.05
    assert association(by_prediction, predictions, **settings).p_value == 0.01


def test_a_constant_has_no_association():
    found = association([0, 1, 2, 3], [7, 7, 7, 7], n_permutations=9, n_resamples=9)
    assert (found.adjusted_mutual_information, found.p_value, found.interval) == (0, 1, (0, 0))
    assert np.isnan(found.z_score)


def test_association_repeats_with_its_seed(noisy):
    first, second, other = (association(*noisy, n_permutations=9, n_resamples=9, random_state=s) for s in (0, 0, 1))
    assert first.interval == second.interval != other.interval
    assert (first.null == second.null).all()


def test_association_of_ten_thousand_samples_takes_seconds():
    rng = np.random.default_rng(6)
    units, outputs = rng.integers(0, 400, 10_000), rng.integers(0, 10, 10_000)
    start = time.process_time()
    association(units, outputs)
    assert time.process_time() - start < 10  # 0.6 s when written; 1,000 calls of scikit-learn take minutes


# statistics


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


# errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hit_map([0, 6], 2, 3), r"units must lie in \[0, 6\), got 6; n_rows \* n_columns must be at least 7"),
        (lambda: hit_map([[0, 1]], 2, 3), r"shape \(n_samples,\), got \(1, 2\); som.predict"),
        (lambda: hit_map([0, -1], 2, 3), "indices from 0, got -1"),
        (lambda: hit_map([0], 0, 3), "n_rows must be a whole number of at least 1, got 0"),
        (lambda: code_table([0.0, 1.0], [0, 1], n_units=2), r"units must be integers, got dtype float64; .*astype"),
        (lambda: code_table([0, 1], [0, 1, 1], n_units=2), "same samples, got 2 and 3"),
        (lambda: code_table([], [], n_units=2), "at least one sample, got none"),
        (lambda: code_table([0, 1], [0, 5], n_units=2, n_outputs=3), r"outputs must lie in \[0, 3\), got 5; n_outputs"),
        (lambda: code_table([0, 1], [0, 1], n_units=2).predict([2]), "units must lie in .* got 2; the table's n_units"),
        (lambda: association([0, 1], [0, 1], n_permutations=0), "n_permutations must be .* at least 1, got 0"),
        (lambda: association([0, 1], [0, 1], confidence=95), "confidence must lie between 0 and 1, got 95"),
        (lambda: association([0, 1], [0, 1], strata=[0]), "strata must describe the same samples"),
        (lambda: association([0], [1]), "at least two samples"),
        (lambda: depth_trend([0.1, 0.2]), r"shape \(n_seeds, n_layers\).*got \(2,\); put each seed in a row"),
        (lambda: depth_trend([[0.1, np.nan]]), "finite, got 1 that are not"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
