"""dimension: clouds whose dimension is known, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from nfcodes_lib.dimension import components_for_variance, participation_ratio, two_nn, variance_spectrum

SEEDS = st.integers(0, 10_000)


def random_table(seed):
    """A table of random shape and spread."""
    rng = np.random.default_rng(seed)
    n_features = rng.integers(2, 8)
    return rng.normal(size=(rng.integers(6, 60), n_features)) * rng.uniform(0.1, 5, n_features)


def gaussian(dimension, *, n=2000, n_features=12, seed=0):
    """A Gaussian of `dimension` dimensions, turned into n_features; scaled by 3 and moved away from zero."""
    rng = np.random.default_rng(seed)
    flat = np.zeros((n, n_features))
    flat[:, :dimension] = 3 * rng.normal(size=(n, dimension))
    return flat @ ortho_group.rvs(n_features, random_state=seed) + 100


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_every_measure_finds_the_dimension_of_a_gaussian(dimension):
    x = gaussian(dimension)
    assert participation_ratio(x) == pytest.approx(dimension, rel=0.02)
    assert components_for_variance(x, share=0.999) == dimension
    assert two_nn(x).dimension == pytest.approx(dimension, rel=0.06)


def test_spectrum_of_hand_set_points():
    points = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert variance_spectrum(points) == pytest.approx([6, 2 / 3])
    assert participation_ratio(points) == pytest.approx((6 + 2 / 3) ** 2 / (36 + 4 / 9))
    assert [components_for_variance(points, share=share) for share in (0.5, 0.9, 0.95)] == [1, 1, 2]


def test_few_samples_of_many_features_give_the_same_spectrum():
    x = np.random.default_rng(1).normal(size=(6, 40))
    covariance = np.cov(x.T)
    assert variance_spectrum(x)[:5] == pytest.approx(np.linalg.eigvalsh(covariance)[::-1][:5])


def test_a_rolled_sheet_is_thin_to_its_neighbours_and_thick_to_its_covariance():
    rng = np.random.default_rng(2)
    angle, along = rng.uniform(1.5 * np.pi, 4.5 * np.pi, 3000), rng.uniform(0, 21, 3000)
    roll = np.stack([angle * np.cos(angle), along, angle * np.sin(angle)], axis=1)
    assert two_nn(roll).dimension == pytest.approx(2, abs=0.15)
    assert participation_ratio(roll) > 2.7
    assert components_for_variance(roll) == 3


def test_two_nn_of_hand_set_ratios():
    # on a line, at 0, 1, 3, 7: ratios 3, 2, 3/2, 3/2 of second to first neighbour
    found = two_nn(np.array([[0.0], [1.0], [3.0], [7.0]]), discard=0)
    assert found.dimension == pytest.approx(3 / np.log(3 * 2 * 1.5 * 1.5))
    censored = two_nn(np.array([[0.0], [1.0], [3.0], [7.0]]), discard=0.25)  # of the ratio 3 only: larger than 2
    assert censored.dimension == pytest.approx(2 / np.log(2 * 2 * 1.5 * 1.5))


def test_two_nn_leaves_duplicates_out():
    x = gaussian(3, n=400)
    found = two_nn(np.concatenate([x, x[:40]]))
    assert found.n_used == 360
    assert found.dimension == pytest.approx(3, rel=0.15)


def test_two_nn_interval_covers_the_mean_estimate():
    rng = np.random.default_rng(3)
    found = [two_nn(rng.normal(size=(200, 4)), n_resamples=40) for _ in range(80)]
    truth = np.mean([one.dimension for one in found])
    assert np.mean([low <= truth <= high for low, high in (one.interval for one in found)]) > 0.85
    lengths = [high - low for low, high in (one.interval for one in found)]
    assert np.mean(lengths) < 6 * np.std([one.dimension for one in found])


def test_two_nn_interval_looks_at_the_neighbours_within_each_half():
    x = gaussian(3, n=60)
    rng = np.random.default_rng(7)
    halves = [rng.permutation(60)[:30] for _ in range(2)]
    values = np.array([two_nn(x[half]).dimension for half in halves])
    expected = two_nn(x).dimension + np.quantile(values - values.mean(), [0.025, 0.975])
    assert two_nn(x, n_resamples=2, random_state=7).interval == pytest.approx(tuple(expected))


def test_two_nn_without_resamples_claims_no_interval():
    assert np.isnan(two_nn(gaussian(2, n=50)).interval).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(0.01, 100))
def test_rotation_scale_and_shift_change_nothing(seed, scale):
    x = random_table(seed)
    moved = scale * x @ ortho_group.rvs(x.shape[1], random_state=seed) + scale
    assert participation_ratio(moved) == pytest.approx(participation_ratio(x), rel=1e-6)
    assert two_nn(moved).dimension == pytest.approx(two_nn(x).dimension, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_participation_ratio_lies_between_one_and_the_number_of_features(seed):
    x = random_table(seed)
    assert 1 - 1e-9 <= participation_ratio(x) <= x.shape[1] + 1e-9
    assert 1 <= components_for_variance(x) <= x.shape[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: participation_ratio([1.0, 2.0]), r"shape \(n_samples, n_features\), got \(2,\)"),
        (lambda: participation_ratio([[1, 2], [3, 4]]), "must be floats, got dtype int"),
        (lambda: participation_ratio([[1.0, np.nan], [3.0, 4.0]]), "finite, got 1 that are not"),
        (lambda: participation_ratio([[1.0, 2.0]]), "at least 2 samples, got 1"),
        (lambda: variance_spectrum(np.ones((5, 3))), "codes that differ, got 5 equal ones; is the layer dead"),
        (lambda: components_for_variance(np.eye(3), share=90), "share must lie between 0 and 1, got 90"),
        (lambda: two_nn(np.eye(3)[:2]), "at least 3 samples, got 2"),
        (lambda: two_nn(np.eye(3)), "equally far, as on a lattice"),
        (lambda: two_nn(np.repeat(np.eye(3), 2, axis=0)), "three different codes or more, got 0 of 6"),
        (lambda: two_nn(np.eye(3), discard=1), "discard must be at least 0 and below 1, got 1"),
        (lambda: two_nn(np.eye(3), confidence=95), "confidence must lie between 0 and 1, got 95"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
