"""Codes as a diagnosis: scores that should rise where a network errs or is under attack, beside those they must face.

Each layer's map puts an image on a unit, and training images say what a unit is used to. Four scores follow from the
codes: whether the unit's images got the answer that this one got; whether the code lies as near to its unit as theirs;
whether the layers' units stand for the same class; whether the path from unit to unit is a usual one. Beside them
stand three that need no map: the softmax (Hendrycks and Gimpel 2016, arXiv:1610.02136), the Mahalanobis distance (Lee
et al. 2018, arXiv:1807.03888) and nearest neighbours in every layer (Papernot and McDaniel 2018, arXiv:1803.04765).

A score is no detector yet: :mod:`nfcodes_lib.detector` combines scores and sets thresholds,
:mod:`nfcodes_lib.detection` and :mod:`nfcodes_lib.risk` judge them. All of it can be imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from ._indices import check_count, check_indices
from ._names import did_you_mean
from .codes import code_table, contingency
from .controls import check_activations
from .detection import Comparison, auroc, compare_detectors
from .detector import Detector, Rates, conformal_credibility, rates_at, threshold_for
from .diagnosis_scores import (
    BASELINES,
    CODE_SCORES,
    SCALES,
    SCORES,
    ClassGaussians,
    Scores,
    jensen_shannon,
    join_scores,
    log_odds_against,
    smoothed_conditional,
)
from .risk import Reliability, RiskCoverage, reliability, risk_coverage
from .som import SOM

__all__ = [
    "BASELINES",
    "CODE_SCORES",
    "SCALES",
    "SCORES",
    "Comparison",
    "Detector",
    "Diagnosis",
    "Rates",
    "Reliability",
    "RiskCoverage",
    "Scores",
    "auroc",
    "compare_detectors",
    "conformal_credibility",
    "join_scores",
    "rates_at",
    "reliability",
    "risk_coverage",
    "threshold_for",
]

PATHS = ("regions", "units")


class Diagnosis(BaseEstimator):
    """Learns from training images what codes look like when nothing is wrong.

    Parameters
    ----------
    quantizer : estimator, optional
        Unfitted; a clone of it is fitted to the codes of each layer. A :class:`nfcodes_lib.SOM`, or as a control
        scikit-learn's KMeans. None takes a torch map of 16 x 16 units.
    smoothing : float
        Images' worth of prior belief that each row of a table starts with; see Notes. Above 0.
    path : {"regions", "units"}
        What a path is made of: the class for which each layer's unit stands, or the units themselves.
    n_neighbors : int
        Training images asked in each layer by the deep k-nearest neighbours.
    random_state : int
        Seed of the default quantizer.

    Attributes
    ----------
    layers_ : tuple of str
    n_outputs_ : int
    quantizers_ : dict of str -> estimator
    tables_ : dict of str -> CodeTable
        Counts of the outputs given to :meth:`fit`.
    confidences_ : dict of str -> ndarray of float64, shape (n_units, n_outputs)
        P(output | unit), smoothed.
    typical_error_ : dict of str -> ndarray of float64, shape (n_units,)
        Quantization error of the training images of each unit, smoothed towards the layer's mean.
    transitions_ : list of ndarray of float64
        P(next | here) of the steps of a path: from layer to layer, and from the last layer to the answer.

    Notes
    -----
    Counts n(a, b) become P(b | a) = (n(a, b) + s p(b)) / (n(a) + s), with s the smoothing and p(b) = (n(b) + s / B) /
    (n + s) for B outcomes: a rare unit answers as images do in general, and nothing is impossible. Of an image with
    answer y and unit u_l in layer l:

    - code confidence: P(y | u_l);
    - quantization error: the distance of its code to u_l, over the unit's typical one;
    - disagreement: the Jensen-Shannon divergence of the rows P(. | u_1) ... P(. | u_L) in bits (Lin 1991, IEEE Trans.
      Inf. Theory 37), which does not look at y;
    - path: mean of -log2 P over the steps of r_1 -> ... -> r_L -> y, with r_l the class of u_l.

    Mahalanobis: squared distance to the nearest class mean under the covariance within classes, per layer. Deep k
    nearest neighbours: share of training images of another class than y among the nearest by angle, per layer; its
    mean over layers is the nonconformity of the paper, and
    :func:`nfcodes_lib.detector.conformal_credibility` makes the credibility of it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> outputs = np.arange(400) % 2
    >>> codes = {"a": rng.normal(size=(400, 3)) + 6 * outputs[:, None]}
    >>> diagnosis = Diagnosis(SOM(3, 3, backend="torch", n_epochs=5, random_state=0)).fit(codes, outputs)
    >>> scores = diagnosis.score_samples({"a": np.array([[0.0, 0, 0], [6.0, 6, 6]])}, answers=[0, 0])
    >>> scores.code_confidence.round(1)                          # the second lies where the other answer lives
    array([[1., 0.]])
    """

    def __init__(self, quantizer=None, *, smoothing=1.0, path="regions", n_neighbors=75, random_state=0):
        self.quantizer = quantizer
        self.smoothing = smoothing
        self.path = path
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def fit(self, codes: Mapping[str, np.ndarray], outputs=None, *, labels=None, n_outputs: int | None = None):
        """Fit maps, tables and baselines.

        Parameters
        ----------
        codes : LayerCodes or dict of str -> array-like of float, shape (n_samples, n_features)
            Codes of training images, layer by layer from shallow to deep.
        outputs : array-like of int, shape (n_samples,), optional
            The model's answers, which the tables count; the codes' own predictions if None.
        labels : array-like of int, shape (n_samples,), optional
            True classes, for Mahalanobis and nearest neighbours; `outputs` if None.
        n_outputs : int, optional
            Classes there are; the largest one seen plus one if None.

        Returns
        -------
        Diagnosis
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not as described, or codes, outputs and labels do not fit each other.
        """
        if not self.smoothing > 0:
            raise ValueError(f"smoothing must be above 0, so that nothing is impossible, got {self.smoothing!r}")
        if self.path not in PATHS:
            raise ValueError(f"path must be one of {list(PATHS)}, got {self.path!r}{did_you_mean(self.path, PATHS)}")
        codes = _check_codes(codes)
        n_samples = len(next(iter(codes.values())))
        outputs = check_indices(_outputs_of(codes, outputs), "outputs")
        labels = outputs if labels is None else check_indices(labels, "labels")
        if not len(outputs) == len(labels) == n_samples:
            raise ValueError(
                f"codes, outputs and labels must describe the same samples, got {n_samples}, {len(outputs)} and "
                f"{len(labels)}; select all with the same index"
            )
        if check_count(self.n_neighbors, "n_neighbors") > n_samples:
            raise ValueError(f"n_neighbors must be at most the {n_samples} samples, got {self.n_neighbors}")
        seen = int(max(outputs.max(), labels.max())) + 1
        self.n_outputs_ = seen if n_outputs is None else check_count(n_outputs, "n_outputs", minimum=seen)
        self.layers_ = tuple(codes)
        template = self.quantizer
        if template is None:
            template = SOM(16, 16, backend="torch", random_state=self.random_state)
        self.quantizers_, self.tables_, self.confidences_, self.typical_error_ = {}, {}, {}, {}
        self._gaussians, self._neighbors, self._labels = {}, {}, labels
        paths = []
        for layer in self.layers_:
            x = codes[layer]
            self.quantizers_[layer] = clone(template).fit(x)
            units, errors = self._locate(layer, x)
            n_units = len(_prototypes(self.quantizers_[layer]))
            table = code_table(units, outputs, n_units=n_units, n_outputs=self.n_outputs_)
            self.tables_[layer] = table
            self.confidences_[layer] = smoothed_conditional(table.counts, self.smoothing)
            sums = np.bincount(units, weights=errors, minlength=n_units)
            typical = (sums + self.smoothing * errors.mean()) / (table.n_samples + self.smoothing)
            self.typical_error_[layer] = np.maximum(typical, np.finfo(np.float32).tiny)
            self._gaussians[layer] = ClassGaussians(x, labels)
            self._neighbors[layer] = NearestNeighbors(n_neighbors=self.n_neighbors).fit(_directions(x))
            paths.append(self._steps(layer, units))
        self.transitions_ = [
            smoothed_conditional(contingency(here, there, n_units=self._n_states(i), n_outputs=self._n_states(i + 1)),
                                 self.smoothing)
            for i, (here, there) in enumerate(zip(paths, [*paths[1:], outputs], strict=True))
        ]  # fmt: skip
        return self

    def score_samples(self, codes: Mapping[str, np.ndarray], logits=None, *, answers=None) -> Scores:
        """Score images.

        Parameters
        ----------
        codes : LayerCodes or dict of str -> array-like of float, shape (n_samples, n_features)
            At least the layers of the fit.
        logits : array-like of float, shape (n_samples, n_outputs), optional
            The codes' own if None; without any there is no softmax score, and `answers` must be given.
        answers : array-like of int, shape (n_samples,), optional
            What is to be judged; the largest logits if None.

        Returns
        -------
        Scores

        Raises
        ------
        NotFittedError
            Before :meth:`fit`.
        ValueError
            If a layer is missing or has another number of features, or an answer is none of the classes.
        """
        check_is_fitted(self)
        if missing := [layer for layer in self.layers_ if layer not in codes]:
            raise ValueError(f"codes must hold the layers of the fit, {list(self.layers_)}, got none for {missing}")
        if logits is None:
            logits = getattr(codes, "logits", None)
        if logits is not None:
            logits = check_activations(np.asarray(logits))
            if logits.shape[1] != self.n_outputs_:
                raise ValueError(
                    f"logits must have {self.n_outputs_} columns as there were outputs in the fit, got "
                    f"{logits.shape[1]}; pass n_outputs to fit"
                )
        if answers is None and logits is None:
            raise ValueError("expected answers to judge, got neither answers nor logits; pass one of them")
        answers = logits.argmax(1) if answers is None else answers
        answers = check_indices(answers, "answers", n_values=self.n_outputs_, n_values_name="n_outputs")
        codes = _check_codes({layer: codes[layer] for layer in self.layers_})
        n_samples = len(codes[self.layers_[0]])
        if len(answers) != n_samples or (logits is not None and len(logits) != n_samples):
            raise ValueError(f"codes and answers must describe the same samples, got {n_samples} and {len(answers)}")

        units, relative, rows, path, distances, strangers = [], [], [], [], [], []
        for layer in self.layers_:
            x = codes[layer]
            width = _prototypes(self.quantizers_[layer]).shape[1]
            if x.shape[1] != width:
                raise ValueError(
                    f"codes of {layer!r} must have {width} features as in the fit, got {x.shape[1]}; capture them with "
                    "the same pool"
                )
            here, errors = self._locate(layer, x)
            units.append(here)
            relative.append(errors / self.typical_error_[layer][here])
            rows.append(self.confidences_[layer][here])
            path.append(self._steps(layer, here))
            distances.append(self._gaussians[layer].distance(x))
            neighbors = self._neighbors[layer].kneighbors(_directions(x), return_distance=False)
            strangers.append((self._labels[neighbors] != answers[:, None]).mean(1))
        rows = np.stack(rows)
        steps = zip(self.transitions_, path, [*path[1:], answers], strict=True)
        return Scores(
            layers=self.layers_,
            answers=answers,
            units=np.stack(units),
            code_confidence=rows[:, np.arange(n_samples), answers],
            quantization_error=np.stack(relative),
            disagreement=jensen_shannon(rows),
            path_surprise=-np.mean([np.log2(table[here, there]) for table, here, there in steps], axis=0),
            mahalanobis=np.stack(distances),
            neighbor_disagreement=np.stack(strangers),
            softmax_log_odds=None if logits is None else log_odds_against(logits, answers),
        )

    def _locate(self, layer: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """BMUs of a layer's codes, and their distances to them."""
        quantizer = self.quantizers_[layer]
        units = np.asarray(quantizer.predict(x), dtype=np.int64)
        return units, np.linalg.norm(x.astype(np.float64) - _prototypes(quantizer)[units], axis=1)

    def _steps(self, layer: str, units: np.ndarray) -> np.ndarray:
        """What a path visits in a layer: the units, or the classes for which they stand."""
        return units if self.path == "units" else self.tables_[layer].predict(units)

    def _n_states(self, i: int) -> int:
        """How many states the i-th place of a path has; the last place is the answer."""
        by_unit = self.path == "units" and i < len(self.layers_)
        return len(self.tables_[self.layers_[i]].counts) if by_unit else self.n_outputs_


