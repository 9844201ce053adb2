"""The control for what training does, for any network: the same one with new weights.

For the networks of this book and of torchvision, ``pretrained=False`` gives it. For a reader's own there is only the
trained model, and :func:`untrained_copy` makes the control of that.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

CALIBRATION_IMAGES = 128


def untrained_copy(model: nn.Module, images, *, random_state: int = 0) -> nn.Module:
    """A copy of `model` with new weights: the control for what training does.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    images : torch.Tensor or Dataset
        The first 128 set the running statistics of its batch norms. Those of a network without training are a guess, by
        which the activations of a deep one fade or burst from layer to layer.
    random_state : int

    Returns
    -------
    torch.nn.Module
        In eval mode. Modules are initialised as PyTorch does when they are made; parameters that belong to none that
        knows how (a class token) have their entries shuffled.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> model, images = nf.load_model("resnet"), nf.load_images("test", n_samples=40)[0]
    >>> twin = untrained_copy(model, images)
    >>> torch.equal(twin.head.weight, model.head.weight)
    False
    """
    twin = copy.deepcopy(model).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(random_state)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
        if _batch_norms(twin):
            first = next(twin.parameters())
            batch = torch.stack([image_at(images, i) for i in range(min(CALIBRATION_IMAGES, len(images)))])
            set_batch_norm(twin, [batch.to(first.device, first.dtype)])
    return twin


def set_batch_norm(model: nn.Module, batches) -> None:
    """Give batch norms the means and variances that images cause, as the first training steps would; weights stay.

    An untrained network of many layers is a poor control without them: its codes lie in one or two directions.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; it ends in eval mode.
    batches : iterable of torch.Tensor
        On the model's device and in its dtype.
    """
    for norm in _batch_norms(model):
        norm.train().reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def image_at(images, index: int) -> torch.Tensor:
    """One image, whatever holds it."""
    item = images[index]
    return torch.as_tensor(item[0] if isinstance(item, tuple | list) else item)
