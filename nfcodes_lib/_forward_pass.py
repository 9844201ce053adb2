"""The forward pass of a capture: the same function of the image, computed faster, on the user's own modules.

Three things make it faster. Weights and images are in channels-last memory format, in which convolutions run faster on
most machines. A batch norm whose input is the very output of a convolution is folded into that convolution,

    gamma (W x - mean) / sigma + beta  =  (gamma / sigma W) x + (beta - gamma mean / sigma),

once an image has shown which follows which, and that the codes stay the same up to rounding. And on request
convolutions and matrix products compute in bfloat16. All of it is put in place of the model's own tensors for the time
of a capture and taken back after it; no tensor of the model is changed.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .hooks import LayersSeen

PRECISIONS = ("bfloat16",)
FOLDING_TOLERANCE = (
    1e-4  # largest difference that folding may make to a code, relative to the largest code of its layer
)
N_PROBE = 1  # images on which folding is checked
LOWERED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose weights are lowered once; autocast sees to the rest


class ForwardPass:
    """Runs a model on batches of images; a context manager that leaves the model as it came.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode already.
    layers : tuple of str
        Modules that someone reads: a convolution among them is never folded, as its output would be another.
    read : callable
        Takes a batch of images and a function that runs the model on it; returns a dict of tensors that folding must
        not change. Called on a few images, to check that.
    precision : {None, "bfloat16"}

    Attributes
    ----------
    computes_in : str
        Name of the dtype of the activations.
    n_folded : int or None
        Batch norms folded; None before :meth:`fold`.
    """

    def __init__(self, model: nn.Module, *, layers: tuple[str, ...], read: Callable, precision: str | None = None):
        self.model, self.layers, self.read = model, layers, read
        floats = [p for p in model.parameters() if p.is_floating_point()]
        self.device = floats[0].device if floats else torch.device("cpu")
        self.dtype = floats[0].dtype if floats else torch.float32
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(f"precision must be None or one of {list(PRECISIONS)}, got {precision!r}")
        if precision is not None and self.dtype != torch.float32:
            raise ValueError(
                f"precision={precision!r} expects a model of float32, got {self.dtype}; leave precision out"
            )
        self.precision = precision
        self.computes_in = precision or str(self.dtype).removeprefix("torch.")
        self.n_folded: int | None = None
        self._eager = None
        self._swapped: list[tuple[dict, str, object]] = []

    def __enter__(self) -> ForwardPass:
        if any(_is_compiled(module) for module in self.model.modules()):  # compiled code does not see our hooks
            self._eager = torch.compiler.set_stance("force_eager")
            self._eager.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._restore()
        if self._eager is not None:
            self._eager.__exit__(*exception)

    def __call__(self, images: torch.Tensor):
        """What the model returns for `images`, floats of shape (n, channels, height, width) on any device.

        None if a hook ended the pass with LayersSeen.
        """
        if not self._swapped:
            self._channels_last()
            self._lower()
        return self._run(self._as_input(images))

    def _run(self, images: torch.Tensor):
        lowered = torch.autocast(self.device.type, torch.bfloat16) if self.precision else nullcontext()
        with torch.inference_mode(), lowered, suppress(LayersSeen):
            return self.model(images)
        return None

    def _as_input(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    @torch.no_grad()
    def fold(self, images: torch.Tensor) -> None:
        """Fold what can be folded if that leaves what is read from one of `images` as it was, up to rounding.

        Every later batch then runs so. Does nothing if called again.
        """
        if self.n_folded is not None:
            return
        self.n_folded = 0
        if not any(type(module) is nn.BatchNorm2d for module in self.model.modules()):
            return
        precision, self.precision = self.precision, None
        if not self._swapped:
            self._channels_last()
        probe = self._as_input(images[:N_PROBE])
        with conv_norm_pairs(self.model, self.layers) as pairs:
            expected = self.read(probe, self._run)
        for conv, norm in pairs:
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            self._swap(conv._parameters, "weight", _last(weight.detach()))
            self._swap(conv._parameters, "bias", bias.detach())
            self._swap(norm.__dict__, "forward", _same)
        got = self.read(probe, self._run)
        if all(is_close(got[name], expected[name], FOLDING_TOLERANCE) for name in expected):
            self.n_folded = len(pairs)
        else:
            self._restore()
            self._channels_last()
        self.precision = precision
        self._lower()

    def _channels_last(self) -> None:
        for module in self.model.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.ndim == 4:
                    self._swap(module._parameters, name, _last(parameter.detach()))

    def _lower(self) -> None:
        """Weights of the costly layers in bfloat16, made once; autocast would make them again for every batch."""
        if self.precision is None:
            return
        for module in self.model.modules():
            if isinstance(module, LOWERED) and "weight" in module._parameters:
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        self._swap(module._parameters, name, parameter.detach().to(torch.bfloat16))

    def _swap(self, slots: dict, name: str, value: object) -> None:
        self._swapped.append((slots, name, slots.get(name, _MISSING)))
        slots[name] = value

    def _restore(self) -> None:
        while self._swapped:
            slots, name, value = self._swapped.pop()
            if value is _MISSING:
                del slots[name]
            else:
                slots[name] = value


@contextmanager
def conv_norm_pairs(model: nn.Module, layers: tuple[str, ...] = ()) -> Iterator[list[tuple[nn.Module, nn.Module]]]:
    """Context manager: a list that a forward pass in the block fills with each (convolution, batch norm) to fold.

    They are pairs of which each ran once, the norm on the very tensor that the convolution returned, and at neither of
    which anybody else looks: no hooks, no parametrization, not among `layers` (the norm may be: its output stays).
    """
    pairs: list[tuple[nn.Module, nn.Module]] = []
    made: dict[int, tuple[weakref.ref, nn.Module]] = {}  # weak: no activation is kept for this
    n_runs, handles = Counter(), []

    def after_convolution(module, inputs, output):
        n_runs[module] += 1
        made[id(output)] = weakref.ref(output), module

    def before_norm(module, inputs):
        n_runs[module] += 1
        tensor, convolution = made.get(id(inputs[0]), (lambda: None, None))
        if tensor() is inputs[0]:
            pairs.append((convolution, module))

    read = {model.get_submodule(layer) for layer in layers}
    n_hooks = {module: len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()}
    for module, hooked in n_hooks.items():
        if type(module) is nn.Conv2d and not hooked and module not in read:
            handles.append(module.register_forward_hook(after_convolution))
        elif type(module) is nn.BatchNorm2d and module.track_running_stats and (not hooked or module in read):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()
        n_norms = Counter(convolution for convolution, _ in pairs)
        pairs[:] = [pair for pair in pairs if n_runs[pair[0]] == n_runs[pair[1]] == n_norms[pair[0]] == 1]


def _is_compiled(module: nn.Module) -> bool:
    """Whether calls of `module` go through ``torch.compile``."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


_MISSING = object()


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def is_close(codes: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether codes differ from the expected ones by at most `tolerance`, relative to the largest of these."""
    largest = expected.abs().max().clamp_min(1e-12)
    return codes.shape == expected.shape and bool((codes - expected).abs().max() <= tolerance * largest)
