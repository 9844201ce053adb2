"""Test the paper's claims on every shipped network: ``python -m nfcodes_lib.claims``.

Lee and Vijayan's claims (arXiv:2205.10952, as far as its abstracts state them) are measured on three kinds of network,
three training seeds of each and three seeds of the maps, each with its control. The results go to ``book/claims.json``,
and from there to the page ``book/claims.md``; both are committed, and a test writes the page again and measures a part
again. A network's measurements are kept in ``.cache/claims`` as soon as they are made: run the command again after an
interruption, and it goes on where it stopped.

The networks are the sample: an effect is one number per network, averaged over its maps; its interval is Student's over
the three training seeds of a kind. One test per row asks whether the mean over all nine networks exceeds zero, and
Holm's correction (Holm 1979, Scand. J. Stat. 6) is made over all rows. A row is

- *reproduced* if the interval of every kind lies above zero and above the mean of the control, and the corrected
  p-value is below 0.05;
- *depends* if that holds for some kinds only;
- *not reproduced* otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from . import _assets, _claims_measures, _claims_page, models
from ._claims_measures import Network, Sizes
from ._claims_page import ALPHA
from ._progress import progress_bar
from .doctor import processor
from .statistics import student_interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "book" / "claims.json"
PAGE = ROOT / "book" / "claims.md"
KEPT = ROOT / ".cache" / "claims"
KINDS = {"residual": "resnet", "plain": "vgg", "robust": "resnet-robust"}
# The untrained network of each kind's build, with the batch norm that untrained weights lack set by 1,000 images.
CONTROLS = {"residual": "resnet", "plain": "vgg", "robust": "resnet"}
SEEDS = (0, 1, 2)
SOM_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """One tested statement.

    Attributes
    ----------
    claim : int
        Number of the claim in the book.
    name : str
    statement : str
        What the paper's claim predicts.
    effect : tuple of str
        Where the effect stands among a network's measurements; positive if the claim is right.
    control : tuple of str, optional
        Where its control stands: among those of the untrained network if `untrained`, else of the network itself.
    untrained : bool
    measure : str
        What the effect is, in words and units.
    control_name : str
    chapter, figure : str
        File of the chapter that shows it, and the name of the figure there.
    """

    claim: int
    name: str
    statement: str
    effect: tuple[str, str]
    measure: str
    control: tuple[str, str] | None
    control_name: str
    chapter: str
    figure: str
    untrained: bool = True


ROWS = (
    Row(
        1, "patterns", "codes fall onto a finite number of patterns",
        ("patterns", "effect"), "share of the quantization error that 1,024 units keep of that of 256, less the same "
        "for a Gaussian of equal covariance (above 0 if the error saturated)",
        None, "the Gaussian, by subtraction", "02_train_soms", "fig-saturation",
    ),
    Row(
        2, "correlation", "codes correlate with predictions",
        ("correlation", "effect"), "adjusted mutual information of unit and answer, mean over layers",
        ("correlation", "labels"), "the untrained network's units and the labels",
        "03_correlate_codes", "fig-association",
    ),
    Row(
        2, "leaning", "on errors, codes side with the prediction, not with the label",
        ("leaning", "effect"), "share of wrong answers that the unit stands for, less that of labels, mean over layers",
        None, "none needed: labels are the control", "03_correlate_codes", "fig-errors",
    ),
    Row(
        3, "depth", "more so in deep layers",
        ("correlation", "slope"), "rise per layer of adjusted mutual information",
        ("correlation", "labels_slope"), "the untrained network, with the labels", "03_correlate_codes", "fig-depth",
    ),
    Row(
        4, "clustering", "the units of one class lie together",
        ("clustering", "effect"), "share by which two images of one class lie nearer on the map than chance, mean over "
        "layers", ("clustering", "effect"), "the untrained network", "03_correlate_codes", "fig-within-class",
    ),
    Row(
        5, "directions", "deep codes are more diverse: participation ratio",
        ("diversity", "ratio_slope"), "doublings of the participation ratio per layer",
        ("diversity", "ratio_slope"), "the untrained network", "04_measure_geometry", "fig-kinds",
    ),
    Row(
        5, "dimension", "deep codes are more diverse: intrinsic dimension (TwoNN)",
        ("diversity", "intrinsic_slope"), "doublings of the intrinsic dimension per layer",
        ("diversity", "intrinsic_slope"), "the untrained network", "04_measure_geometry", "fig-disagree",
    ),
    Row(
        5, "cosine", "deep codes are more diverse: codebook vectors point further apart",
        ("diversity", "cosine_slope"), "rise per layer of the mean cosine distance of codebook vectors",
        ("diversity", "cosine_slope"), "the untrained network", "04_measure_geometry", "fig-disagree",
    ),
    Row(
        6, "features", "the input features of a unit can be estimated",
        ("reconstruction", "effect"), "share of reconstructions of units that another network gives the unit's class, "
        "mean over layers", ("reconstruction", "control"), "random codes of the layer, reconstructed likewise",
        "05_reconstruct_features", "fig-claim-6", untrained=False,
    ),
    Row(
        7, "propagation", "adversarial perturbations grow on their way",
        ("propagation", "effect"), "doublings per layer of the change of the activation, as a multiple of that under "
        "noise of equal length, at 4/255", ("propagation", "effect"), "the untrained network, its own answers attacked",
        "06_trace_perturbations", "fig-networks-change",
    ),
    Row(
        8, "association", "homogeneous layers are where attacks gain",
        ("vulnerability", "association"), "rank correlation over layers of minus the participation ratio and the "
        "attack's gain on noise", None, "none: four layers of one network",
        "06_trace_perturbations", "fig-networks-change",
    ),
    Row(
        8, "patching", "mending homogeneous layers pays more",
        ("vulnerability", "effect"), "share of answers restored by half of layer1's clean feature maps, less that of "
        "layer4's", ("vulnerability", "control"), "feature maps of other images",
        "06_trace_perturbations", "fig-patching",
        untrained=False,
    ),
)  # fmt: skip


def measure(name: str, seed: int, *, pretrained: bool, sizes: Sizes | None = None, som_seeds=SOM_SEEDS) -> dict:
    """All measurements of one network, as a dict that JSON can hold; those that need training only if `pretrained`."""
    network = Network(name, seed, pretrained=pretrained, som_seeds=som_seeds, sizes=sizes)
    found = {
        "correlation": _claims_measures.correlation(network),
        "clustering": _claims_measures.clustering(network),
        "diversity": _claims_measures.diversity(network),
        "propagation": _claims_measures.propagation(network, attack_answers=not pretrained),
    }
    if pretrained:
        found["patterns"] = _claims_measures.finite_patterns(network)
        found["leaning"] = _claims_measures.leaning(network)
        found["vulnerability"] = _claims_measures.vulnerability(
            network, found["diversity"]["ratio"], found["propagation"]["over_noise"]
        )
        others = [other for other in SEEDS if other != seed]
        judge = models.load_model(name, seed=others[0])
        found["reconstruction"] = _claims_measures.reconstruction(network, judge)
    return found


def jobs() -> list[tuple[str, int, bool]]:
    """(name, seed, pretrained) of every network that is measured."""
    trained = [(name, seed, True) for name in KINDS.values() for seed in SEEDS]
    return trained + [(name, seed, False) for name in dict.fromkeys(CONTROLS.values()) for seed in SEEDS]


def key(name: str, seed: int, pretrained: bool) -> str:
    """How a network is called in the results."""
    return f"{name}-{'seed' if pretrained else 'untrained'}{seed}"


def collect(kept: Path = KEPT, *, progress: bool | None = None) -> dict[str, dict]:
    """Measure every network that is not in `kept` yet; returns all measurements, by :func:`key`."""
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for job in progress_bar(jobs(), show=progress, desc="networks"):
        path = kept / f"{key(*job)}.json"
        stamp = _stamp(*job)
        old = json.loads(path.read_text()) if path.exists() else {}
        if old.get("stamp") != stamp:
            name, seed, pretrained = job
            began = time.process_time()
            old = {"stamp": stamp, "measurements": measure(name, seed, pretrained=pretrained)}
            old["measurements"]["seconds"] = time.process_time() - began
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(old))
            partial.replace(path)
        found[key(*job)] = old["measurements"]
    return found


def _stamp(name: str, seed: int, pretrained: bool) -> str:
    """What a kept measurement depends on: the weights, and the code that measures."""
    weights = _assets.sha256(_assets.asset_path(models.weights_name(name, seed))) if pretrained else "untrained"
    return f"{weights[:16]} {_assets.sha256(Path(_claims_measures.__file__))[:16]}"


def summarise(measurements: dict[str, dict]) -> list[dict]:
    """One dict per row: effect, interval and control for each kind, p-values, verdict.

    Parameters
    ----------
    measurements : dict of str -> dict
        From :func:`collect`.
    """
    rows = []
    for row in ROWS:
        kinds, effects = {}, []
        for kind, name in KINDS.items():
            values = np.array([measurements[key(name, seed, True)][row.effect[0]][row.effect[1]] for seed in SEEDS])
            low, high = student_interval(values)
            control = None
            if row.control:
                source = (CONTROLS[kind], False) if row.untrained else (name, True)
                control = np.mean(
                    [measurements[key(source[0], s, source[1])][row.control[0]][row.control[1]] for s in SEEDS]
                )
            kinds[kind] = {
                "effect": float(values.mean()),
                "interval": [low, high],
                "control": None if control is None else float(control),
                "holds": bool(low > 0 and (control is None or low > control)),
            }
            effects.extend(values)
        p_value = float(stats.ttest_1samp(effects, 0, alternative="greater").pvalue)
        rows.append({"name": row.name, "claim": row.claim, "kinds": kinds, "p_value": p_value})
    for row, corrected in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["corrected_p_value"] = corrected
        row["verdict"] = verdict([each["holds"] for each in row["kinds"].values()], corrected)
    return rows


def holm(p_values) -> list[float]:
    """Holm's corrected p-values, in the order given.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    stepped = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected.tolist()


def verdict(holds: list[bool], corrected_p_value: float) -> str:
    """The rule at the top of this module."""
    if all(holds) and corrected_p_value < ALPHA:
        return "reproduced"
    return "depends" if any(holds) else "not reproduced"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not measured yet, write the results and the page."""
    parser = argparse.ArgumentParser(prog="python -m nfcodes_lib.claims", description=__doc__.partition("\n")[0])
    parser.add_argument("--page", action="store_true", help="only write the page again from book/claims.json")
    if not parser.parse_args(arguments).page:
        measurements = collect(progress=True)
        results = {
            "settings": {
                "seeds": SEEDS,
                "som_seeds": SOM_SEEDS,
                "map": [_claims_measures.SIDE] * 2,
                "epochs": _claims_measures.N_EPOCHS,
                "minutes": sum(each["seconds"] for each in measurements.values()) / 60,
                "processor": processor(),
                **asdict(Sizes()),
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "rows": summarise(measurements),
            "measurements": measurements,
        }
        RESULTS.write_text(json.dumps(rounded(results), indent=1) + "\n")
    PAGE.write_text(_claims_page.page(json.loads(RESULTS.read_text()), ROWS))


def rounded(value):
    """Every float of a nested structure to six significant digits, so that the file can be read and compared."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
