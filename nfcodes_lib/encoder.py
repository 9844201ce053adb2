"""The layers of a network as a function of the image, made for taking its gradient again and again.

:func:`nfcodes_lib.capture` runs a whole network once, without gradients. Whoever searches for an image wants the
opposite: the gradient of a code with respect to the pixels, hundreds of times. :class:`Encoder` makes that cheap on a
copy of the network whose weights are frozen (no gradient is computed for them), whose batch norms are folded into the
convolutions before them, whose memory format is channels-last, and whose pass stops behind the last layer asked for.
The network itself is never touched.
"""

from __future__ import annotations

import copy
from contextlib import suppress

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ._forward_pass import conv_norm_pairs, is_close
from .hooks import LayersSeen, check_ran, evaluating, layer_outputs, reading
from .pooling import pool_maps

FOLDING_TOLERANCE = 1e-3  # largest difference that folding may make to a code, relative to the largest code


class Encoder:
    """Codes of layers as a differentiable function of images.

    Parameters
    ----------
    model : torch.nn.Module
        Copied, in eval mode; later changes to `model` do not reach the encoder.
    layers : str or list of str
        As in :func:`nfcodes_lib.capture`, but "auto".
    probe : torch.Tensor, float, shape (n, channels, height, width)
        An image or more, to see which batch norm follows which convolution, and that folding them changed nothing.
    pool : {"mean", "max", "none", "cls", "tokens"} or int
        As in :func:`nfcodes_lib.capture`.

    Attributes
    ----------
    n_folded : int
        Batch norms that were folded away. 0 where none directly follows a convolution, or folding changed the codes.

    Raises
    ------
    ValueError
        If a layer is unknown or does not run, or `pool` is ``"spatial"`` (a position is no image).

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, _ = nf.load_images("test", n_samples=4)
    >>> encode = Encoder(nf.load_model("resnet"), "layer2", probe=images)
    >>> images = images.requires_grad_(True)
    >>> encode(images)["layer2"].sum().backward()
    >>> images.grad.shape, encode.n_folded
    (torch.Size([4, 1, 28, 28]), 12)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | list[str] | tuple[str, ...],
        *,
        probe: torch.Tensor,
        pool: str | int = "mean",
    ):
        if pool == "spatial":
            raise ValueError(
                "pool must give one code per image, got 'spatial'; take 'none' or a whole number k, which keep layout"
            )
        model, self._outputs = layer_outputs(model, layers)
        self.layers, self.pool = tuple(self._outputs), pool
        parameter = next(model.parameters(), torch.zeros(()))
        self.device, self.dtype = parameter.device, parameter.dtype
        with evaluating(model):
            self._model = _frozen_copy(model)
            expected = self(probe)
            with conv_norm_pairs(self._model) as pairs, torch.no_grad():
                self._model(self._as_input(probe))
            folded = _folded(self._model, pairs)
        self._model, whole = folded, self._model
        got = self(probe)
        self.n_folded = len(pairs)
        if not all(is_close(got[layer], expected[layer], FOLDING_TOLERANCE) for layer in self.layers):
            self._model, self.n_folded = whole, 0

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Layer -> codes, float32 of shape (n, n_units), with the graph that leads back to `images`."""

        def keep(layer: str, activation: torch.Tensor) -> torch.Tensor:
            return pool_maps(activation, self.pool).float()

        with reading(self._model, self._outputs, keep, stop=True) as codes, suppress(LayersSeen):
            self._model(self._as_input(images))
        check_ran(self._outputs, codes)
        return codes

    def _as_input(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def _frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode and channels-last format whose parameters need no gradient."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _folded(model: nn.Module, pairs: list[tuple[nn.Module, nn.Module]]) -> nn.Module:
    """A copy in which each pair is one convolution with bias, and an identity in the place of the batch norm."""
    names = {module: name for name, module in model.named_modules()}
    model = copy.deepcopy(model)
    for convolution, norm in [(names[convolution], names[norm]) for convolution, norm in pairs]:
        fused = fuse_conv_bn_eval(model.get_submodule(convolution), model.get_submodule(norm))
        model.set_submodule(convolution, fused)
        model.set_submodule(norm, nn.Identity())
    return _frozen_copy(model)
