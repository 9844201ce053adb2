"""Images to read a network with: embedded Fashion-MNIST, and torchvision's data sets for those with a network.

The package carries the 10,000 test images of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747; MIT licence) and the
first 1,000 training images of each class, in the original idx format, so that no chapter needs a download. Code and
data stay in step: every file is checked against its checksum when it is first read.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from . import _assets
from ._names import did_you_mean

DEFLATE_LIMIT = 1032  # bytes that one byte of a gzip file unpacks to, at most

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
SPLITS = {"train": "train", "test": "t10k"}
TORCHVISION = {
    "fashion_mnist": "FashionMNIST",
    "mnist": "MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def load_images(
    split: str = "test",
    *,
    source: str = "embedded",
    n_samples: int | None = None,
    random_state: int | None = None,
    root: str | Path = "~/.cache/nfcodes",
    download: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Load images and labels.

    Parameters
    ----------
    split : {"train", "test"}
    source : str
        ``"embedded"``: Fashion-MNIST as it ships with this package, 10,000 images in either split (the training split
        is class-balanced). ``"fashion_mnist"``: all 60,000 + 10,000 images, from Debian's package
        ``dataset-fashion-mnist`` where that is installed, else through torchvision. ``"mnist"``, ``"kmnist"``,
        ``"cifar10"``, ``"cifar100"``: through torchvision. For photographs of any size see
        :func:`nfcodes_lib.image_folders.open_images`.
    n_samples : int, optional
        Keep a random sample of this many images, drawn without replacement; None keeps all in the original order.
    random_state : int, optional
        Seed of that sample; 0 if None, so that two calls agree.
    root : path
        Where torchvision keeps its files; only used by sources other than ``"embedded"``.
    download : bool
        Let torchvision download what is not yet below `root`.

    Returns
    -------
    images : torch.Tensor, float32, shape (n, channels, height, width)
        Pixels in [0, 1].
    labels : torch.Tensor, int64, shape (n,)
        Class index; Fashion-MNIST's names are in ``CLASS_NAMES``.

    Raises
    ------
    ValueError
        If `split`, `source` or `n_samples` is not one of the values above.
    AssetError
        If an embedded file is missing, truncated or altered.
    FileNotFoundError
        If a torchvision data set is not below `root` and could not be downloaded.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, labels = nf.load_images("test", n_samples=64)
    >>> images.shape, images.dtype, labels.dtype
    (torch.Size([64, 1, 28, 28]), torch.float32, torch.int64)
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {sorted(SPLITS)}, got {split!r}{did_you_mean(split, SPLITS)}")
    if source == "embedded":
        pixels, labels = (read_idx(_assets.asset_path(name)) for name in idx_names(split))
        pixels = pixels[:, None]
    elif source == "fashion_mnist" and DEBIAN_FOLDER.is_dir():
        pixels, labels = (read_idx(DEBIAN_FOLDER / Path(name).name) for name in idx_names(split))
        pixels = pixels[:, None]
    elif source in TORCHVISION:
        pixels, labels = _from_torchvision(TORCHVISION[source], split, Path(root).expanduser(), download)
    else:
        known = ["embedded", *TORCHVISION]
        raise ValueError(f"source must be one of {known}, got {source!r}{did_you_mean(source, known)}")
    if n_samples is not None:
        if not 1 <= n_samples <= len(labels):
            raise ValueError(f"n_samples must be between 1 and {len(labels):,} for this split, got {n_samples!r}")
        chosen = np.random.default_rng(random_state or 0).choice(len(labels), n_samples, replace=False)
        pixels, labels = pixels[chosen], labels[chosen]
    return torch.tensor(pixels, dtype=torch.float32).div_(255), torch.from_numpy(labels.astype(np.int64))


def split_indices(
    n_samples: int, *, fractions: tuple[float, ...] = (0.5, 0.5), random_state: int = 0
) -> tuple[np.ndarray, ...]:
    """Cut ``range(n_samples)`` at random into disjoint parts: the one seeded split of the book.

    Parameters
    ----------
    n_samples : int
    fractions : tuple of float
        Share of each part; positive, and adding up to 1 or less (what is left over belongs to no part).
    random_state : int

    Returns
    -------
    tuple of ndarray, int64
        Sorted indices of each part.

    Raises
    ------
    ValueError
        If a fraction is not positive, they add up to more than 1, or a part would be empty.

    Examples
    --------
    >>> fit, judge = split_indices(10, fractions=(0.7, 0.3))
    >>> len(fit), len(judge), sorted({*fit} | {*judge}) == list(range(10))
    (7, 3, True)
    """
    if any(share <= 0 for share in fractions) or sum(fractions) > 1 + 1e-9:
        raise ValueError(f"fractions must be positive and add up to at most 1, got {fractions!r}")
    ends = np.round(np.cumsum(fractions) * n_samples).astype(int)
    starts = np.concatenate([[0], ends[:-1]])
    if (ends <= starts).any():
        raise ValueError(
            f"every part needs a sample, but {fractions!r} of {n_samples} leaves one empty; use more samples"
        )
    order = np.random.default_rng(random_state).permutation(n_samples)
    return tuple(np.sort(order[start:end]) for start, end in zip(starts, ends, strict=True))


def idx_names(split: str) -> tuple[str, str]:
    """Asset names of the image file and the label file of an embedded split."""
    prefix = f"fashion_mnist/{SPLITS[split]}"
    return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"


def read_idx(path: str | Path) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes (LeCun's format, as MNIST and its successors use it).

    Parameters
    ----------
    path : path
        Big-endian header: two zero bytes, 0x08 for uint8, the number of axes, then one uint32 per axis.

    Returns
    -------
    ndarray, uint8
        With the axes that the header states.

    Raises
    ------
    ValueError
        If the file is not gzip, not idx, not of bytes, or shorter or longer than its header says.
    """
    remedy = "fetch the file again"
    try:
        with gzip.open(path) as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\x00\x00\x08":
                raise ValueError(f"expected an idx file of unsigned bytes at {path}, got header {start!r}; {remedy}")
            axes = file.read(4 * start[3])
            shape = struct.unpack(f">{start[3]}I", axes) if len(axes) == 4 * start[3] else None
            expected = None if shape is None else math.prod(shape)
            # never more than the header promises, nor than a file of this size can hold
            most = 0 if expected is None else min(expected, DEFLATE_LIMIT * Path(path).stat().st_size)
            content = file.read(most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"expected a complete gzip file at {path}, got {error}; {remedy}") from None
    if len(content) != expected:
        got = f"more than {expected}" if expected is not None and len(content) > expected else len(content)
        raise ValueError(f"expected {shape} bytes after the header of {path}, got {got}; {remedy}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path: str | Path, array: np.ndarray) -> None:
    """Write a uint8 array as a gzipped idx file; equal arrays give equal files (no time stamp in the header)."""
    header = b"\x00\x00\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape)
    content = gzip.compress(header + np.ascontiguousarray(array, np.uint8).tobytes(), compresslevel=9, mtime=0)
    Path(path).write_bytes(content)


def _from_torchvision(name: str, split: str, root: Path, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, channels, height, width) uint8 and labels of one of torchvision's data sets."""
    from torchvision import datasets

    remedy = f"put its files below {root} as torchvision lays them out"
    try:
        dataset = getattr(datasets, name)(root, train=split == "train", download=download)
    except RuntimeError as error:
        hint = remedy if download else f"pass download=True, or {remedy}"
        raise FileNotFoundError(f"expected {name} below {root}: {error}; {hint}") from error
    except OSError as error:
        raise FileNotFoundError(f"could not download {name} to {root}: {error}; {remedy}") from error
    pixels = np.asarray(dataset.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels), np.asarray(dataset.targets)
