"""What arXiv:1902.06705 asks before an attack: each condition that fails is refused, with what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def check_epsilons(epsilons) -> np.ndarray:
    """Return the budgets as a float64 array, or raise ValueError if they are not finite, not negative, increasing."""
    epsilons = np.atleast_1d(np.asarray(epsilons, dtype=np.float64))
    if epsilons.ndim != 1 or not len(epsilons) or not np.isfinite(epsilons).all() or epsilons[0] < 0:
        raise ValueError(f"epsilons must be one or more finite numbers of at least 0, got {epsilons.tolist()}")
    if (np.diff(epsilons) <= 0).any():
        raise ValueError(f"epsilons must increase, got {epsilons.tolist()}; sort them and drop repeats")
    return epsilons


def check_attackable(model: nn.Module, images, labels, targets=None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Check a model and its images against arXiv:1902.06705; return labels and targets as CPU tensors."""
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(
            f"the model must be in eval mode, got {training[0]!r} in train mode; call model.eval(), or dropout and "
            "batch norm make the answers random"
        )
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.ndim != 4 or not len(images):
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        got = f"{kind} {tuple(getattr(images, 'shape', ()))}"
        raise ValueError(
            f"images must be a float tensor of shape (n, channels, height, width), got {got}; convert it, e.g. "
            "torch.from_numpy(array).float() / 255"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; divide bytes by 255, and put the "
            "normalisation inside the model so that epsilon means pixels"
        )
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with torch.inference_mode():
        logits = model(images[:32].to(device, torch.float32))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits of shape (n, n_classes), got {got}; wrap it in one that does")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(
            "the model must return logits, got rows that add up to 1, as probabilities do; leave its softmax out, or "
            "gradients vanish where the model is sure"
        )
    labels = _check_classes(labels, "labels", images, logits.shape[1])
    return labels, None if targets is None else _check_classes(targets, "targets", images, logits.shape[1])


def gradient_sizes(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Largest absolute entry of the loss's gradient at each image, shape (n,); 0 where it does not depend on it.

    Raises
    ------
    ValueError
        If a gradient is not finite.
    """
    x = images.clone().requires_grad_(True)
    loss = F.cross_entropy(model(x), labels, reduction="sum")
    gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        return torch.zeros(len(x))
    size = gradient.flatten(1).abs().amax(1)
    if not size.isfinite().all():
        raise ValueError("expected finite gradients, got NaN or infinity; check the model's logits on these images")
    return size


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager: no parameter of `model` takes gradients; its flags and gradients come back as they were."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _check_classes(classes, name: str, images: torch.Tensor, n_classes: int) -> torch.Tensor:
    classes = torch.as_tensor(np.asarray(classes.cpu() if isinstance(classes, torch.Tensor) else classes))
    if classes.shape != (len(images),) or classes.is_floating_point():
        raise ValueError(
            f"{name} must be one class index per image, shape ({len(images)},), got {classes.dtype} "
            f"{tuple(classes.shape)}"
        )
    if int(classes.min()) < 0 or int(classes.max()) >= n_classes:
        got = f"{int(classes.min())} to {int(classes.max())}"
        raise ValueError(f"{name} must lie in [0, {n_classes}), the model's classes, got {got}")
    return classes.long()
