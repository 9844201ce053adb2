"""The networks that the book reads: small enough to train on a laptop, real enough to be right nine times in ten.

Both families have four composite layers, ``layer1`` to ``layer4``, with 16, 32, 64 and 128 feature maps of 28, 14, 7
and 4 pixels a side, and about 0.3 million parameters. :class:`SmallResNet` adds a skip connection around every pair of
convolutions (He et al. 2015, arXiv:1512.03385); :class:`PlainConvNet` is the same network without them (after Simonyan
and Zisserman 2014, arXiv:1409.1556), which lets a chapter ask whether a finding is due to the skips.

The normalisation of the pixels is a part of the network, so that an image is always a float in [0, 1]: an attack that
may change a pixel by epsilon then means the same pixel for every network. All networks return logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import _assets
from ._names import did_you_mean
from .normalise import Normalise
from .pretrained import load_torchvision, torchvision_names

WIDTHS = (16, 32, 64, 128)
PIXEL_MEAN, PIXEL_STD = 0.2860, 0.3530  # of the 60,000 training images of Fashion-MNIST


def conv_bn(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, followed by the batch norm that makes a bias needless."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
    )


class ResidualBlock(nn.Module):
    """relu(f(x) + x): two convolutions, and a skip that is a 1 x 1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int):
        super().__init__()
        self.conv1 = conv_bn(n_in, n_out, stride=stride)
        self.conv2 = conv_bn(n_out, n_out)
        same = n_in == n_out and stride == 1
        self.skip = nn.Identity() if same else conv_bn(n_in, n_out, kernel=1, stride=stride)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in, h, w) to (n, n_out, h / stride, w / stride)."""
        return self.relu2(self.conv2(self.relu1(self.conv1(x))) + self.skip(x))


class PlainBlock(nn.Sequential):
    """Two convolutions and no skip."""

    def __init__(self, n_in: int, n_out: int, *, stride: int):
        super().__init__(conv_bn(n_in, n_out, stride=stride), nn.ReLU(), conv_bn(n_out, n_out), nn.ReLU())


class SmallConvNet(nn.Module):
    """Stem, four composite layers, average pooling, linear head.

    Parameters
    ----------
    block : type of nn.Module
        Called as ``block(n_in, n_out, stride=…)`` for each composite layer.
    n_classes : int

    Notes
    -----
    ``forward`` takes float images in [0, 1], shape (n, 1, h, w), and returns logits, shape (n, n_classes).
    """

    def __init__(self, block: type[nn.Module], n_classes: int = 10):
        super().__init__()
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.stem = nn.Sequential(conv_bn(1, WIDTHS[0]), nn.ReLU())
        self.layer1 = block(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = block(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = block(WIDTHS[1], WIDTHS[2], stride=2)
        self.layer4 = block(WIDTHS[2], WIDTHS[3], stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[3], n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 1, h, w) in [0, 1] to logits (n, n_classes)."""
        x = self.stem(self.normalise(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(self.pool(x))


class SmallResNet(SmallConvNet):
    """The residual network of the book."""

    def __init__(self, n_classes: int = 10):
        super().__init__(ResidualBlock, n_classes)


class PlainConvNet(SmallConvNet):
    """The same network without skip connections."""

    def __init__(self, n_classes: int = 10):
        super().__init__(PlainBlock, n_classes)


@dataclass(frozen=True)
class ModelCard:
    """What is known of a shipped network: how to build it and one line on how it was trained."""

    build: type[nn.Module]
    description: str


MODELS = {
    "resnet": ModelCard(SmallResNet, "residual network, standard training"),
    "vgg": ModelCard(PlainConvNet, "plain convolutional network, standard training"),
    "resnet-robust": ModelCard(SmallResNet, "residual network, trained on PGD adversarial examples"),
}


def load_model(
    name: str = "resnet",
    *,
    seed: int = 0,
    pretrained: bool = True,
    device: str = "cpu",
    weights: str | None = None,
    root: str | Path | None = None,
    download: bool = True,
) -> nn.Module:
    """Load one of the book's networks, or one of torchvision's, in eval mode.

    Parameters
    ----------
    name : str
        A key of ``MODELS``, or the name of a classifier of torchvision, such as ``"resnet18"`` (see
        :func:`nfcodes_lib.pretrained.load_torchvision`); only the latter take `weights`, `root` and `download`.
    seed : int
        Which training run (see :func:`available_models`). With ``pretrained=False``, the seed of the random
        initialisation; the untrained network of a seed is where its training run began.
    pretrained : bool
        False gives the same network untrained: the control for every claim about what training does.
    device : str or torch.device
    weights : str, optional
        Which of torchvision's weights, such as ``"IMAGENET1K_V1"``.
    root : path, optional
        Folder of the file of weights; torch.hub's if None.
    download : bool
        Fetch that file if it is not there.

    Returns
    -------
    torch.nn.Module
        Takes float32 images in [0, 1], of shape (n, 1, 28, 28) for the book's networks and (n, 3, height, width) for
        torchvision's; returns logits of shape (n, n_classes).

    Raises
    ------
    ValueError
        If `name` or `weights` is unknown, or no run with this `seed` is shipped.
    AssetError
        If a shipped file of weights is missing, truncated or altered.
    FileNotFoundError
        If torchvision's weights are not there and could not be downloaded.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> model = nf.load_model("resnet", seed=0)
    >>> sum(parameter.numel() for parameter in model.parameters())
    308538
    """
    if name not in MODELS:
        others = torchvision_names()
        if name not in others:
            raise ValueError(
                f"name must be one of {sorted(MODELS)} or a classifier of torchvision such as 'resnet18', "
                f"got {name!r}{did_you_mean(name, [*MODELS, *others])}"
            )
        options = {"weights": weights, "pretrained": pretrained, "root": root, "download": download}
        return load_torchvision(name, seed=seed, device=device, **options)
    if weights is not None:
        raise ValueError(f"weights must be None for the book's own {name!r}, got {weights!r}; seed says which run")
    model = build_model(name, seed=seed)
    if pretrained:
        seeds = available_models().get(name, ())
        if seed not in seeds:
            raise ValueError(
                f"seed must be one of {list(seeds)} for the trained {name!r}, got {seed!r}; "
                "pretrained=False takes any seed"
            )
        load_weights(model, _assets.asset_path(weights_name(name, seed)))
    return model.eval().to(device)


def build_model(name: str, *, seed: int) -> nn.Module:
    """The untrained network `name` initialised from `seed`; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name].build()


def available_models() -> dict[str, tuple[int, ...]]:
    """Name -> seeds of the trained networks that ship with the package."""
    found: dict[str, list[int]] = {}
    for asset in _assets.manifest():
        if asset.endswith(".safetensors"):
            name, _, seed = Path(asset).stem.rpartition("-seed")
            found.setdefault(name, []).append(int(seed))
    return {name: tuple(sorted(seeds)) for name, seeds in sorted(found.items())}


def weights_name(name: str, seed: int) -> str:
    """Asset name of the weights of one training run."""
    return f"weights/{name}-seed{seed}.safetensors"


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy a safetensors file of weights (any float dtype) into `model`, whose own dtypes are kept.

    Raises
    ------
    ValueError
        If the file is no safetensors file, or its names or shapes are not those of `model`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"expected a safetensors file at {path}, got {error}; pickled weights are never read"
        ) from None
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != wanted:  # compared first: load_state_dict copies what fits before it complains
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(f"expected the weights of {type(model).__name__} in {path}, got others in {wrong[:4]}")
    model.load_state_dict(state)
