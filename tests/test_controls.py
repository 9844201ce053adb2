"""controls: occupancy, k-means, binary patterns and silhouettes of data one can see through."""

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from nfcodes_lib.controls import binary_patterns, code_silhouette, kmeans_units, occupancy


def test_occupancy_of_even_and_uneven_units():
    even = occupancy(np.repeat(np.arange(8), 5), n_units=16)
    assert (even.n_occupied, even.occupied, even.entropy, even.perplexity) == (8, 0.5, 3.0, pytest.approx(8))
    uneven = occupancy([0] * 9 + [1], n_units=2)
    assert uneven.counts.tolist() == [9, 1]
    assert uneven.entropy == pytest.approx(-(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)))
    assert occupancy([3, 3], n_units=4).perplexity == 1


def test_kmeans_finds_separated_groups_and_measures_the_distance():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    groups = np.repeat(np.arange(3), 50)
    x = (centres[groups] + rng.normal(0, 0.5, (150, 2))).astype(np.float32)
    control = kmeans_units(torch.from_numpy(x), n_units=3)
    units = control.predict(x)
    assert units.dtype == np.int64
    assert len({(g, u) for g, u in zip(groups, units, strict=True)}) == 3
    nearest = np.linalg.norm(x[:, None] - control.codebook[None], axis=2)
    assert (units == nearest.argmin(1)).all()
    assert control.quantization_error(x) == pytest.approx(nearest.min(1).mean(), rel=1e-5)


def test_kmeans_repeats_with_its_seed_and_keeps_the_data():
    x = np.random.default_rng(1).normal(size=(80, 4)).astype(np.float32)
    before = x.copy()
    first, second = kmeans_units(x, n_units=9, random_state=3), kmeans_units(x, n_units=9, random_state=3)
    assert (first.codebook == second.codebook).all()
    assert (x == before).all()


def test_binary_patterns_of_a_known_table():
    x = np.array([[0, 1.5, 0], [0, 0.1, 0], [2, 0, 1], [0, 0, 0]], np.float32)
    found = binary_patterns(x)
    assert (found.n_patterns, found.n_once, found.unique_share) == (3, 2, 0.75)
    assert found.active_share == pytest.approx(4 / 12)
    assert binary_patterns(x, threshold=0.5).n_patterns == 3
    assert binary_patterns(x, threshold=[5, 1, 5]).n_patterns == 2


def test_binary_patterns_flatten_maps_and_tell_the_ninth_feature_apart():
    x = np.zeros((2, 1, 3, 3), np.float32)
    x[1, 0, 2, 2] = 1
    found = binary_patterns(torch.from_numpy(x))
    assert (found.n_features, found.n_patterns) == (9, 2)


def test_silhouette_is_scikit_learns_and_high_for_apart_classes():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 3], 40)
    codes = rng.normal(size=(120, 5)) + 3 * labels[:, None]
    found = code_silhouette(codes, labels, n_permutations=49)
    assert found.silhouette == pytest.approx(silhouette_score(codes, labels))
    assert found.p_value == 1 / 50
    assert found.null.max() < 0.05
    assert np.isnan(found.per_class[2])
    assert np.nanmean(found.per_class) == pytest.approx(found.silhouette)


def test_silhouette_samples_and_knows_other_metrics():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 500)
    codes = rng.normal(size=(500, 4)).astype(np.float32)
    found = code_silhouette(codes, labels, n_samples=100, metric="cosine", n_permutations=49)
    assert found.n_samples == 100
    assert abs(found.silhouette) < 0.05
    assert found.p_value > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: occupancy([4], n_units=4), r"units must lie in \[0, 4\), got 4"),
        (lambda: occupancy([], n_units=4), "at least one sample, got none"),
        (lambda: kmeans_units(np.zeros((3, 2)), n_units=4), "at least n_units = 4 samples, got 3; pass more"),
        (lambda: kmeans_units(np.zeros(3), n_units=2), r"shape \(n_samples, n_features\), got \(3,\)"),
        (lambda: kmeans_units(np.array([[1.0], [np.nan]]), n_units=2), "finite, got 1 that are not"),
        (lambda: kmeans_units(np.eye(3), n_units=2).predict(np.eye(2)), "activations of 3 units .* got 2; capture"),
        (lambda: binary_patterns(np.zeros((2, 3), int)), "must be floats, got dtype int64"),
        (lambda: binary_patterns(np.float32(1)), r"got \(\); flatten"),
        (lambda: code_silhouette(np.eye(3), [0, 0, 0], n_permutations=9), "two classes or more.*got 1 classes"),
        (lambda: code_silhouette(np.eye(3), [0, 1], n_permutations=9), "same samples, got 3 and 2"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
