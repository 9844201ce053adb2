"""Where in a network a perturbation that the eye cannot see turns into another answer.

An image and its attacked twin run through the network side by side. At each layer four things are compared: how far
the activation moved, relative to its own length and in angle,

    ||a' - a|| / ||a||,    1 - cos(a', a),

how far the code moved that the map sees, and whether it fell to another unit of the map: the path of best-matching
units (BMUs) from layer to layer. Beside each attack runs random noise of the same Euclidean length, image by image, for
a network that only amplified everything would prove nothing (Liao et al. 2017, arXiv:1712.02976, measure the
amplification; Yoon et al. 2019, arXiv:1909.09263, that length and angle can disagree).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ._attack_checks import check_attackable, check_epsilons, frozen
from ._indices import check_count
from ._progress import progress_bar
from .attacks import Attacker, equal_norm_noise, perturbation_norm
from .codes import CodeTable
from .hooks import check_ran, resolve_layers, tap
from .pooling import pool_maps
from .traces import Paths, Propagation, Trace


def trace_attack(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    soms: Mapping[str, object],
    *,
    epsilons,
    attack: str | Callable = "pgd",
    norm: str = "linf",
    targets: torch.Tensor | None = None,
    tables: Mapping[str, CodeTable] | None = None,
    pool: str | int = "mean",
    steps: int | None = None,
    restarts: int = 1,
    batch_size: int = 128,
    random_state: int = 0,
    progress: bool | None = None,
) -> Trace:
    """Attack images and follow each one through the layers and their maps, beside noise of equal length.

    Parameters
    ----------
    model, images, labels, epsilons, attack, norm, targets, steps, restarts
        As in :func:`nfcodes_lib.attack_images`.
    soms : dict of str -> fitted SOM
        Layer -> map of its codes, from shallow to deep. Any fitted quantizer with ``predict`` and ``cluster_centers_``
        will do as a control (scikit-learn's KMeans); it has no grid distance.
    tables : dict of str -> CodeTable, optional
        For each layer what its units stand for, from clean images that are not among `images`:
        ``code_table(som.predict(codes), codes.predictions, n_units=...)``. Without them there are no regions to enter.
    pool : {"mean", "max", "none", "cls", "tokens"} or int
        How activations become codes; as the maps were trained.
    batch_size : int
        Images at a time. Memory holds one batch of clean and one of perturbed activations, and a few numbers per image.
    random_state : int
        Seed of the attack's random starts and of the noise; equal seeds and batch sizes give equal traces.
    progress : bool, optional
        Show a progress bar; None shows one unless in CI.

    Returns
    -------
    Trace

    Raises
    ------
    ValueError
        If something is not as :func:`nfcodes_lib.attack_images` wants it, a map does not fit its layer, the layers of
        `tables` are not those of `soms`, or the model answers no image correctly.

    Notes
    -----
    The noise has, image by image, the Euclidean length of the perturbation that the attack made at that budget, after
    clipping to [0, 1]: :func:`nfcodes_lib.attacks.equal_norm_noise` says how. Where an attack stops short of its
    budget, so does the noise.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> from nfcodes_lib.som import SOM
    >>> model = nf.load_model("resnet")
    >>> images, labels = nf.load_images("test", n_samples=64)
    >>> codes = nf.capture(model, images, layers=["layer1", "layer4"])
    >>> soms = {layer: SOM(4, 5, backend="torch", n_epochs=5, random_state=0).fit(codes[layer]) for layer in codes}
    >>> trace = trace_attack(model, images[:16], labels[:16], soms, epsilons=[0, 8 / 255], steps=5)
    >>> trace.relative_change.shape, trace.success[0]
    ((2, 2), np.float64(0.0))
    >>> bool(trace.relative_change[1, 1] > trace.noise.relative_change[1, 1])
    True
    """
    attacker = Attacker(attack, norm=norm, steps=steps, restarts=restarts)
    epsilons = check_epsilons(epsilons)
    check_count(batch_size, "batch_size")
    labels, targets = check_attackable(model, images, labels, targets)
    layers = resolve_layers(model, tuple(soms))
    reader = _Reader(model, layers, soms, _check_tables(tables, layers), pool)
    device = next((parameter.device for parameter in model.parameters()), images.device)
    index, accuracy = _traceable(model, images, labels, targets, batch_size, device)

    clean, attacked, noise = [], [], []
    with frozen(model):
        for start in progress_bar(range(0, len(index), batch_size), show=progress, desc="trace", unit="batch"):
            here = index[start : start + batch_size]
            batch, truth = images[here].to(device, torch.float32), labels[here].to(device)
            aim = None if targets is None else targets[here].to(device)
            clean.append(reader.start(batch, truth, aim))
            found = attacker(model, batch, truth, epsilons, targets=aim, seed=(random_state, start))
            attacked.append([reader.compare(each) for each in found])
            seed = int(np.random.SeedSequence((random_state, start, 1)).generate_state(1)[0])
            noise.append([reader.compare(_noise_like(each - batch, batch, norm, seed)) for each in found])
    attacker.warn()
    clean = {name: np.concatenate([part[name] for part in clean], axis=-1) for name in clean[0]}
    return Trace(
        paths=_join(attacked, clean),
        noise=Propagation(_join(noise, clean)),
        layers=layers,
        epsilons=epsilons,
        norm=norm,
        index=index.numpy(),
        labels=labels[index].numpy(),
        targets=None if targets is None else targets[index].numpy(),
        accuracy=accuracy,
        clean_units=clean["units"],
        clean_regions=clean["regions"],
        clean_quantization_error=clean["quantization_error"],
    )


class _Reader:
    """Reads a batch of clean images, keeps their activations, and compares perturbed twins with them."""

    def __init__(self, model, layers, soms, tables, pool):
        if pool == "spatial":
            raise ValueError("pool must give one code per image, got 'spatial'; use 'mean', 'max', 'none' or an int")
        self.model, self.layers, self.soms, self.tables, self.pool = model, layers, soms, tables, pool

    def start(self, images, labels, targets) -> dict[str, np.ndarray]:
        """Read the clean batch; returns its units, regions and quantization errors, each of shape (L, n)."""
        self.images, self.labels, self.targets = images, labels, targets
        self.activations, _ = self._run(images)
        self.codes = {layer: pool_maps(activation, self.pool) for layer, activation in self.activations.items()}
        rows = [self._locate(layer, self.codes[layer]) for layer in self.layers]
        measures = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        self.units = measures["units"]
        return measures

    def compare(self, images) -> dict[str, np.ndarray]:
        """Read a perturbed batch; returns one array per measure, of shape (n,) or (L, n)."""
        activations, answers = self._run(images)
        change = images - self.images
        success = answers != self.labels if self.targets is None else answers == self.targets
        measures = {
            "predictions": answers.cpu().numpy(),
            "success": success.cpu().numpy(),
            "l2_norm": perturbation_norm(change, "l2").double().cpu().numpy(),
            "linf_norm": perturbation_norm(change, "linf").double().cpu().numpy(),
        }
        rows = []
        for i, layer in enumerate(self.layers):
            code = pool_maps(activations[layer], self.pool)
            row = self._locate(layer, code)
            row["relative_change"] = _relative(activations[layer], self.activations[layer])
            row["cosine_change"] = _cosine(activations[layer], self.activations[layer])
            row["code_change"] = _relative(code, self.codes[layer])
            row["bmu_changed"] = row["units"] != self.units[i]
            distance = getattr(self.soms[layer], "grid_distance", None)
            nowhere = np.full(len(code), np.nan)
            row["grid_distance"] = nowhere if distance is None else distance(self.units[i], row["units"])
            rows.append(row)
        return measures | {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _run(self, images) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        def keep(activation):  # a copy, which a following in-place ReLU does not reach
            return activation.detach().clone()

        with tap(self.model, self.layers, keep) as outputs, torch.no_grad():
            answers = self.model(images).argmax(1)
        check_ran(self.layers, outputs)
        return dict(outputs), answers

    def _locate(self, layer: str, code: torch.Tensor) -> dict[str, np.ndarray]:
        """BMUs of a batch of codes, their distance, and what they stand for."""
        code = np.ascontiguousarray(code.cpu().numpy(), dtype=np.float32)
        som = self.soms[layer]
        prototypes = getattr(som, "codebook_", getattr(som, "cluster_centers_", None))
        if prototypes is None:
            raise ValueError(f"the map of {layer!r} must be fitted, got {som!r}; call fit on codes of that layer")
        prototypes = np.asarray(prototypes).reshape(-1, prototypes.shape[-1])
        if prototypes.shape[1] != code.shape[1]:
            raise ValueError(
                f"the map of {layer!r} expects codes of {prototypes.shape[1]} features, got {code.shape[1]}; pass the "
                "pool with which its training codes were captured"
            )
        units = np.asarray(som.predict(code), dtype=np.int64)
        regions = np.full(len(units), -1)
        if self.tables is not None:
            majority = self.tables[layer].majority
            if len(majority) != len(prototypes):
                raise ValueError(
                    f"the table of {layer!r} must have n_units={len(prototypes)} as its map, got {len(majority)}"
                )
            regions = majority[units]
        error = np.linalg.norm(code.astype(np.float64) - prototypes[units], axis=1)
        return {"units": units, "regions": regions, "quantization_error": error}


def _check_tables(tables, layers):
    if tables is not None and (missing := [layer for layer in layers if layer not in tables]):
        raise ValueError(f"tables must have one code table for each layer of soms, got none for {missing}")
    return tables


def _traceable(model, images, labels, targets, batch_size, device) -> tuple[torch.Tensor, float]:
    """Indices of the images that have a right answer to lose, and the share of right answers among all."""
    with torch.inference_mode():
        answers = [model(batch.to(device, torch.float32)).argmax(1).cpu() for batch in images.split(batch_size)]
    correct = torch.cat(answers) == labels
    index = (correct if targets is None else correct & (targets != labels)).nonzero()[:, 0]
    if not len(index):
        raise ValueError(
            f"expected an image that the model answers correctly, got none among {len(images)}; are labels (and "
            "targets) in the order of the images, and the weights trained?"
        )
    return index, float(correct.double().mean())


def _noise_like(change: torch.Tensor, images: torch.Tensor, norm: str, seed: int) -> torch.Tensor:
    """Images with noise of the length of `change`; one seed gives one direction, whatever the length."""
    generator = torch.Generator().manual_seed(seed)
    return equal_norm_noise(images, perturbation_norm(change, "l2"), norm=norm, generator=generator)


def _relative(perturbed: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
    size = clean.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return ((perturbed - clean).flatten(1).norm(dim=1) / size).double().cpu().numpy()


def _cosine(perturbed: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
    """1 - cos as half the squared distance of the unit vectors, which keeps its digits where the angle is small."""
    turned = F.normalize(perturbed.flatten(1)) - F.normalize(clean.flatten(1))
    return (turned.norm(dim=1) ** 2 / 2).double().cpu().numpy()


def _join(batches: list[list[dict[str, np.ndarray]]], clean: dict[str, np.ndarray]) -> Paths:
    """Batches of budgets of measures -> one array per measure, (E, n) or (E, L, n), and what follows from them."""
    joined = {
        name: np.concatenate([np.stack([budget[name] for budget in batch]) for batch in batches], axis=-1)
        for name in batches[0][0]
    }
    changed = joined["bmu_changed"]
    n_layers = changed.shape[1]
    joined["parting_layer"] = np.where(changed.any(1), changed.argmax(1), n_layers)
    inside = joined["regions"] == joined["predictions"][:, None, :]
    stays = np.logical_and.accumulate(inside[:, ::-1], axis=1).sum(1)  # layers, counted from the last
    known = joined["success"] & (clean["regions"] >= 0).any(0)
    joined["entry_layer"] = np.where(known, n_layers - stays, -1)
    return Paths(**joined)
