"""architectures: the layers that "auto" chooses in each family, with the fewest layers that the family has."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import VGG, make_layers

import nfcodes_lib as nf
from nfcodes_lib.architectures import auto_layers, has_channels_last_axis, unwrap


def with_small_classifier(build, width):
    """Build without the two layers of 4,096 units: only the convolutions get memory and (random) weights."""
    with torch.device("meta"):
        model = build()
    model.features.to_empty(device="cpu")
    for parameter in model.features.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.classifier = nn.Linear(width, 3)
    return model


v3 = partial(InvertedResidualConfig, width_mult=1.0)
FAMILIES = {  # name -> (how to build it, side of an image, what must be chosen, units of each)
    "ResNet": (
        lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3),
        32,
        ["layer1", "layer2", "layer3", "layer4"],
        [64, 128, 256, 512],
    ),
    "VGG": (
        lambda: with_small_classifier(lambda: VGG(make_layers([4, "M", 8, 8, "M"])), 8 * 49),
        8,
        ["features.1", "features.6"],
        [4, 8],
    ),
    "AlexNet": (
        lambda: with_small_classifier(models.AlexNet, 256 * 36),
        64,
        ["features.1", "features.4", "features.11"],
        [64, 192, 256],
    ),
    "DenseNet": (
        lambda: models.DenseNet(4, (1, 1, 1, 1), 8, bn_size=2, num_classes=3),
        32,
        ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features.denseblock4"],
        [12, 10, 9, 8],
    ),
    "EfficientNet": (
        lambda: models.EfficientNet(
            [MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), MBConvConfig(2, 3, 2, 8, 16, 2, 1.0, 1.0)], 0.1, num_classes=3
        ),
        16,
        ["features.1", "features.2"],
        [8, 16],
    ),
    "MobileNetV2": (
        lambda: models.MobileNetV2(
            num_classes=3, inverted_residual_setting=[[1, 8, 1, 1], [2, 8, 2, 2], [2, 16, 1, 1], [2, 24, 1, 2]]
        ),
        16,
        ["features.1", "features.4", "features.5"],
        [8, 16, 24],
    ),
    "MobileNetV3": (
        lambda: models.MobileNetV3(
            [v3(8, 3, 8, 8, False, "RE", 1, 1), v3(8, 3, 16, 16, True, "HS", 2, 1)], 16, num_classes=3
        ),
        16,
        ["features.1", "features.2"],
        [8, 16],
    ),
    "RegNet": (
        lambda: models.RegNet(BlockParams([1, 1], [8, 16], [4, 4], [1, 1], [2, 2]), num_classes=3, stem_width=4),
        16,
        ["trunk_output.block1", "trunk_output.block2"],
        [8, 16],
    ),
    "ShuffleNetV2": (
        lambda: models.ShuffleNetV2([1, 1, 1], [8, 8, 16, 24, 32], num_classes=3),
        32,
        ["stage2", "stage3", "stage4"],
        [8, 16, 24],
    ),
    "ConvNeXt": (
        lambda: models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3),
        16,
        ["features.1", "features.3"],
        [8, 16],
    ),
    "VisionTransformer": (
        lambda: models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3),
        16,
        ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"],
        [8, 8],
    ),
    "SwinTransformer": (
        lambda: models.SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=3),
        16,
        ["features.1", "features.3"],
        [8, 16],
    ),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    """Name, network with random weights, images, layers that should be chosen, their widths."""
    build, side, layers, widths = FAMILIES[request.param]
    torch.manual_seed(0)
    return request.param, build().eval(), torch.rand(5, 3, side, side), layers, widths


def assert_equal_to_rounding(codes, expected):
    """Equal within a few units of the last digit of the largest number."""
    np.testing.assert_allclose(codes, expected, rtol=1e-5, atol=2e-5 * float(expected.abs().max()))


def plain_outputs(model, images, layers):
    """What each layer returns in a plain forward pass."""
    seen = {}
    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda m, i, out, layer=layer: seen.update({layer: out.clone()})
        )
        for layer in layers
    ]
    with torch.no_grad():
        logits = model(images)
    for handle in handles:
        handle.remove()
    return seen, logits


def test_auto_captures_the_composite_layers_of_each_family(family):
    name, model, images, layers, widths = family
    pool = "tokens" if name == "VisionTransformer" else "mean"
    codes = nf.capture(model, images, layers="auto", pool=pool, batch_size=2)
    assert list(codes) == layers
    assert codes.chosen.startswith(f"{name}: ")
    assert f"chosen: {name}" in repr(codes)
    assert [codes[layer].shape for layer in layers] == [(5, width) for width in widths]
    outputs, logits = plain_outputs(model, images, layers)
    for layer, output in outputs.items():
        axes = {"VisionTransformer": 1, "SwinTransformer": (1, 2)}.get(name, (2, 3))
        assert_equal_to_rounding(codes[layer], output.mean(axes))
    assert_equal_to_rounding(codes.logits, logits)


def test_spatial_codes_of_each_family_are_the_channels_at_each_position(family):
    name, model, images, layers, widths = family
    codes = nf.capture(model, images, layers=layers[-1], pool="spatial")[layers[-1]]
    output = plain_outputs(model, images, layers)[0][layers[-1]]
    if name not in ("VisionTransformer", "SwinTransformer"):
        output = output.permute(0, 2, 3, 1)
    assert_equal_to_rounding(codes, output.reshape(-1, widths[-1]))


def test_auto_finds_the_layers_of_the_shipped_networks():
    for name in ("resnet", "vgg"):
        choice = auto_layers(nf.load_model(name, pretrained=False))
        assert choice.layers == ("layer1", "layer2", "layer3", "layer4")
    assert str(choice) == "PlainConvNet: composite layers"


def test_auto_looks_inside_a_wrapper():
    net = nn.Sequential()
    net.add_module("body", FAMILIES["VGG"][0]())
    assert auto_layers(net).layers == ("body.features.1", "body.features.6")
    assert auto_layers(nn.DataParallel(net)).layers == ("module.body.features.1", "module.body.features.6")


@pytest.mark.parametrize(("n_blocks", "expected"), [(12, [2, 5, 8, 11]), (5, [0, 1, 2, 4]), (3, [0, 1, 2]), (1, [0])])
def test_a_stack_of_blocks_is_read_behind_its_quarters(n_blocks, expected):
    vit = models.VisionTransformer(16, 8, n_blocks, 2, 8, 16, num_classes=3)
    assert auto_layers(vit).layers == tuple(f"encoder.layers.encoder_layer_{i}" for i in expected)


@pytest.mark.parametrize("layer", ["features.1.0.block.2", "features.1.0.block.3", "features.1.0.block.4"])
def test_channels_on_the_last_axis_inside_a_convnext_block(layer):
    """LayerNorm, Linear and the GELU behind it see (n, height, width, channels) there."""
    torch.manual_seed(0)
    model = FAMILIES["ConvNeXt"][0]().eval()
    images = torch.rand(2, 3, 16, 16)
    codes = nf.capture(model, images, layers=layer)
    output = plain_outputs(model, images, [layer])[0][layer]
    assert_equal_to_rounding(codes[layer], output.mean((1, 2)))
    assert codes.shapes[layer] == (output.shape[3], *output.shape[1:3])


def test_what_lies_on_which_axis():
    swin, convnext = FAMILIES["SwinTransformer"][0](), FAMILIES["ConvNeXt"][0]()
    assert not has_channels_last_axis(swin, "features.0.0")
    assert all(has_channels_last_axis(swin, layer) for layer in ("features.0", "features.2", "features.1.0", "norm"))
    assert not has_channels_last_axis(swin, "permute")
    assert not any(has_channels_last_axis(convnext, f"features.1.0.block.{i}") for i in (0, 6))
    assert not has_channels_last_axis(nf.load_model("resnet", pretrained=False), "layer4")


def test_unknown_architecture_is_refused_with_its_modules(tiny_net):
    with pytest.raises(ValueError, match=r"layers=\"auto\" expects .* got Sequential; name its layers, .*'expand'"):
        auto_layers(tiny_net)


def test_unwrap_refuses_what_cannot_be_hooked(tiny_net):
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
        unwrap(lambda x: x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates it
        traced = torch.jit.trace(tiny_net.eval(), torch.zeros(1, 1, 2, 2))
    with pytest.raises(TypeError, match=r"got TorchScript .*pass the module that it was made from"):
        nf.capture(traced, torch.zeros(1, 1, 2, 2), layers="expand")
