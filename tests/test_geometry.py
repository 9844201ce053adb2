"""geometry: directions set by hand, known clouds, intervals that cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.metrics import pairwise_distances

from nfcodes_lib.geometry import cosine_distances, layer_geometry
from nfcodes_lib.separation import class_geometry


def mixture(rng, *, n=240, n_classes=4):
    """Non-negative codes of unequal classes, as after a ReLU, and their labels."""
    labels = rng.permutation(np.arange(n) % n_classes)
    centres = np.random.default_rng(99).normal(size=(n_classes, 6))
    return np.maximum(centres[labels] + 1 + 0.5 * rng.normal(size=(n, 6)), 0), labels


def test_cosine_distances_are_those_of_scikit_learn():
    x = np.random.default_rng(0).normal(size=(60, 5)) + 1
    above = np.triu_indices(60, 1)
    found = cosine_distances(x)
    about_mean = pairwise_distances(x - x.mean(0), metric="cosine")[above]
    assert found.raw == pytest.approx(pairwise_distances(x, metric="cosine")[above].mean())
    assert found.centred == pytest.approx(about_mean.mean())
    assert found.spread == pytest.approx(np.sqrt(((1 - about_mean) ** 2).mean()))


def test_a_shared_mean_draws_raw_cosines_together_and_not_the_centred_ones():
    x = np.random.default_rng(1).normal(size=(2000, 8))
    near, far = cosine_distances(x), cosine_distances(x + 20)
    assert near.raw == pytest.approx(1, abs=0.01)
    assert far.raw < 0.01
    assert far.centred == pytest.approx(near.centred)
    assert far.directions == pytest.approx(near.directions)


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_centred_distance_is_one_in_any_dimension_and_directions_count_it(dimension):
    x = np.zeros((4000, 10))
    x[:, :dimension] = np.random.default_rng(2).normal(size=(4000, dimension))
    found = cosine_distances(x)
    assert found.centred == pytest.approx(1, abs=0.002)
    assert found.directions == pytest.approx(dimension, rel=0.03)
    assert found.spread == pytest.approx(1 / np.sqrt(dimension), rel=0.03)


def test_many_features_and_few_vectors_give_the_same_numbers():
    x = np.random.default_rng(3).normal(size=(5, 30))
    wide, tall = cosine_distances(x), cosine_distances(np.linalg.qr(x.T)[1].T)  # same lengths and angles in 5 features
    assert wide.directions == pytest.approx(tall.directions)
    assert wide.raw == pytest.approx(tall.raw)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_rotation_and_scale_change_nothing(seed, scale):
    x, labels = mixture(np.random.default_rng(seed))
    before = layer_geometry(x, labels)
    after = layer_geometry(scale * x @ ortho_group.rvs(6, random_state=seed), labels)
    assert after.participation_ratio == pytest.approx(before.participation_ratio)
    assert after.two_nn.dimension == pytest.approx(before.two_nn.dimension, rel=1e-4)
    assert after.cosines.raw == pytest.approx(before.cosines.raw)
    assert after.classes.fuzziness == pytest.approx(before.classes.fuzziness)


def test_layer_geometry_puts_its_parts_together():
    x, labels = mixture(np.random.default_rng(4))
    found = layer_geometry(x.astype(np.float32), labels)
    assert found.classes.fuzziness == pytest.approx(class_geometry(x, labels).fuzziness, rel=1e-4)
    assert found.cosines.raw == pytest.approx(cosine_distances(x).raw, rel=1e-4)
    assert (found.n_samples, found.n_features, found.intervals) == (240, 6, {})


def test_intervals_cover_the_mean_of_samples_of_this_size():
    rng = np.random.default_rng(5)
    samples = [layer_geometry(*mixture(rng)) for _ in range(120)]
    values = {
        "participation_ratio": [one.participation_ratio for one in samples],
        "cosine_distance": [one.cosines.raw for one in samples],
        "directions": [one.cosines.directions for one in samples],
        "fuzziness": [one.classes.fuzziness for one in samples],
        "variance_ratio": [one.classes.variance_ratio for one in samples],
    }
    judged = [layer_geometry(*mixture(rng), n_resamples=40).intervals for _ in range(60)]
    assert set(judged[0]) == set(values)
    for measure, truth in values.items():
        low, high = np.array([intervals[measure] for intervals in judged]).T
        covered = np.mean((low <= np.mean(truth)) & (np.mean(truth) <= high))
        assert covered >= 0.83, measure
        assert np.mean(high - low) < 6 * np.std(truth), measure


def test_intervals_repeat_with_their_seed():
    x, labels = mixture(np.random.default_rng(6))
    first, second, other = (layer_geometry(x, labels, n_resamples=5, random_state=s).intervals for s in (0, 0, 1))
    assert first == second != other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine_distances(np.eye(3)[0]), r"shape \(n_samples, n_features\), got \(3,\)"),
        (lambda: cosine_distances(np.ones((4, 2))), "codes that differ, got 4 equal ones"),
        (lambda: cosine_distances(np.array([[0.0, 0.0], [1.0, 2.0]])), "with a direction, got 1 of length zero"),
        (lambda: layer_geometry(np.eye(3), [0, 1]), "same samples, got 3 and 2"),
        (lambda: layer_geometry(np.eye(4), [0.0, 0.0, 1.0, 1.0]), "labels must be integers, got dtype float64"),
        (lambda: layer_geometry(np.eye(4), [0, 0, 1, 1], n_resamples=-1), "n_resamples must be .* at least 0, got -1"),
        (lambda: layer_geometry(np.eye(4), [0, 0, 1, 1], confidence=2), "confidence must lie between 0 and 1, got 2"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
