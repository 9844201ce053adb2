"""From a model and images to one page: what the codes of each layer tell, each number beside its control.

:func:`report` does what the chapters do one by one. Half of the images train a map for each layer; the other half,
which neither map nor table has seen, is measured: how the units go with the answers (:mod:`nfcodes_lib.information`),
how many of them are used (:mod:`nfcodes_lib.controls`), in how many directions the codes spread
(:mod:`nfcodes_lib.geometry`), and whether codes give errors away (:mod:`nfcodes_lib.diagnose`). The same network
untrained goes through all of it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ._indices import check_count, check_indices
from .capture import capture
from .controls import Occupancy, kmeans_units, occupancy
from .data import split_indices
from .detection import Comparison, compare_detectors
from .diagnose import Diagnosis
from .dimension import components_for_variance, participation_ratio, two_nn
from .geometry import LayerGeometry, layer_geometry
from .image_folders import Photographs, open_images
from .information import Association, association
from .layer_codes import LayerCodes
from .som import SOM
from .statistics import wilson_interval
from .untrained import untrained_copy

FEWEST_IMAGES = 40
FEWEST_ERRORS = 10  # and right answers, below which ranking them says nothing
N_EPOCHS = 15


@dataclass(frozen=True, eq=False)
class LayerFindings:
    """What was measured of one layer of one network, on the images kept back.

    Attributes
    ----------
    association : Association
        Of the units and the network's answers.
    class_association : Association or None
        Of the units and the classes of the images, if these are known.
    occupancy : Occupancy
    quantization_error, kmeans_error : float
        Mean distance to the unit, of the map and of k-means of equal size, over the codes' standard deviation.
    participation_ratio : float
    components_90 : int
    dimension : float
        Intrinsic, by the two nearest neighbours; NaN where codes coincide too often to tell.
    geometry : LayerGeometry or None
        With classes; None if no two of them have two images each.
    """

    association: Association
    class_association: Association | None
    occupancy: Occupancy
    quantization_error: float
    kmeans_error: float
    participation_ratio: float
    components_90: int
    dimension: float
    geometry: LayerGeometry | None = field(repr=False)


@dataclass(frozen=True, eq=False)
class Report:
    """The findings, and the page made of them.

    Attributes
    ----------
    model_name : str
    chosen : str
        What ``layers="auto"`` took the model for; empty if the layers were named.
    layers : dict of str -> LayerFindings
    control : dict of str -> LayerFindings, or None
        The same of the untrained network.
    accuracy : float or None
        Share of right answers on the images kept back; None without labels.
    accuracy_interval : tuple of float or None
        Wilson interval.
    diagnosis : Comparison or None
        How well the softmax and the codes of each layer rank errors.
    why_no_diagnosis : str
    n_fit, n_judge, side : int
        Images for the maps, images measured, units along a side of a map.
    html : str
        The page, complete in itself.
    """

    model_name: str
    chosen: str
    layers: dict[str, LayerFindings] = field(repr=False)
    control: dict[str, LayerFindings] | None = field(repr=False)
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    diagnosis: Comparison | None = field(repr=False)
    why_no_diagnosis: str = field(repr=False)
    n_fit: int
    n_judge: int
    side: int
    html: str = field(repr=False, default="")

    def save(self, path: str | Path) -> Path:
        """Write the page to `path`, UTF-8; returns the path. An existing file is replaced."""
        path = Path(path)
        path.write_text(self.html, encoding="utf-8")
        return path


def report(
    model: nn.Module,
    images,
    *,
    labels=None,
    layers: str | Sequence[str] = "auto",
    pool: str | int = "mean",
    class_names: Sequence[str] | None = None,
    control: bool | nn.Module = True,
    side: int | None = None,
    batch_size: int = 64,
    n_permutations: int = 200,
    random_state: int = 0,
    progress: bool | None = None,
) -> Report:
    """Measure the codes of a model's layers on images, and write it up as one HTML page.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier: images -> logits. Any preprocessing that is not in it must be in the images.
    images : path, torch.Tensor, ndarray, Dataset
        A folder of photographs (see :func:`nfcodes_lib.image_folders.open_images`, with the model's `transform` if it
        has one), or anything that :func:`nfcodes_lib.capture` takes but a DataLoader. 40 images at least; hundreds are
        better, and thousands are enough.
    labels : array-like of int, shape (n,), optional
        The right answers. Of a folder with class folders they are read off, if the folders are named as
        ``model.class_names`` has it; else they are classes of their own.
    layers : "auto", str or list of str
    pool : {"mean", "max", "none", "cls", "tokens"} or int
        As in :func:`nfcodes_lib.capture`.
    class_names : sequence of str, optional
        Name of each output; ``model.class_names`` if there are any, else numbers.
    control : bool or torch.nn.Module
        The untrained network that goes beside it: an own one, or True for a copy of `model` with new weights
        (:func:`nfcodes_lib.untrained.untrained_copy`), or False for none.
    side : int, optional
        Units along each side of a map; about eight images to a unit, but 4 to 16 a side, if None.
    batch_size : int
    n_permutations : int
        Of the answers, for the null; and half-samples, for the intervals.
    random_state : int
    progress : bool, optional
        Show progress bars; None shows them unless in CI.

    Returns
    -------
    Report
        ``.save("report.html")`` writes the page.

    Raises
    ------
    ValueError
        If there are fewer than 40 images, labels do not fit, `pool` gives several codes per image, or the model gives
        one answer to all images.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, labels = nf.load_images("test", n_samples=120)
    >>> found = report(nf.load_model("resnet"), images, labels=labels, layers=["layer1", "layer4"], progress=False)
    >>> found.n_fit, found.n_judge, list(found.layers)
    (60, 60, ['layer1', 'layer4'])
    >>> found.html[:15]
    '<!DOCTYPE html>'
    """
    from ._report_page import page

    if pool == "spatial":
        raise ValueError("pool must give one code per image, got 'spatial'; use 'mean', 'max', 'none' or an int")
    images, labels, groups = _open(model, images, labels)
    if len(images) < FEWEST_IMAGES:
        raise ValueError(f"expected at least {FEWEST_IMAGES} images, got {len(images)}; half of them train the maps")
    settings = {"pool": pool, "batch_size": batch_size, "progress": progress}
    codes = capture(model, images, layers=layers, **settings)
    answers, n_outputs = codes.predictions, codes.logits.shape[1]
    names = list(getattr(model, "class_names", ()) if class_names is None else class_names)
    if class_names is not None and len(names) != n_outputs:
        raise ValueError(f"class_names must name each of {n_outputs} outputs, got {len(names)}")
    if len(np.unique(answers)) < 2:
        raise ValueError(
            f"expected different answers, got {answers[0]} for all {len(answers)} images; are they in the range and "
            "size that the model wants, and is its normalisation in it or in them?"
        )
    fit, judge = split_indices(len(images), random_state=random_state)
    if side is None:
        side = int(np.clip(np.sqrt(len(fit) / 8), 4, 16))
    if check_count(side, "side") ** 2 > len(fit):
        raise ValueError(f"side must be at most {int(len(fit) ** 0.5)} for {len(fit)} images to train on, got {side}")
    som = SOM(side, side, backend="torch", n_epochs=N_EPOCHS, random_state=random_state)
    measure = {"classes": labels if groups is None else groups, "fit": fit, "judge": judge, "som": som}
    measure |= {"n_permutations": n_permutations, "random_state": random_state}
    found, diagnosis = _measure(codes, **measure)
    untrained = None
    if control is not False:
        twin = control if isinstance(control, nn.Module) else untrained_copy(model, images, random_state=random_state)
        # beside the trained network's answers: do random filters follow them too?
        untrained, _ = _measure(capture(twin, images, layers=list(codes), **settings), answers=answers, **measure)
    comparison, why = _errors(diagnosis, codes, labels, judge, random_state)
    right = None if labels is None else int((answers[judge] == labels[judge]).sum())
    about = Report(
        model_name=type(model).__name__,
        chosen=codes.chosen,
        layers=found,
        control=untrained,
        accuracy=None if right is None else right / len(judge),
        accuracy_interval=None if right is None else wilson_interval(right, len(judge)),
        diagnosis=comparison,
        why_no_diagnosis=why,
        n_fit=len(fit),
        n_judge=len(judge),
        side=side,
    )
    names = names if len(names) == n_outputs else list(map(str, range(n_outputs)))
    html = page(about, codes, images, diagnosis, judge, names)
    return Report(**(vars(about) | {"html": html}))


def _open(model, images, labels):
    """Images as a tensor or data set; labels as the model's outputs, or None; classes if they are others, or None."""
    if isinstance(images, str | Path):
        images = open_images(images, transform=getattr(model, "transform", None))
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise TypeError(
            f"images must be a folder, a tensor, an array or a Dataset with a length, got {type(images).__name__}"
        )
    if labels is not None:
        labels = check_indices(labels, "labels")
        if len(labels) != len(images):
            raise ValueError(f"labels must name one class for each of {len(images)} images, got {len(labels)}")
        return images, labels, None
    if not isinstance(images, Photographs) or len(images.class_names) < 2:
        return images, None, None
    outputs = list(getattr(model, "class_names", ()))
    if set(images.class_names) <= set(outputs):
        return images, np.array([outputs.index(name) for name in images.class_names])[images.labels], None
    return images, None, images.labels


