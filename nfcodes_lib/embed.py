"""Cut the embedded images from the original files of Fashion-MNIST: ``python -m nfcodes_lib.embed [FOLDER]``.

FOLDER holds the four original ``*-ubyte.gz`` files (Debian's ``dataset-fashion-mnist`` by default). The test files are
copied as they are, byte for byte; of the training files the first 1,000 images of each class are kept, in their
original order. Running it again gives the same files.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from . import _assets, data

N_PER_CLASS = 1000
LICENSE = "MIT (Expat), copyright 2017 Zalando SE; see fashion_mnist/LICENSE"


def first_of_each_class(labels: np.ndarray, n_per_class: int) -> np.ndarray:
    """Sorted indices of the first `n_per_class` samples of every class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:n_per_class] for label in np.unique(labels)]))


def embed(folder: Path, assets: Path = _assets.ASSETS) -> None:
    """Write the four embedded files below `assets` from the originals in `folder`, and register their checksums."""
    names = [Path(name).name for split in data.SPLITS for name in data.idx_names(split)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"expected {missing} in {folder}; install Debian's dataset-fashion-mnist or name the originals' folder"
        )
    (assets / "fashion_mnist").mkdir(parents=True, exist_ok=True)
    for name in data.idx_names("test"):
        shutil.copyfile(folder / Path(name).name, assets / name)
        _assets.register(name, source="the original file, unchanged", license=LICENSE, root=assets)
    images, labels = (data.read_idx(folder / Path(name).name) for name in data.idx_names("train"))
    kept = first_of_each_class(labels, N_PER_CLASS)
    for name, array in zip(data.idx_names("train"), (images, labels), strict=True):
        data.write_idx(assets / name, array[kept])
        source = f"the first {N_PER_CLASS} samples of each class of the original training file"
        _assets.register(name, source=source, license=LICENSE, root=assets)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=data.DEBIAN_FOLDER)
    embed(parser.parse_args().folder)
