"""Detectors and how they are judged: known answers, ties, coverage of intervals, promises on new images."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from nfcodes_lib.detection import auroc, compare_detectors
from nfcodes_lib.detector import Detector, conformal_credibility, rates_at, threshold_for
from nfcodes_lib.diagnosis_scores import Scores
from nfcodes_lib.risk import reliability, risk_coverage


def made_up(n=2000, seed=0):
    """Scores of n images of which some are wrong: softmax and path each know a part of it, the rest is noise."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.3
    layers = rng.random((2, n))
    scores = Scores(
        layers=("a", "b"),
        answers=np.zeros(n, dtype=np.int64),
        units=np.zeros((2, n), dtype=np.int64),
        code_confidence=0.1 + 0.8 * layers,
        quantization_error=0.5 + rng.random((2, n)),
        disagreement=rng.random(n),
        path_surprise=wrong + rng.normal(size=n),
        mahalanobis=1 + rng.random((2, n)),
        neighbor_disagreement=rng.random((2, n)),
        softmax_log_odds=wrong + rng.normal(size=n),
    )
    return scores, wrong


def test_auroc_of_perfect_reversed_and_tied_scores():
    positive = np.array([False, False, True, True])
    assert auroc([0, 1, 2, 3], positive) == 1
    assert auroc([3, 2, 1, 0], positive) == 0
    assert auroc([7, 7, 7, 7], positive) == 0.5
    assert auroc([-np.inf, 0, 0, np.inf], positive) == 0.875


def test_auroc_equals_scikit_learns_with_many_ties():
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.2
    values = rng.integers(0, 6, 500) + positive
    assert auroc(values, positive) == pytest.approx(roc_auc_score(positive, values), abs=1e-12)


def test_auroc_of_random_scores_is_half_within_its_interval_nineteen_times_in_twenty():
    positive = np.arange(120) < 40
    held = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=120)
        low, high = compare_detectors({"coin": values}, positive, n_bootstrap=200, random_state=seed).interval[0]
        held += low <= 0.5 <= high
    assert 88 <= held <= 99


def test_paired_differences_see_a_small_gain_that_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    positive = np.arange(600) < 300
    common = rng.normal(size=600)
    found = compare_detectors({"a": common + positive, "b": common + 1.1 * positive}, positive)
    assert found.interval[0, 1] > found.interval[1, 0], "the intervals overlap"
    assert found.verdict("b") == "better"
    assert found.verdict("a") == "open"
    turned = compare_detectors({"a": common + positive, "b": common + 1.1 * positive}, positive, reference="b")
    assert turned.verdict("a") == "worse"
    np.testing.assert_allclose(turned.difference, -found.difference[::-1])


def test_groups_widen_the_interval_of_repeated_images():
    """Each image ten times: as if there were ten times as many, unless the copies are drawn together."""
    rng = np.random.default_rng(0)
    positive = np.arange(60) % 2 == 0
    values = rng.normal(size=60) + positive
    many = {"s": np.repeat(values, 10)}
    apart = compare_detectors(many, np.repeat(positive, 10)).interval[0]
    together = compare_detectors(many, np.repeat(positive, 10), groups=np.repeat(np.arange(60), 10)).interval[0]
    assert np.diff(together)[0] > 2 * np.diff(apart)[0]


