"""Scores of a diagnosis: against tables and codes small enough to work out by hand."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError

from nfcodes_lib.diagnose import Diagnosis
from nfcodes_lib.diagnosis_scores import (
    SCORES,
    ClassGaussians,
    jensen_shannon,
    join_scores,
    log_odds_against,
    smoothed_conditional,
)
from nfcodes_lib.layer_codes import LayerCodes
from nfcodes_lib.som import SOM

CORNERS = np.array([[0.0, 0.0], [10.0, 0.0]])


def two_layers(n=40, noise=0.1, seed=0):
    """Codes of two classes, at the two corners in both layers, and the classes."""
    rng = np.random.default_rng(seed)
    outputs = np.arange(n) % 2
    return {layer: CORNERS[outputs] + noise * rng.normal(size=(n, 2)) + [0, 5] for layer in ("a", "b")}, outputs


@pytest.fixture(scope="module")
def fitted():
    codes, outputs = two_layers()
    return Diagnosis(KMeans(2, n_init=3, random_state=0), n_neighbors=5).fit(codes, outputs)


@pytest.fixture(scope="module")
def three(fitted):
    """A usual image, one whose layers disagree, and one that lies far from everything; all are answered 0."""
    a = np.array([[0.0, 5.0], [0.0, 5.0], [0.0, 9.0]])
    b = np.array([[0.0, 5.0], [10.0, 5.0], [0.0, 9.0]])
    return fitted.score_samples({"a": a, "b": b}, np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0]]))


def test_code_confidence_is_the_smoothed_share_of_the_answer(three):
    # 20 images of answer 0 on the unit, prior of half an image (20.5 of 41): (20 + 0.5) / 21, and 0.5 / 21 elsewhere
    np.testing.assert_allclose(three.code_confidence[0], 20.5 / 21)
    np.testing.assert_allclose(three.code_confidence[1], [20.5 / 21, 0.5 / 21, 20.5 / 21])


def test_quantization_error_is_relative_to_the_units_own():
    """One unit is tight, one is wide: the same distance is far for the first and near for the second."""
    rng = np.random.default_rng(0)
    outputs = np.arange(200) % 2
    angle = rng.uniform(0, 2 * np.pi, 200)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(outputs == 0, 0.1, 2.0)[:, None]
    codes = {"a": CORNERS[outputs] * 5 + ring}
    found = Diagnosis(KMeans(2, n_init=3, random_state=0), smoothing=1e-9, n_neighbors=5).fit(codes, outputs)
    scores = found.score_samples({"a": np.array([[0.0, 1.0], [50.0, 1.0]])}, answers=[0, 1])
    np.testing.assert_allclose(scores.quantization_error[0], [10, 0.5], rtol=0.2)


def test_disagreement_is_low_where_layers_agree_and_near_one_bit_where_two_do_not(three):
    assert three.disagreement[0] == pytest.approx(0, abs=1e-12)
    assert 0.7 < three.disagreement[1] < 1


def test_path_surprise_multiplies_the_steps_and_ends_in_the_answer(three):
    usual, unusual = 20.5 / 21, 0.5 / 21
    expected = [-np.log2(usual), -(np.log2(unusual) + np.log2(unusual)) / 2, -np.log2(usual)]
    np.testing.assert_allclose(three.path_surprise, expected)  # 0 -> 0 -> 0, then 0 -> 1 -> answer 0


def test_path_over_units_knows_more_than_the_path_over_their_classes():
    """Two units of one class in each layer, always visited in the same pairs: a crossing is unusual to units alone."""
    group = np.arange(80) % 2
    places = np.array([[0.0, 1.0], [10.0, 1.0]])[group] + 0.01 * np.random.default_rng(0).normal(size=(80, 2))
    codes, outputs = {"a": places, "b": places}, np.zeros(80, dtype=int)
    crossing = {"a": np.array([[0.0, 1.0], [0.0, 1.0]]), "b": np.array([[0.0, 1.0], [10.0, 1.0]])}
    surprise = {}
    for path in ("regions", "units"):
        diagnosis = Diagnosis(KMeans(2, n_init=1, random_state=0), path=path, n_neighbors=3)
        diagnosis.fit(codes, outputs, n_outputs=2)
        surprise[path] = diagnosis.score_samples(crossing, answers=[0, 0]).path_surprise
    assert surprise["regions"][0] == surprise["regions"][1]
    assert surprise["units"][1] > surprise["units"][0] + 2


def test_mahalanobis_is_the_distance_in_standard_deviations():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    x = rng.normal(size=(20_000, 2)) * [1, 3] + labels[:, None] * [20, 0]
    distance = ClassGaussians(x, labels).distance(np.array([[2.0, 0.0], [0.0, 6.0], [22.0, 0.0], [20.0, 0.0]]))
    np.testing.assert_allclose(distance, [4, 4, 4, 0], atol=0.2)


def test_mahalanobis_lives_with_a_dead_feature():
    x = np.random.default_rng(0).normal(size=(50, 2)) * [1, 0]
    assert np.isfinite(ClassGaussians(x, np.arange(50) % 2).distance(x)).all()


def test_neighbors_of_another_class_are_counted(three):
    np.testing.assert_array_equal(three.neighbor_disagreement[:, :2], [[0, 0], [0, 1]])


def test_labels_serve_the_baselines_and_outputs_the_tables():
    codes, outputs = two_layers()
    diagnosis = Diagnosis(KMeans(2, n_init=3, random_state=0), n_neighbors=5).fit(codes, outputs, labels=1 - outputs)
    scores = diagnosis.score_samples({layer: x[:1] for layer, x in codes.items()}, answers=outputs[:1])
    assert scores.code_confidence.min() > 0.9
    assert scores.neighbor_disagreement.min() == 1


def test_softmax_keeps_its_digits_where_it_rounds_to_one():
    found = log_odds_against([[60.0, 0.0, 0.0], [0.0, 0.0, 0.0], [61.0, 0.0, 0.0]], [0, 1, 0])
    np.testing.assert_allclose(found, [np.log(2) - 60, np.log(2), np.log(2) - 61])
    assert found[2] < found[0]


def test_max_softmax_is_the_softmax_of_the_answer(three):
    np.testing.assert_allclose(three.max_softmax, 1 / (1 + np.exp(-3)))


def test_smoothing_fades_with_the_samples_and_leaves_nothing_impossible():
    table = smoothed_conditional([[1000, 0, 0], [1, 0, 0], [0, 0, 0], [0, 5, 0]], 1.0)
    np.testing.assert_allclose(table.sum(1), 1)
    assert (table > 0).all()
    assert table[0, 0] > table[1, 0] > table[2, 0]
    np.testing.assert_allclose(table[2], (np.array([1001, 5, 0]) + 1 / 3) / 1007)


def test_jensen_shannon_of_equal_rows_is_zero_and_at_most_log_of_their_number():
    rows = np.full((3, 1, 3), 1e-9)
    rows[np.arange(3), 0, np.arange(3)] = 1
    assert jensen_shannon(rows)[0] == pytest.approx(np.log2(3), abs=1e-6)
    assert jensen_shannon(np.full((3, 2, 4), 0.25)).tolist() == [0, 0]


def test_layer_codes_bring_their_own_answers_and_logits():
    codes, outputs = two_layers()
    logits = np.eye(2, dtype=np.float32)[outputs] * 4
    captured = LayerCodes({k: v.astype(np.float32) for k, v in codes.items()}, logits, {}, "mean")
    diagnosis = Diagnosis(SOM(2, 3, backend="torch", n_epochs=3, random_state=0), n_neighbors=5).fit(captured)
    scores = diagnosis.score_samples(captured)
    np.testing.assert_array_equal(scores.answers, outputs)
    assert scores.features().shape == (40, 1 + 2 + 2 + 1 + 1 + 2 + 2)
    assert scores.units.max() < 6


def test_equal_seeds_give_equal_scores_and_clone_forgets():
    codes, outputs = two_layers(80)
    diagnosis = Diagnosis(SOM(3, 3, backend="torch", n_epochs=3, random_state=1), n_neighbors=5)
    first = diagnosis.fit(codes, outputs).score_samples(codes, answers=outputs)
    fresh = clone(diagnosis)
    with pytest.raises(NotFittedError):
        fresh.score_samples(codes, answers=outputs)
    second = fresh.fit(codes, outputs).score_samples(codes, answers=outputs)
    names = [name for name in SCORES if name != "max-softmax"]
    np.testing.assert_array_equal(first.features(names), second.features(names))


def test_take_selects_images_in_every_score(three):
    some = three.take([2, 0])
    assert len(some) == 2
    np.testing.assert_array_equal(some.features(), three.features()[[2, 0]])


def test_join_puts_sets_of_images_in_a_row(fitted, three):
    both = join_scores([three.take([0]), three.take([1, 2])])
    np.testing.assert_array_equal(both.features(), three.features())
    without = fitted.score_samples({layer: np.zeros((1, 2)) for layer in "ab"}, answers=[0])
    with pytest.raises(ValueError, match="same layers, all or none with a softmax, got"):
        join_scores([three, without])
    with pytest.raises(ValueError, match="same layers"):
        join_scores([])


def test_suspicion_rises_with_trouble(three):
    confidence, error = three.suspicion("code confidence"), three.suspicion("quantization error")
    assert confidence[1] > confidence[0]
    assert error[2] > error[0]
    assert three.suspicion("code confidence", layer="a")[1] == three.suspicion("code confidence", layer="a")[0]
    assert list(three.suspicions()) == list(SCORES)


CODES, OUTPUTS = two_layers(10)


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"smoothing": 0}, (CODES, OUTPUTS), "smoothing must be above 0.*got 0"),
        ({"path": "region"}, (CODES, OUTPUTS), "path must be one of .*got 'region'; did you mean 'regions'"),
        ({"n_neighbors": 11}, (CODES, OUTPUTS), "n_neighbors must be at most the 10 samples, got 11"),
        ({}, (CODES, OUTPUTS[:9]), "must describe the same samples, got 10, 9 and 9"),
        ({}, ([CODES["a"]], OUTPUTS), "codes must map layers to arrays, got list"),
        ({}, ({}, OUTPUTS), "codes must map layers to arrays"),
        ({}, (CODES | {"b": CODES["b"][:9]}, OUTPUTS), "one row per image in every layer, got {'a': 10, 'b': 9}"),
        ({}, (CODES,), "expected outputs, got None and codes without logits"),
        ({}, (CODES | {"a": CODES["a"] * np.nan}, OUTPUTS), "activations must be finite, got 20"),
    ],
)
def test_fit_says_what_it_expected(settings, arguments, message):
    with pytest.raises(ValueError, match=message):
        Diagnosis(KMeans(2, n_init=1), **({"n_neighbors": 3} | settings)).fit(*arguments)


def test_fit_says_that_there_are_more_outputs():
    with pytest.raises(ValueError, match="n_outputs must be a whole number of at least 2, got 1"):
        Diagnosis(KMeans(2, n_init=1), n_neighbors=3).fit(CODES, OUTPUTS, n_outputs=1)


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        ({"a": CODES["a"]}, {"answers": OUTPUTS}, r"codes must hold the layers of the fit.*got none for \['b'\]"),
        (CODES, {}, "expected answers to judge, got neither answers nor logits"),
        (CODES, {"answers": OUTPUTS + 1}, r"answers must lie in \[0, 2\), got 2"),
        (CODES, {"answers": OUTPUTS[:3]}, "must describe the same samples, got 10 and 3"),
        (CODES, {"logits": np.zeros((10, 3))}, "logits must have 2 columns.*got 3"),
        (CODES | {"b": CODES["b"][:, :1]}, {"answers": OUTPUTS}, "codes of 'b' must have 2 features.*got 1"),
    ],
)
def test_score_samples_says_what_it_expected(fitted, codes, options, message):
    with pytest.raises(ValueError, match=message):
        fitted.score_samples(codes, **options)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda scores: scores.suspicion("softmax"),
            "one of .*got 'softmax'; did you mean 'max-softmax'",
        ),
        (lambda scores: scores.suspicion("path", layer="a"), "layer must be None for 'path'"),
        (lambda scores: scores.suspicion("deep kNN", layer="c"), r"layer must be one of \['a', 'b'\], got 'c'"),
        (lambda scores: scores.features([]), "one or more different scores, got"),
        (lambda scores: scores.features(["path", "path"]), "one or more different scores"),
    ],
)
def test_scores_say_what_they_expected(three, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(three)


def test_without_logits_there_is_no_softmax(fitted):
    scores = fitted.score_samples(CODES, answers=OUTPUTS)
    with pytest.raises(ValueError, match="expected logits for 'max-softmax', got none"):
        scores.suspicion("max-softmax")


def test_a_quantizer_without_centres_is_refused():
    from sklearn.mixture import GaussianMixture

    with pytest.raises(ValueError, match="quantizer must learn codebook_ or cluster_centers_, got GaussianMixture"):
        Diagnosis(GaussianMixture(2), n_neighbors=3).fit(CODES, OUTPUTS)
