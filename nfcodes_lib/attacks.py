"""Adversarial images: the smallest change of the pixels that an attack can find, within a budget, to change the answer.

An attack looks for x' with ||x' - x|| <= epsilon and x' in [0, 1] that raises the loss of the true label, or lowers
that of a target. The attacks are foolbox's (Rauber et al. 2020, doi:10.21105/joss.02607); this module gives them one
face and enforces what Carlini et al. 2019 (arXiv:1902.06705) ask of whoever uses them: a model in eval mode that
returns logits, images within their bounds, gradients that are not zero, results that keep the budget. A success rate
found so is a lower bound on what another attack may reach, never a proof of robustness.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ._attack_checks import check_attackable, check_epsilons, frozen, gradient_sizes
from ._indices import check_count
from ._names import did_you_mean
from ._progress import progress_bar

NORMS = ("linf", "l2")
ATTACKS = ("fgsm", "pgd", "minimum-norm")
TOLERANCE = 1e-5  # by which rounding may exceed a budget


@dataclass(frozen=True, eq=False)
class AttackedImages:
    """What an attack made of some images, for each budget.

    Attributes
    ----------
    images : torch.Tensor, float32, shape (n_epsilons, n, channels, height, width)
        In [0, 1].
    predictions : ndarray of int64, shape (n_epsilons, n)
    success : ndarray of bool, shape (n_epsilons, n)
        Whether the answer is another than the label; with targets, whether it is the target.
    epsilons : ndarray of float64, shape (n_epsilons,)
    norm : {"linf", "l2"}
    """

    images: torch.Tensor = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    success: np.ndarray = field(repr=False)
    epsilons: np.ndarray
    norm: str


def attack_images(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilons,
    attack: str | Callable = "pgd",
    norm: str = "linf",
    targets: torch.Tensor | None = None,
    steps: int | None = None,
    restarts: int = 1,
    batch_size: int = 128,
    random_state: int = 0,
    progress: bool | None = None,
) -> AttackedImages:
    """Attack images within each of several budgets.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, with the normalisation of the pixels inside; returns logits. It is left as it is.
    images : torch.Tensor, float, shape (n, channels, height, width)
        Pixels in [0, 1].
    labels : torch.Tensor, int64, shape (n,)
        The true classes.
    epsilons : sequence of float
        Budgets: the largest change of one pixel ("linf"), or the Euclidean length of the change ("l2"). 0 returns the
        images themselves.
    attack : {"fgsm", "pgd", "minimum-norm"}, foolbox attack or callable
        ``"fgsm"``: one step along the sign of the gradient (Goodfellow et al. 2014, arXiv:1412.6572), along the
        gradient itself for "l2". ``"pgd"``: `steps` steps of 2.5 epsilon / steps from a random start (Madry et al.
        2017, arXiv:1706.06083). ``"minimum-norm"``: no step size to choose; finds the shortest change that
        it can and stops there: FMN for "linf" (Pintor et al. 2021, arXiv:2102.12827), DDN for "l2" (Rony et al. 2019,
        arXiv:1811.09600). A callable gets ``(model, images, labels, epsilon)``, and ``targets=`` if there are any, and
        returns images.
    norm : {"linf", "l2"}
    targets : torch.Tensor, int64, shape (n,), optional
        Classes to be answered instead. None attacks in whatever direction is easiest.
    steps : int, optional
        Of "pgd" (40 if None) and "minimum-norm" (100 if None).
    restarts : int
        Runs from different random starts; each new one attacks only the images that still withstand.
    batch_size : int
        Images at a time; this bounds the memory.
    random_state : int
        Seed of the random starts; equal seeds and batch sizes give equal images.
    progress : bool, optional
        Show a progress bar; None shows one unless in CI.

    Returns
    -------
    AttackedImages

    Raises
    ------
    ValueError
        If an argument is not as described, the model is in train mode or returns probabilities, the loss has no
        gradient at any image of a batch, or a callable leaves the budget or [0, 1].
    ImportError
        If foolbox is not installed.

    Warns
    -----
    UserWarning
        If the gradient is exactly zero at some images: no gradient attack can start there.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> model = nf.load_model("resnet")
    >>> images, labels = nf.load_images("test", n_samples=16)
    >>> attacked = attack_images(model, images, labels, epsilons=[4 / 255], steps=5)
    >>> attacked.images.shape
    torch.Size([1, 16, 1, 28, 28])
    >>> bool((attacked.images[0] - images).abs().max() <= 4 / 255 + 1e-6)
    True
    """
    attacker = Attacker(attack, norm=norm, steps=steps, restarts=restarts)
    epsilons = check_epsilons(epsilons)
    labels, targets = check_attackable(model, images, labels, targets)
    device = next((parameter.device for parameter in model.parameters()), images.device)
    found, predictions = [], []
    batches = range(0, len(images), check_count(batch_size, "batch_size"))
    with frozen(model):
        for start in progress_bar(batches, show=progress, desc="attack", unit="batch"):
            here = slice(start, start + batch_size)
            batch, truth = images[here].to(device, torch.float32), labels[here].to(device)
            aim = None if targets is None else targets[here].to(device)
            attacked = attacker(model, batch, truth, epsilons, targets=aim, seed=(random_state, start))
            found.append(attacked.to(images.device))
            with torch.inference_mode():
                predictions.append(torch.stack([model(each).argmax(1).cpu() for each in attacked]))
    attacker.warn()
    predictions = torch.cat(predictions, 1)
    success = (predictions != labels if targets is None else predictions == targets).numpy()
    predictions = predictions.numpy()
    return AttackedImages(torch.cat(found, 1), predictions, success, epsilons, norm)


class Attacker:
    """An attack and its settings, applied batch by batch; :func:`attack_images` describes the parameters."""

    def __init__(self, attack: str | Callable, *, norm: str, steps: int | None = None, restarts: int = 1):
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {list(NORMS)}, got {norm!r}{did_you_mean(norm, NORMS)}")
        self.norm = norm
        self.restarts = check_count(restarts, "restarts")
        if steps is not None:
            check_count(steps, "steps")
        if restarts > 1 and attack in ("fgsm", "minimum-norm"):
            raise ValueError(f"restarts must be 1 for {attack!r}, which starts at the image itself, got {restarts}")
        self.attack = _build(attack, norm, steps) if isinstance(attack, str) else attack
        if not callable(self.attack):
            raise ValueError(f"attack must be one of {list(ATTACKS)} or a callable, got {attack!r}")
        self.n_images = self.n_flat = 0

    def __call__(self, model, images, labels, epsilons, *, targets=None, seed: tuple[int, ...] = (0,)) -> torch.Tensor:
        """Attack one batch with a frozen `model`: images of shape (n_epsilons, n, channels, height, width)."""
        self._check_gradients(model, images, labels)
        results = torch.stack([images] * len(epsilons))
        active = [i for i, epsilon in enumerate(epsilons) if epsilon > 0]
        if active:
            with seeded((*seed, 0), images.device):
                found = self._run(model, images, labels, [float(epsilons[i]) for i in active], targets)
            for i, batch in zip(active, found, strict=True):
                results[i] = self._within_budget(images, batch, float(epsilons[i]))
        for restart in range(1, self.restarts):
            for i in active:
                left = ~succeeded(model, results[i], labels, targets)
                if left.any():
                    aim = None if targets is None else targets[left]
                    with seeded((*seed, restart, i), images.device):
                        found = self._run(model, images[left], labels[left], [float(epsilons[i])], aim)
                    results[i, left] = self._within_budget(images[left], found[0], float(epsilons[i]))
        return results

    def warn(self) -> None:
        """Warn if the gradient was zero at some of the images seen so far."""
        if self.n_flat:
            warnings.warn(
                f"the gradient of the loss is exactly zero at {self.n_flat} of {self.n_images} images, so a gradient "
                "attack cannot start there and their robustness is not shown; lower the logits' scale, or attack with "
                "random starts or a gradient-free method",
                stacklevel=3,
            )

    def _run(self, model, images, labels, epsilons, targets) -> list[torch.Tensor]:
        foolbox = sys.modules.get("foolbox")  # whoever holds one of its attacks has imported it
        if foolbox is None or not isinstance(self.attack, foolbox.attacks.Attack):
            options = {} if targets is None else {"targets": targets}
            return [self.attack(model, images, labels, epsilon, **options) for epsilon in epsilons]
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        criterion = foolbox.criteria.Misclassification(labels)
        if targets is not None:
            criterion = foolbox.criteria.TargetedMisclassification(targets)
        return self.attack(wrapped, images, criterion, epsilons=epsilons)[1]  # cut to each budget, not the raw ones

    def _check_gradients(self, model, images, labels) -> None:
        size = gradient_sizes(model, images, labels)
        if not size.any() and self.n_images == self.n_flat:
            raise ValueError(
                "expected a gradient of the loss at the images, got exactly zero for a whole batch; a gradient attack "
                "would fail without showing robustness: look for rounding, detach() or a saturated output in the model"
            )
        self.n_images += len(size)
        self.n_flat += int((size == 0).sum())

    def _within_budget(self, clean, attacked, epsilon: float) -> torch.Tensor:
        if not isinstance(attacked, torch.Tensor) or attacked.shape != clean.shape:
            got = tuple(attacked.shape) if isinstance(attacked, torch.Tensor) else type(attacked).__name__
            raise ValueError(f"the attack must return images of shape {tuple(clean.shape)}, got {got}")
        if not bool(((attacked >= 0) & (attacked <= 1)).all()):
            raise ValueError("the attack must return images in [0, 1]; clamp them before returning")
        largest = float(perturbation_norm(attacked - clean, self.norm).max())
        if largest > epsilon + TOLERANCE:
            raise ValueError(
                f"the attack must keep its {self.norm} budget of {epsilon:.5f}, got a change of {largest:.5f}; "
                "project the change onto the ball before returning"
            )
        return attacked.detach()


def equal_norm_noise(
    images: torch.Tensor, lengths: torch.Tensor, *, norm: str = "linf", generator: torch.Generator | None = None
) -> torch.Tensor:
    """Add random noise of a given length to each image, within [0, 1]: the control for an attack.

    Parameters
    ----------
    images : torch.Tensor, float, shape (n, channels, height, width)
        In [0, 1].
    lengths : torch.Tensor, float, shape (n,)
        Euclidean length that the noise of each image shall have after clipping.
    norm : {"linf", "l2"}
        Random signs, the shape of an L-infinity attack, or Gaussian noise.
    generator : torch.Generator, optional

    Returns
    -------
    torch.Tensor
        Images in [0, 1]. An image that cannot be moved so far in the drawn direction is moved as far as it goes.

    Notes
    -----
    Clipping shortens noise: at a black pixel, half of it points out of bounds. So the noise is not scaled and then
    clipped, but the scale is found, by bisection, at which the clipped noise has the length asked for.

    Examples
    --------
    >>> x = torch.zeros(2, 1, 8, 8)
    >>> noisy = equal_norm_noise(x, torch.tensor([0.5, 1.0]), generator=torch.Generator().manual_seed(0))
    >>> noisy.flatten(1).norm(dim=1).round(decimals=4)
    tensor([0.5000, 1.0000])
    """
    draw = torch.randn(images.shape, generator=generator).to(images.device)
    direction = draw.sign() if norm == "linf" else draw
    lengths = lengths.to(images.device)[:, None, None, None]

    def noisy(scale):
        return (images + scale * direction).clamp(0, 1)

    low = torch.zeros_like(lengths)
    high = torch.full_like(lengths, 1 / float(direction.abs().clamp_min(1e-3).min()))  # clips every pixel
    for _ in range(50):
        middle = (low + high) / 2
        short = (noisy(middle) - images).flatten(1).norm(dim=1)[:, None, None, None] < lengths
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(lengths > 0, noisy(high), images)


@torch.inference_mode()
def succeeded(model: nn.Module, images, labels, targets=None) -> torch.Tensor:
    """Whether each answer is not the label, or is the target: bool, shape (n,)."""
    answers = model(images).argmax(1)
    return answers != labels if targets is None else answers == targets


def perturbation_norm(change: torch.Tensor, norm: str) -> torch.Tensor:
    """Length of each image's change, shape (n,)."""
    return change.flatten(1).abs().amax(1) if norm == "linf" else change.flatten(1).norm(dim=1)


@contextmanager
def seeded(seed: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Context manager: torch's random numbers from `seed`; the global state comes back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        yield


def import_foolbox():
    """Import foolbox, also where there is no git (its zoo of models would want one), or say how to install it."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            import foolbox
    except ImportError as error:
        raise ImportError(f"attacks need foolbox, which could not be imported ({error}); pip install foolbox") from None
    return foolbox


def _build(name: str, norm: str, steps: int | None):
    if name not in ATTACKS:
        hint = did_you_mean(name, ATTACKS)
        raise ValueError(f"attack must be one of {list(ATTACKS)} or a callable, got {name!r}{hint}")
    attacks = import_foolbox().attacks
    descent = {"linf": attacks.LinfPGD, "l2": attacks.L2PGD}[norm]
    if name == "fgsm":
        return descent(rel_stepsize=1.0, steps=1, random_start=False)
    if name == "pgd":
        steps = steps or 40
        return descent(rel_stepsize=2.5 / steps, steps=steps, random_start=True)
    return {"linf": attacks.LInfFMNAttack, "l2": attacks.DDNAttack}[norm](steps=steps or 100)
