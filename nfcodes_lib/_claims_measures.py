"""What is measured on one network for each of the paper's claims; :mod:`nfcodes_lib.claims` runs it on all of them.

Every function returns plain numbers, one per claim row, as ``{"effect": ..., "control": ...}``. An effect is zero (or
below) if the claim is wrong; its control is what the same measure gives where the claim has nothing to say. Maps are
trained on one part of the training images from random starts; everything is measured on test images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_mutual_info_score

from . import data, models
from .adversarial import trace_attack
from .attacks import attack_images
from .capture import capture
from .codes import code_table
from .decoder import train_decoder
from .dimension import participation_ratio, two_nn
from .geometry import cosine_distances
from .layer_codes import LayerCodes
from .patching import patch_test
from .reconstruct import reconstruct
from .som import SOM
from .topography import within_class_distance
from .untrained import set_batch_norm

LAYERS = ("layer1", "layer2", "layer3", "layer4")
SIDE = 16
LARGE_SIDE = 32
N_EPOCHS = 10
EPSILON = 4 / 255
PATCH_EPSILONS = {"resnet-robust": 24 / 255}  # where a little less than all answers fall
PATCH_EPSILON = 8 / 255


@dataclass(frozen=True)
class Sizes:
    """How many images each measure takes.

    Attributes
    ----------
    fit, judge : int
        Training images for the maps, test images for the rest.
    dimension : int
        Test images for the intrinsic dimension.
    attacked : int
        Test images to attack.
    reconstructed : int
        Units of each layer's map to reconstruct.
    """

    fit: int = 6000
    judge: int = 6000
    dimension: int = 3000
    attacked: int = 200
    reconstructed: int = 40


class Network:
    """One network with its codes and maps.

    Parameters
    ----------
    name : str
    seed : int
        Training seed, or that of the random weights.
    pretrained : bool
    som_seeds : sequence of int
    sizes : Sizes
    """

    def __init__(self, name: str, seed: int, *, pretrained=True, som_seeds=(0, 1, 2), sizes: Sizes | None = None):
        self.name, self.som_seeds, self.sizes = name, tuple(som_seeds), sizes or Sizes()
        self.model = models.load_model(name, seed=seed, pretrained=pretrained)
        self.fit_images, _ = data.load_images("train", n_samples=self.sizes.fit, random_state=0)
        self.images, labels = data.load_images("test", n_samples=self.sizes.judge, random_state=0)
        self.labels = labels.numpy()
        if not pretrained:
            set_batch_norm(self.model, self.fit_images[:1000].split(250))
        self.fitted = self._capture(self.fit_images)
        self.judged = self._capture(self.images)
        self.maps = {(layer, s): fit_map(self.fitted[layer], SIDE, s) for layer in LAYERS for s in self.som_seeds}
        self.units = {key: som.predict(self.judged[key[0]]) for key, som in self.maps.items()}

    def _capture(self, images: torch.Tensor) -> LayerCodes:
        return capture(self.model, images, layers=list(LAYERS), progress=False)

    def over_maps(self, measure) -> np.ndarray:
        """``measure(layer, som_seed)`` averaged over the maps' seeds: one number per layer."""
        return np.array([np.mean([measure(layer, seed) for seed in self.som_seeds]) for layer in LAYERS])

    def tables(self, som_seed: int) -> dict:
        """What the units of one seed's maps stand for."""
        return {
            layer: code_table(
                self.maps[layer, som_seed].labels_, self.fitted.predictions, n_units=SIDE * SIDE, n_outputs=10
            )
            for layer in LAYERS
        }


def fit_map(codes: np.ndarray, side: int, seed: int) -> SOM:
    """A square map from a random start, by the torch backend."""
    start = {"initialization": "random", "random_state": seed}
    return SOM(side, side, backend="torch", n_epochs=N_EPOCHS, **start).fit(codes)


