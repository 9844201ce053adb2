"""A detector: scores combined into one probability, and a threshold that keeps its promise on new images.

Both are fitted on a calibration split, of images that neither the network nor the maps were trained on, and judged on
another (:mod:`nfcodes_lib.detection` judges).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ._indices import check_confidence
from ._names import did_you_mean
from .detection import check_positive, check_suspicion
from .diagnosis_scores import SCORES, Scores, check_score_names
from .statistics import wilson_interval

CALIBRATIONS = ("logistic", "isotonic")


class Detector(BaseEstimator):
    """Several scores as one probability: a logistic regression on their standardised columns.

    With a single score it is Platt's scaling (Platt 1999) of that score.

    Parameters
    ----------
    names : sequence of str
        Which scores; each layer of each has a weight of its own.
    calibration : {"logistic", "isotonic"}
        ``"isotonic"`` puts a monotone step function behind the regression (Zadrozny and Elkan 2002), fitted to its
        predictions on left-out fifths.
    C : float
        Inverse strength of the penalty on the weights.

    Attributes
    ----------
    model_ : estimator
        scikit-learn's.

    Examples
    --------
    >>> from nfcodes_lib.diagnose import Diagnosis
    >>> from nfcodes_lib.som import SOM
    >>> rng, outputs = np.random.default_rng(0), np.arange(400) % 2
    >>> codes = {"a": rng.normal(size=(400, 3)) + 6 * outputs[:, None]}
    >>> wrong = rng.random(400) < 0.2                                       # answers that are not what the codes say
    >>> map_of_four = SOM(2, 2, backend="torch", n_epochs=5, random_state=0)
    >>> scores = Diagnosis(map_of_four).fit(codes, outputs).score_samples(codes, answers=outputs ^ wrong)
    >>> detector = Detector(["code confidence", "path"]).fit(scores.take(slice(200)), wrong[:200])
    >>> bool((detector.predict_proba(scores)[200:, 1] > 0.5).tolist() == wrong[200:].tolist())
    True
    """

    def __init__(self, names=SCORES, *, calibration="logistic", C=1.0):
        self.names = names
        self.calibration = calibration
        self.C = C

    def fit(self, scores: Scores, positive):
        """Fit the weights.

        Parameters
        ----------
        scores : Scores
            Of n images.
        positive : array-like of bool, shape (n,)
            What is to be detected: wrong answers, or attacked images.

        Returns
        -------
        Detector
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not as described, or one of the two kinds of images is missing.
        """
        if self.calibration not in CALIBRATIONS:
            hint = did_you_mean(self.calibration, CALIBRATIONS)
            raise ValueError(f"calibration must be one of {list(CALIBRATIONS)}, got {self.calibration!r}{hint}")
        positive = check_positive(positive, len(scores))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=self.C, max_iter=2000))
        if self.calibration == "isotonic":
            model = CalibratedClassifierCV(model, method="isotonic", cv=5, ensemble=False)
        self.model_ = model.fit(scores.features(check_score_names(self.names)), positive)
        return self

    def predict_proba(self, scores: Scores) -> np.ndarray:
        """P(negative) and P(positive) of each image, shape (n, 2)."""
        check_is_fitted(self)
        return self.model_.predict_proba(scores.features(self.names))

    def suspicion(self, scores: Scores) -> np.ndarray:
        """P(positive), shape (n,): what :func:`compare_detectors` and its neighbours take."""
        return self.predict_proba(scores)[:, 1]


@dataclass(frozen=True)
class Rates:
    """What a threshold does on images that did not set it.

    Attributes
    ----------
    threshold : float
    detected : float
        Share of positive images above it.
    detected_interval : tuple of float
        Wilson's.
    false_alarms : float
        Share of negative images above it.
    false_alarms_interval : tuple of float
    """

    threshold: float
    detected: float
    detected_interval: tuple[float, float]
    false_alarms: float
    false_alarms_interval: tuple[float, float]


def threshold_for(suspicion_of_negatives, *, false_alarms: float = 0.05) -> float:
    """Threshold above which at most this share of new negative images will fall, on average.

    Parameters
    ----------
    suspicion_of_negatives : array-like of float, shape (n,)
        Of the calibration split.
    false_alarms : float
        In (0, 1).

    Returns
    -------
    float
        The ceil((1 - a)(n + 1))-th smallest value, as in split conformal prediction (Vovk et al. 2005); infinite if n
        is too small for the promise.

    Examples
    --------
    >>> threshold_for(np.arange(1, 100), false_alarms=0.05)
    95.0
    """
    values = np.sort(check_suspicion(suspicion_of_negatives))
    share = check_confidence(1 - false_alarms)
    rank = int(np.ceil(share * (len(values) + 1) - 1e-9))
    return float(values[rank - 1]) if rank <= len(values) else float("inf")


def rates_at(suspicion, positive, threshold: float, *, confidence: float = 0.95) -> Rates:
    """Judge a threshold: shares of positive and of negative images that lie above it."""
    positive = check_positive(positive)
    above = check_suspicion(suspicion, len(positive)) > threshold
    shares = []
    for kind in (positive, ~positive):
        hits, n = int(above[kind].sum()), int(kind.sum())
        shares += [hits / n, wilson_interval(hits, n, confidence=confidence)]
    return Rates(float(threshold), *shares)


def conformal_credibility(suspicion, calibration) -> np.ndarray:
    """Share of calibration images that are at least as strange: (1 + number of them) / (1 + n), in (0, 1].

    Parameters
    ----------
    suspicion : array-like of float, shape (n,)
        Such as the nonconformity of the deep k nearest neighbours (Papernot and McDaniel 2018).
    calibration : array-like of float, shape (n_calibration,)
        The same score of held-out images of which nothing is wrong.

    Returns
    -------
    ndarray of float64, shape (n,)
        On new images of the same kind it is at most a with chance at most a, whatever the score.

    Examples
    --------
    >>> conformal_credibility([0.0, 2.5, 9.0], calibration=[1.0, 2.0, 3.0])
    array([1.  , 0.5 , 0.25])
    """
    reference = np.sort(check_suspicion(calibration, name="calibration"))
    at_least = len(reference) - np.searchsorted(reference, check_suspicion(suspicion), side="left")
    return (1 + at_least) / (1 + len(reference))