def test_equal_seeds_give_equal_intervals():
    scores, wrong = made_up(200)
    first, second = (compare_detectors(scores.suspicions(), wrong, n_bootstrap=50, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(first.interval, second.interval)


def test_risk_of_a_perfect_a_reversed_and_a_blind_score():
    wrong = np.array([True, False, False, False])
    perfect = risk_coverage([4, 1, 2, 3], wrong)
    np.testing.assert_allclose(perfect.risk, [0, 0, 0, 0.25])
    assert perfect.area == perfect.best_area == 0.0625
    np.testing.assert_allclose(risk_coverage([0, 1, 2, 3], wrong).risk, [1, 1 / 2, 1 / 3, 1 / 4])
    blind = risk_coverage([1, 1, 1, 1], wrong)
    np.testing.assert_allclose(blind.risk, 0.25)
    assert blind.area == blind.chance_area == 0.25


def test_risk_at_a_coverage():
    found = risk_coverage(np.arange(10), np.arange(10) >= 8)
    assert found.risk_at(0.8) == 0
    assert found.risk_at(0.81) == pytest.approx(1 / 9)
    assert found.risk_at(1) == 0.2
    with pytest.raises(ValueError, match=r"coverage must lie in \(0, 1\], got 0"):
        found.risk_at(0)


def test_reliability_of_true_and_of_boastful_probabilities():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    positive = rng.random(20_000) < p
    true, boastful = reliability(p, positive), reliability(p**3, positive)
    assert true.error < 0.015
    assert boastful.error == pytest.approx(1 / 2 - 1 / 4, abs=0.01)
    assert boastful.brier > true.brier
    assert true.counts.tolist() == [2000] * 10
    inside = (true.interval[:, 0] <= true.predicted) & (true.predicted <= true.interval[:, 1])
    assert inside.sum() >= 8


def test_reliability_puts_equal_probabilities_into_one_bin():
    found = reliability([0.2] * 50 + [0.7] * 10, np.arange(60) % 5 == 0, n_bins=5)
    assert found.counts.tolist() == [50, 10]
    np.testing.assert_allclose(found.predicted, [0.2, 0.7])
    assert reliability([0.2] * 10 + [0.7] * 50, np.arange(60) % 5 == 0, n_bins=5).counts.tolist() == [10, 50]


def test_threshold_keeps_its_promise_on_new_images():
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(300):
        old, new = rng.normal(size=(2, 200))
        alarms.append((new > threshold_for(old, false_alarms=0.1)).mean())
    assert 0.09 < np.mean(alarms) < 0.105


def test_threshold_from_too_few_images_lets_everything_pass():
    assert threshold_for(np.arange(10), false_alarms=0.05) == np.inf
    assert threshold_for(np.arange(19), false_alarms=0.05) == 18


def test_rates_at_a_threshold():
    found = rates_at([0, 1, 2, 3], np.array([False, False, True, True]), 0.5)
    assert (found.detected, found.false_alarms) == (1, 0.5)
    assert found.detected_interval[0] < 1 <= found.detected_interval[1]


def test_credibility_is_uniform_for_images_like_the_calibrations():
    rng = np.random.default_rng(0)
    share = conformal_credibility(rng.normal(size=5000), rng.normal(size=5000))
    assert (share <= 0.1).mean() == pytest.approx(0.1, abs=0.02)
    assert conformal_credibility([5.0], [1.0, 2.0]).tolist() == [1 / 3]
    assert conformal_credibility([2.0], [1.0, 2.0]).tolist() == [2 / 3], "a tie is as strange"


def test_a_detector_combines_what_scores_know_apart():
    scores, wrong = made_up(8000)
    first, second = np.arange(4000), np.arange(4000, 8000)
    combined = Detector().fit(scores.take(first), wrong[first]).suspicion(scores.take(second))
    alone = scores.take(second).suspicions(["max-softmax", "path"])
    found = compare_detectors(alone | {"combined": combined}, wrong[second])
    assert found.verdict("combined") == "better"
    assert found.verdict("path") == "open"
    assert reliability(combined, wrong[second]).error < 0.04


@pytest.mark.parametrize("calibration", ["logistic", "isotonic"])
def test_a_detector_of_one_score_keeps_its_order_and_gives_probabilities(calibration):
    scores, wrong = made_up()
    p = Detector(["path"], calibration=calibration).fit(scores, wrong).predict_proba(scores)
    np.testing.assert_allclose(p.sum(1), 1)
    order = np.argsort(scores.suspicion("path"))
    assert (np.diff(p[order, 1]) >= -1e-12).all()
    assert p[:, 1].mean() == pytest.approx(wrong.mean(), abs=0.01)


POSITIVE = np.array([True, False, True])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc([1, 2], POSITIVE), r"suspicion must have shape \(3,\), got \(2,\)"),
        (lambda: auroc([1, np.nan, 2], POSITIVE), "suspicion must be numbers, got 1 NaN"),
        (lambda: auroc([1, 2, 3], [0, 1, 1]), r"positive must be bool of shape \(n_samples,\), got int64"),
        (lambda: auroc([1, 2, 3], [True] * 3), "must hold both kinds of images, got 3 of 3 positive"),
        (lambda: compare_detectors({}, POSITIVE), "at least one detector, got none"),
        (lambda: compare_detectors({"a": [1, 2, 3]}, POSITIVE, reference="b"), r"one of \['a'\], got 'b'"),
        (lambda: compare_detectors({"a": [1, 2, 3]}, POSITIVE, groups=[0, 1]), r"groups must have shape \(3,\)"),
        (lambda: compare_detectors({"a": [1, 2]}, POSITIVE), r"a must have shape \(3,\), got \(2,\)"),
        (lambda: compare_detectors({"alpha": [1, 2, 3]}, POSITIVE).row("alfa"), "did you mean 'alpha'"),
        (lambda: risk_coverage([1, 2, 3], [False] * 3), "got 0 of 3 positive"),
        (lambda: reliability([0.1, 0.2, 1.3], POSITIVE), r"probability must lie in \[0, 1\], got 0.1 to 1.3"),
        (lambda: reliability([0.1, 0.2, 0.3], POSITIVE), "n_bins must be at most the 3 images, got 10"),
        (lambda: threshold_for([1.0], false_alarms=1), "confidence must lie between 0 and 1"),
        (lambda: threshold_for([]), "at least one sample, got"),
        (lambda: Detector(["paths"]).fit(*made_up(50)), "score must be one of .*did you mean 'path'"),
        (lambda: Detector(calibration="platt").fit(*made_up(50)), "calibration must be one of .*got 'platt'"),
        (lambda: Detector().fit(made_up(50)[0], POSITIVE), r"positive must be bool of shape \(50,\)"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_detector_must_be_fitted():
    with pytest.raises(NotFittedError):
        Detector().predict_proba(made_up(50)[0])
