"""information: agreement with scikit-learn, a null that is null, an interval that covers."""

import time

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information as sklearn_expected

from nfcodes_lib.codes import code_table
from nfcodes_lib.information import association, expected_mutual_information


@pytest.fixture
def noisy():
    """2,000 samples, 60 units, 5 outputs: three samples in five carry a unit of their output, the rest any unit."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(0, 5, 2000)
    units = np.where(rng.random(2000) < 0.6, outputs * 12 + rng.integers(0, 12, 2000), rng.integers(0, 60, 2000))
    return units, outputs


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: association([0, 1], [0, 1], n_permutations=0), "n_permutations must be .* at least 1, got 0"),
        (lambda: association([0, 1], [0, 1], confidence=95), "confidence must lie between 0 and 1, got 95"),
        (lambda: association([0, 1], [0, 1], strata=[0]), "strata must describe the same samples"),
        (lambda: association([0], [1]), "at least two samples"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