def _prototypes(quantizer) -> np.ndarray:
    """Codebook of a fitted map or k-means, shape (n_units, n_features)."""
    found = getattr(quantizer, "codebook_", getattr(quantizer, "cluster_centers_", None))
    if found is None:
        raise ValueError(f"quantizer must learn codebook_ or cluster_centers_, got {quantizer!r}; use SOM or KMeans")
    return np.asarray(found).reshape(-1, np.shape(found)[-1])


def _directions(x: np.ndarray) -> np.ndarray:
    """Rows at unit length: nearest by Euclidean distance is then nearest by angle."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _outputs_of(codes, outputs):
    if outputs is None and not hasattr(codes, "predictions"):
        raise ValueError("expected outputs, got None and codes without logits; pass the model's answers as outputs")
    return codes.predictions if outputs is None else outputs


def _check_codes(codes):
    """Check that codes are a mapping of tables with equally many rows; return them as they are, or as a dict."""
    if not isinstance(codes, Mapping) or not codes:
        raise ValueError(f"codes must map layers to arrays, got {type(codes).__name__}; nf.capture gives such codes")
    rows = {layer: len(check_activations(codes[layer])) for layer in codes}
    if len(set(rows.values())) > 1:
        raise ValueError(f"codes must have one row per image in every layer, got {rows}; 'spatial' codes do not")
    return codes