def _measure(codes: LayerCodes, *, classes, fit, judge, som, n_permutations, random_state, answers=None):
    """Findings of each layer, and the diagnosis that holds the maps."""
    answers = codes.predictions if answers is None else answers
    n_outputs = codes.logits.shape[1]
    neighbors = min(75, max(1, len(fit) // 4))
    diagnosis = Diagnosis(som, n_neighbors=neighbors).fit(
        {layer: codes[layer][fit] for layer in codes}, answers[fit], n_outputs=n_outputs
    )
    options = {"n_permutations": n_permutations, "n_resamples": n_permutations, "random_state": random_state}
    found = {}
    for layer in codes:
        x = codes[layer][judge]
        units, n_units = diagnosis.quantizers_[layer].predict(x), som.n_rows * som.n_columns
        centres = kmeans_units(codes[layer][fit], n_units=n_units, random_state=random_state)
        spread = float(np.sqrt(x.var(0, dtype=np.float64).sum()))
        found[layer] = LayerFindings(
            association=association(units, answers[judge], **options),
            class_association=None if classes is None else association(units, classes[judge], **options),
            occupancy=occupancy(units, n_units=n_units),
            quantization_error=diagnosis.quantizers_[layer].quantization_error(x) / spread,
            kmeans_error=centres.quantization_error(x) / spread,
            participation_ratio=participation_ratio(x),
            components_90=components_for_variance(x),
            dimension=_dimension(x),
            geometry=_geometry(x, (answers if classes is None else classes)[judge]),
        )
    return found, diagnosis


def _dimension(x: np.ndarray) -> float:
    try:
        return two_nn(x).dimension
    except ValueError:  # nearly all codes coincide
        return float("nan")


def _geometry(x: np.ndarray, classes: np.ndarray) -> LayerGeometry | None:
    """Geometry of the classes with two images or more; None if there are not two."""
    counts = np.bincount(classes)
    enough = counts[classes] >= 2
    return layer_geometry(x[enough], classes[enough]) if np.count_nonzero(counts >= 2) >= 2 else None


def _errors(diagnosis: Diagnosis, codes: LayerCodes, labels, judge, random_state) -> tuple[Comparison | None, str]:
    """How well scores rank errors among the images kept back, or why that was not asked."""
    if labels is None:
        return None, "the right answers are not known; pass labels"
    wrong = codes.predictions[judge] != labels[judge]
    if not FEWEST_ERRORS <= wrong.sum() <= len(wrong) - FEWEST_ERRORS:
        return None, (
            f"there are {wrong.sum()} errors among {len(wrong)} images; to rank them takes {FEWEST_ERRORS} errors and "
            f"{FEWEST_ERRORS} right answers at least"
        )
    scores = diagnosis.score_samples({layer: codes[layer][judge] for layer in codes}, codes.logits[judge])
    suspicions = {"max-softmax": scores.suspicion("max-softmax")}
    suspicions |= {f"codes of {layer}": scores.suspicion("code confidence", layer=layer) for layer in codes}
    return compare_detectors(suspicions, wrong, random_state=random_state), ""
