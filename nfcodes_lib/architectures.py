"""Which layers of a network are worth reading: the composite layers of the usual families, and how they lay out maps.

A composite layer is a stage between two changes of resolution, or a part of a deep stack of equal blocks: the level at
which Lee and Vijayan (arXiv:2205.10952) read their networks. :func:`auto_layers` finds them in torchvision's families
and in any network that numbers them ``layer1``, ``layer2``, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

N_PARTS = 4  # a stack of equal blocks (a transformer) is read behind each quarter of it


@dataclass(frozen=True)
class LayerChoice:
    """What ``layers="auto"`` chose.

    Attributes
    ----------
    layers : tuple of str
        Names as in ``model.named_modules()``.
    family : str
        The architecture that was recognised.
    part : str
        What the layers are within it.
    """

    layers: tuple[str, ...]
    family: str
    part: str

    def __str__(self) -> str:
        return f"{self.family}: {self.part}"


def auto_layers(model: nn.Module) -> LayerChoice:
    """Choose the composite layers of `model`.

    Known are torchvision's ResNet (with ResNeXt and Wide ResNet), VGG, AlexNet, DenseNet, EfficientNet, MobileNet V2
    and V3, RegNet, ShuffleNet V2, ConvNeXt, Vision Transformer and Swin Transformer, alone or inside another module,
    and every network with numbered children ``layer1``, ``layer2``, …

    Raises
    ------
    ValueError
        If `model` is none of these; the message lists its top-level modules, to choose from by hand.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> choice = auto_layers(nf.load_model("resnet"))
    >>> print(choice, choice.layers)
    SmallResNet: composite layers ('layer1', 'layer2', 'layer3', 'layer4')
    """
    model, prefix = unwrap(model)
    for name, module in model.named_modules():
        for finder in FINDERS:
            if found := finder(module):
                inside, part = found
                names = [f"{name}.{layer}" if name else layer for layer in inside]
                return LayerChoice(tuple(prefix + each for each in names), type(module).__name__, part)
    known = "ResNet, VGG, AlexNet, DenseNet, EfficientNet, MobileNet, RegNet, ShuffleNet, ConvNeXt, ViT or Swin"
    raise ValueError(
        f'layers="auto" expects a network of a known family ({known}) or with layers layer1, layer2, …, '
        f"got {type(model).__name__}; name its layers, such as {[name for name, _ in model.named_children()]}"
    )


def unwrap(model: nn.Module) -> tuple[nn.Module, str]:
    """The network inside DataParallel, DistributedDataParallel or ``torch.compile``, and the prefix of its names.

    Raises
    ------
    TypeError
        If `model` is no module, or is TorchScript, whose layers cannot be hooked.
    """
    prefix = ""
    while True:
        if isinstance(model, torch.jit.ScriptModule):
            raise TypeError(
                "model must be a torch.nn.Module whose layers can be hooked, got TorchScript "
                f"({type(model).__name__}); pass the module that it was made from"
            )
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model, prefix = model.module, prefix + "module."
        elif "_orig_mod" in model._modules:  # of torch.compile; naming its class would import all of dynamo
            model, prefix = model._orig_mod, prefix + "_orig_mod."
        else:
            return model, prefix


def has_channels_last_axis(model: nn.Module, layer: str) -> bool:
    """Whether a layer's four-dimensional output is (n, height, width, channels), as inside Swin and ConvNeXt blocks.

    Decided by what the layer is: ``Linear`` and ``LayerNorm`` work on the last axis, torchvision's Swin keeps its maps
    so throughout, and an element-wise module in a ``Sequential`` follows the module before it.
    """
    parts = layer.split(".")
    for depth in range(len(parts)):
        if _family(model.get_submodule(".".join(parts[:depth]))) == "SwinTransformer":
            inside = ".".join(parts[depth:])
            return inside.startswith(("features.", "norm")) and inside != "features.0.0"
    by_type = _last_axis_by_type(model.get_submodule(layer))
    parent = model.get_submodule(".".join(parts[:-1]))
    if by_type is None and isinstance(parent, nn.Sequential):
        before = list(parent)[: [name for name, _ in parent.named_children()].index(parts[-1])]
        answers = [answer for module in reversed(before) if (answer := _last_axis_by_type(module)) is not None]
        by_type = answers[0] if answers else None
    return bool(by_type)


def _last_axis_by_type(module: nn.Module) -> bool | None:
    """Whether channels are the last axis of what `module` returns; None if its type does not tell."""
    if type(module).__name__ == "Permute":  # torchvision.ops
        return {(0, 2, 3, 1): True, (0, 3, 1, 2): False}.get(tuple(getattr(module, "dims", ())))
    if type(module) in (nn.Linear, nn.LayerNorm):
        return True
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
        return False
    return None


# -- families: module -> (names inside it, what they are), or None --------------------------------------------------

Found = tuple[list[str], str] | None


def _numbered_layers(module: nn.Module) -> Found:
    names = [name for name, _ in module.named_children() if re.fullmatch(r"layer\d+", name)]
    is_resnet = type(module).__module__.startswith("torchvision.models")
    return (names, "residual stages" if is_resnet else "composite layers") if len(names) > 1 else None


def _blocks_before_pooling(module: nn.Module) -> Found:
    """VGG and AlexNet: the last layer before each max pooling."""
    if _family(module) not in ("VGG", "AlexNet"):
        return None
    layers = list(module.features)
    ends = [i - 1 for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return [f"features.{i}" for i in ends], "last layer before each max pooling"


def _dense_blocks(module: nn.Module) -> Found:
    if _family(module) != "DenseNet":
        return None
    names = [name for name, _ in module.features.named_children() if name.startswith("denseblock")]
    return [f"features.{name}" for name in names], "dense blocks"


def _stages_of_blocks(module: nn.Module) -> Found:
    """EfficientNet and ConvNeXt: each Sequential of their blocks."""
    kinds = {"EfficientNet": ("MBConv", "FusedMBConv"), "ConvNeXt": ("CNBlock",)}
    if _family(module) not in kinds:
        return None
    stages = {
        f"features.{name}": stage
        for name, stage in module.features.named_children()
        if type(stage) is nn.Sequential and type(stage[0]).__name__ in kinds[_family(module)]
    }
    return list(stages), "stages of blocks"


def _mobile_stages(module: nn.Module) -> Found:
    """MobileNet: the last block before each change of resolution, and the last of all."""
    if _family(module) not in ("MobileNetV2", "MobileNetV3"):
        return None
    blocks = [
        (name, max(max(c.stride) for c in block.modules() if isinstance(c, nn.Conv2d)))
        for name, block in module.features.named_children()
        if type(block).__name__ == "InvertedResidual"
    ]
    ends = [name for (name, _), (_, stride) in pairwise(blocks) if stride > 1]
    return [f"features.{name}" for name in [*ends, blocks[-1][0]]], "last block of each resolution"


def _encoder_quarters(module: nn.Module) -> Found:
    if _family(module) != "VisionTransformer":
        return None
    return _quarters([f"encoder.layers.{name}" for name, _ in module.encoder.layers.named_children()])


def _swin_stages(module: nn.Module) -> Found:
    if _family(module) != "SwinTransformer":
        return None
    blocks = [
        f"features.{name}"
        for name, stage in module.features.named_children()
        if type(stage) is nn.Sequential and type(stage[0]).__name__.startswith("SwinTransformerBlock")
    ]
    return blocks, "stages of blocks"


def _named_stages(module: nn.Module) -> Found:
    """RegNet and ShuffleNet."""
    if _family(module) == "RegNet":
        return [f"trunk_output.{name}" for name, _ in module.trunk_output.named_children()], "stages of blocks"
    if _family(module) == "ShuffleNetV2":
        return [name for name, _ in module.named_children() if name.startswith("stage")], "stages of blocks"
    return None


def _family(module: nn.Module) -> str:
    """Name of torchvision's class that `module` is an instance of, or an empty string."""
    return next((c.__name__ for c in type(module).__mro__ if c.__module__.startswith("torchvision.models.")), "")


def _quarters(blocks: list[str]) -> Found:
    n_parts = min(N_PARTS, len(blocks))
    ends = [len(blocks) * (part + 1) // n_parts - 1 for part in range(n_parts)]
    return [blocks[end] for end in ends], f"block {', '.join(str(end + 1) for end in ends)} of {len(blocks)}"


FINDERS: tuple[Callable[[nn.Module], Found], ...] = (
    _numbered_layers,
    _blocks_before_pooling,
    _dense_blocks,
    _stages_of_blocks,
    _mobile_stages,
    _encoder_quarters,
    _swin_stages,
    _named_stages,
)
