"""codes: tables one can count by hand, held-out accuracy, and a null that is null."""

import numpy as np
import pytest
import torch

from nfcodes_lib.codes import code_accuracy, code_table, hit_map, hit_maps
from nfcodes_lib.information import association


@pytest.fixture
def noisy():
    """2,000 samples, 60 units, 5 outputs: three samples in five carry a unit of their output, the rest any unit."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(0, 5, 2000)
    units = np.where(rng.random(2000) < 0.6, outputs * 12 + rng.integers(0, 12, 2000), rng.integers(0, 60, 2000))
    return units, outputs


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
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