def slope(values) -> float:
    """Least-squares slope over depth, per layer."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def finite_patterns(network: Network) -> dict[str, float]:
    """Claim 1: does the error stop falling as the map grows? Quantization error of 1,024 units over that of 256.

    The effect is that ratio less the same ratio for a Gaussian of equal mean and covariance, which has no patterns.
    """
    rng = np.random.default_rng(0)
    kept, smooth = [], []
    for layer in LAYERS:
        fitted, judged = network.fitted[layer], network.judged[layer]
        mean, covariance = fitted.mean(0, dtype=np.float64), np.cov(fitted.T)
        drawn = rng.multivariate_normal(mean, covariance, len(fitted) + len(judged)).astype(np.float32)
        for found, (x, held_out) in ((kept, (fitted, judged)), (smooth, np.split(drawn, [len(fitted)]))):
            errors = [
                [fit_map(x, side, seed).quantization_error(held_out) for side in (SIDE, LARGE_SIDE)]
                for seed in network.som_seeds
            ]
            few, many = np.mean(errors, axis=0)
            found.append(many / few)
    return {"effect": float(np.mean(kept) - np.mean(smooth)), "kept": float(np.mean(kept))}


def correlation(network: Network) -> dict[str, float]:
    """Claims 2 and 3: adjusted mutual information of unit and answer, its slope over depth; and on errors alone."""
    answers, labels = network.judged.predictions, network.labels
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(answers)
    own = network.over_maps(lambda *key: adjusted_mutual_info_score(network.units[key], answers))
    chance = network.over_maps(lambda *key: adjusted_mutual_info_score(network.units[key], shuffled))
    with_labels = network.over_maps(lambda *key: adjusted_mutual_info_score(network.units[key], labels))
    return {
        "effect": float(own.mean()),
        "lowest": float(own.min()),
        "chance": float(np.abs(chance).max()),
        "labels": float(with_labels.mean()),
        "slope": slope(own),
        "labels_slope": slope(with_labels),
    }


def leaning(network: Network) -> dict[str, float]:
    """Claim 2 on errors: share of wrong answers that the code sides with, less the share of labels."""
    answers, labels = network.judged.predictions, network.labels
    wrong = answers != labels

    def lean(layer, seed):
        guess = network.tables(seed)[layer].predict(network.units[layer, seed])
        return (guess == answers)[wrong].mean() - (guess == labels)[wrong].mean()

    return {"effect": float(network.over_maps(lean).mean())}


def clustering(network: Network) -> dict[str, float]:
    """Claim 4: how much nearer than chance two images of one class lie on the map; 0 is chance, 1 one unit."""

    def nearness(layer, seed):
        settings = {"n_rows": SIDE, "n_columns": SIDE, "n_permutations": 1}
        return 1 - within_class_distance(network.units[layer, seed], network.labels, **settings).ratio

    return {"effect": float(network.over_maps(nearness).mean())}


def diversity(network: Network) -> dict[str, float]:
    """Claim 5: slopes over depth of three readings of "diverse": two dimensions, and how far apart codebooks point."""
    x = {layer: network.judged[layer] for layer in LAYERS}
    ratio = [participation_ratio(x[layer]) for layer in LAYERS]
    intrinsic = [two_nn(x[layer][: network.sizes.dimension]).dimension for layer in LAYERS]

    def codebook_cosine(layer, seed):
        codebook = network.maps[layer, seed].codebook_
        return cosine_distances(codebook.reshape(-1, codebook.shape[-1])).raw

    return {
        "ratio_slope": slope(np.log2(ratio)),
        "intrinsic_slope": slope(np.log2(intrinsic)),
        "cosine_slope": slope(network.over_maps(codebook_cosine)),
        "ratio": [float(each) for each in ratio],
        "intrinsic": [float(each) for each in intrinsic],
    }


def reconstruction(network: Network, judge: torch.nn.Module) -> dict[str, float]:
    """Claim 6: does another network give an image made from a unit's codebook vector that unit's class?

    The control is made in the same way from random codes: each number drawn from a real code, but each from another.
    """
    decoder = train_decoder(network.model, network.fit_images, layers=list(LAYERS), n_epochs=2, progress=False)
    rng, first = np.random.default_rng(0), network.som_seeds[0]
    found = {"vectors": [], "random": []}
    for layer in LAYERS:
        som, table = network.maps[layer, first], network.tables(first)[layer]
        codes = network.fitted[layer]
        units = rng.permutation(np.unique(som.labels_))[: network.sizes.reconstructed]
        shuffled = np.column_stack([rng.permutation(feature)[: len(units)] for feature in codes.T])
        vectors = som.codebook_.reshape(SIDE * SIDE, -1)[units]
        for name, targets, meant in (("vectors", vectors, units), ("random", shuffled, som.predict(shuffled))):
            settings = {"decoder": decoder, "n_steps": 40, "reference": codes, "progress": False}
            images = reconstruct(network.model, layer, targets, **settings).images
            with torch.inference_mode():
                answers = judge(images).argmax(1).numpy()
            found[name].append(float((answers == table.predict(meant)).mean()))
    return {"effect": float(np.mean(found["vectors"])), "control": float(np.mean(found["random"])), **found}


def propagation(network: Network, *, attack_answers: bool = False) -> dict[str, float]:
    """Claim 7: how the attack's change of the activation, as a multiple of noise of equal length, grows with depth.

    `attack_answers` attacks the network's own answers instead of the labels, for networks without training.
    """
    images = network.images[: network.sizes.attacked]
    truth = network.judged.predictions if attack_answers else network.labels
    first = network.som_seeds[0]
    trace = trace_attack(
        network.model,
        images,
        torch.from_numpy(np.array(truth[: len(images)])),
        {layer: network.maps[layer, first] for layer in LAYERS},
        epsilons=[EPSILON],
        steps=15,
        progress=False,
    )
    over_noise = trace.relative_change[0] / trace.noise.relative_change[0]
    moved = trace.bmu_changed[0] - trace.noise.bmu_changed[0]
    return {
        "effect": slope(np.log2(over_noise)),
        "moved": float(moved[-1] - moved[0]),
        "over_noise": [float(each) for each in over_noise],
        "success": float(trace.success[0]),
        "noise_success": float(trace.noise.success[0]),
    }


def vulnerability(network: Network, ratio, over_noise) -> dict[str, float]:
    """Claim 8: are the homogeneous layers those where attacks gain on noise, and those whose repair pays?

    The association is Spearman's over the layers; the causal effect is the share of answers restored by half of the
    clean feature maps of ``layer1`` less that of ``layer4``; donors of other images are the control.
    """
    right = network.judged.predictions == network.labels
    clean = network.images[torch.from_numpy(right)][: network.sizes.attacked]
    truth = torch.from_numpy(network.labels[right][: network.sizes.attacked])
    epsilon = PATCH_EPSILONS.get(network.name, PATCH_EPSILON)
    attacked = attack_images(network.model, clean, truth, epsilons=[epsilon], steps=15)
    fallen = torch.from_numpy(attacked.success[0])
    twins, clean, truth = attacked.images[0][fallen], clean[fallen], truth[fallen]
    settings = {"layers": list(LAYERS), "fractions": [0.5], "n_draws": 3, "progress": False}
    own = patch_test(network.model, twins, clean, truth, **settings).share[:, 0]
    strangers = patch_test(network.model, twins, clean.roll(1, 0), truth, **settings).share[:, 0]
    return {
        "association": float(spearmanr(-np.array(ratio), over_noise).statistic),
        "effect": float(own[0] - own[-1]),
        "control": float(strangers[0] - strangers[-1]),
        "restored": [float(each) for each in own],
        "n_images": int(fallen.sum()),
    }
