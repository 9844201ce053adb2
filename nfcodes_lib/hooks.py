"""Reading the layers of a network while it runs: names become hooks, outputs become activations.

A layer's output may be wrapped in a tuple or a mapping, and its channels may lie on the last axis (inside Swin and
ConvNeXt). Everything in this library that looks into a network does so through :class:`LayerOutput`, which evens that
out: an activation is (n, units), (n, tokens, units) or (n, channels, height, width), whatever the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ._names import did_you_mean
from .architectures import has_channels_last_axis, unwrap
from .pooling import only_tensor


class LayersSeen(Exception):
    """Raised by a hook to end a forward pass behind the last layer that is wanted."""


@dataclass(frozen=True)
class LayerOutput:
    """Where in a network an activation is found.

    Attributes
    ----------
    module : str
        Name as in ``model.named_modules()``.
    key : str or None
        Of the part that is wanted, where the module returns several tensors.
    channels_last : bool
        Whether a four-dimensional output is (n, height, width, channels).
    """

    module: str
    key: str | None = None
    channels_last: bool = False

    def activation(self, output: object) -> torch.Tensor:
        """The activation in what the module returned: a view of it, channels on the second axis of four.

        Raises
        ------
        TypeError
            If there is no tensor, or there are several and none is named.
        """
        tensor = only_tensor(output, layer=self.module, key=self.key)
        return tensor.permute(0, 3, 1, 2) if self.channels_last and tensor.ndim == 4 else tensor

    def put_back(self, output: object, activation: torch.Tensor) -> object:
        """What the module returned, with `activation` in the place of the one that :meth:`activation` finds."""
        before = only_tensor(output, layer=self.module, key=self.key)
        if self.channels_last and activation.ndim == 4:
            activation = activation.permute(0, 2, 3, 1)
        if isinstance(output, torch.Tensor):
            return activation
        if isinstance(output, Mapping):
            return type(output)({name: activation if part is before else part for name, part in output.items()})
        parts = [activation if part is before else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def resolve_layers(model: nn.Module, layers: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Check names of layers and return them as a tuple; :func:`layer_outputs` says what they may be.

    Raises
    ------
    ValueError
        If a name is unknown (the message lists the nearest and the top-level layers), given twice, or none is given.
    """
    return tuple(layer_outputs(model, layers)[1])


def layer_outputs(
    model: nn.Module, layers: str | list[str] | tuple[str, ...]
) -> tuple[nn.Module, dict[str, LayerOutput]]:
    """The unwrapped model, and for each name of a layer where its activation is found.

    A wrapper's prefix (``module.`` of DataParallel, ``_orig_mod.`` of a compiled module) may be in a name or not;
    ``"block[0]"`` names the first of several tensors that ``block`` returns.

    Raises
    ------
    ValueError
        As :func:`resolve_layers`.
    """
    model, prefix = unwrap(model)
    names = (layers,) if isinstance(layers, str) else layers
    plain: dict[str, tuple[str, str | None]] = {}
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        for name in names:
            module, key = re.fullmatch(r"(.*?)(?:\[([^\[\]]+)\])?", name, flags=re.DOTALL).groups()
            plain[name] = module.removeprefix(prefix), key
        if len(plain) == len(names):
            names = tuple(dict.fromkeys(module for module, _ in plain.values()))
    _check_modules(model, names)
    return model, {
        name: LayerOutput(module, key, has_channels_last_axis(model, module)) for name, (module, key) in plain.items()
    }


def _check_modules(model: nn.Module, layers: str | list[str] | tuple[str, ...]) -> None:
    """Refuse names that are not in ``model.named_modules()``, with the nearest one, and doubles."""
    if not isinstance(layers, str | list | tuple) or not all(isinstance(name, str) for name in layers):
        raise TypeError(f"layers must be a name or a list of names, got {layers!r}")
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    known = [name for name, _ in model.named_modules() if name]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers must be one or more different names, got {layers!r}")
    for name in names:
        if name not in known:
            top = [name for name, _ in model.named_children()]
            hint = did_you_mean(name, known)
            raise ValueError(f"layer must be one of {top} or a module inside them, got {name!r}{hint}")


@contextmanager
def tap(
    model: nn.Module, layers: str | list[str] | tuple[str, ...], keep: Callable[[torch.Tensor], object]
) -> Iterator[dict[str, object]]:
    """Context manager: a dict that each forward pass fills with ``keep(activation)`` of each named layer.

    The hooks are removed when the block ends, however it ends. The caller clears the dict between passes; a layer that
    finds its own name there was called twice in one pass, and raises.

    Parameters
    ----------
    model : torch.nn.Module
    layers : str or sequence of str
        As :func:`nfcodes_lib.capture` takes them.
    keep : callable
        Takes the activation, channels on the second axis of four; what it returns is stored. It must not return a view
        of its input, which a following in-place operation may overwrite.

    Raises
    ------
    ValueError
        If a name is unknown; from the forward pass, if a layer is called twice.
    TypeError
        From the forward pass, if a layer returns no tensor, or several of which none is named.
    """
    model, outputs = layer_outputs(model, layers)
    with reading(model, outputs, lambda name, activation: keep(activation)) as kept:
        yield kept


@contextmanager
def reading(
    model: nn.Module,
    outputs: dict[str, LayerOutput],
    keep: Callable[[str, torch.Tensor], object],
    *,
    stop: bool = False,
) -> Iterator[dict[str, object]]:
    """As :func:`tap`, for what :func:`layer_outputs` returns; stores ``keep(name, activation)``.

    With `stop`, a forward pass ends with :class:`LayersSeen` when all layers have run.
    """
    kept: dict[str, object] = {}
    names: dict[str, list[str]] = {}
    for name, found in outputs.items():
        names.setdefault(found.module, []).append(name)

    def hook_for(module_name: str):
        def hook(module, inputs, output):
            for name in names[module_name]:
                if name in kept:
                    raise ValueError(
                        f"layer {name!r} was expected to run once in a forward pass, but it ran twice; "
                        "capture a layer around it, or give each use a module of its own"
                    )
                kept[name] = keep(name, outputs[name].activation(output))
            if stop and len(kept) == len(outputs):
                raise LayersSeen

        return hook

    handles = []
    try:
        for name in names:
            handles.append(model.get_submodule(name).register_forward_hook(hook_for(name)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def check_ran(outputs, kept) -> None:
    """Raise ValueError, naming the layers, unless all of `outputs` are among the `kept`."""
    if silent := [name for name in outputs if name not in kept]:
        raise ValueError(f"expected every layer to run in the forward pass, but {silent} did not; name other layers")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager: `model` in eval mode, and every module back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
