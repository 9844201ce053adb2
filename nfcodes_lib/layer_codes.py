"""The codes of a capture: a mapping from layer names to arrays, in memory or on disk.

On disk it is a folder: one ``.npy`` file a layer, one for the logits, and ``codes.json``, which names them. A folder is
written under a temporary name and renamed when complete, so a name that exists is a capture that ended well. Nothing
is pickled, and nothing is believed that the files' own sizes do not bear out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ._codes_writer import DESCRIPTION, FORMAT, LOGITS, CodesWriter, blocks
from ._names import did_you_mean

SAVED_AT_ONCE = 2**22  # bytes of a layer that are copied in one step
LONGEST_DESCRIPTION = 2**24  # bytes


@dataclass(frozen=True, eq=False)
class LayerCodes(Mapping):
    """Codes of several layers for the same images; ``codes["layer4"]`` is an array.

    Attributes
    ----------
    arrays : dict of str to ndarray, float32, shape (n_samples, n_units)
        With ``pool="spatial"``, n_samples * height * width rows, image by image, row by row; :meth:`positions` says
        which row is which.
    logits : ndarray, float32, shape (n_samples, n_classes), or None
        What the model answered on the same pass; None if captured with ``logits=False``.
    shapes : dict of str to tuple of int
        Shape of one image's activation before pooling, for example (128, 4, 4), channels first.
    pool : str
        How activations became codes; see :func:`nfcodes_lib.capture`.
    precision : str
        Name of the dtype in which the network computed.
    chosen : str
        What ``layers="auto"`` took the model for, and the layers to be; empty if they were named.
    """

    arrays: dict[str, np.ndarray]
    logits: np.ndarray | None
    shapes: dict[str, tuple[int, ...]]
    pool: str
    precision: str = "float32"
    chosen: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they were asked for."""
        return tuple(self.arrays)

    @property
    def predictions(self) -> np.ndarray:
        """The model's answers: index of the largest logit, int64, shape (n_samples,)."""
        if self.logits is None:
            raise ValueError("expected logits, but these codes were captured with logits=False; capture them again")
        return np.asarray(self.logits).argmax(1)

    def __getitem__(self, layer: str) -> np.ndarray:
        try:
            return self.arrays[layer]
        except KeyError:
            raise KeyError(
                f"layer must be one of {list(self.arrays)}, got {layer!r}{did_you_mean(layer, self.arrays)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{layer}: {array.shape[0]} × {array.shape[1]}" for layer, array in self.arrays.items())
        precision = "" if self.precision == "float32" else f", precision={self.precision!r}"
        chosen = f"; chosen: {self.chosen}" if self.chosen else ""
        return f"LayerCodes({sizes}; pool={self.pool!r}{precision}{chosen})"

    def positions(self, layer: str, rows=None) -> np.ndarray:
        """Where each row of ``codes[layer]`` was: which image, and which position of its feature map.

        Parameters
        ----------
        layer : str
        rows : array-like of int, optional
            Only these rows; None means all.

        Returns
        -------
        ndarray, int64, shape (n_rows, 3), (n_rows, 2) or (n_rows, 1)
            With ``pool="spatial"``: image, row and column of a feature map, or image and token. Else the image alone.

        Raises
        ------
        ValueError
            If a row is not one of the layer's.

        Examples
        --------
        >>> import nfcodes_lib as nf
        >>> images, _ = nf.load_images("test", n_samples=8)
        >>> codes = nf.capture(nf.load_model("resnet"), images, layers="layer4", pool="spatial")
        >>> codes["layer4"].shape, codes.positions("layer4", [0, 17])
        ((128, 128), array([[0, 0, 0],
               [1, 0, 1]]))
        """
        n_rows = len(self[layer])
        rows = np.arange(n_rows) if rows is None else np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= n_rows):
            raise ValueError(f"rows must lie in [0, {n_rows}) for layer {layer!r}, got {rows.min()} to {rows.max()}")
        grid = _grid(self.shapes[layer], self.pool)
        return np.stack(np.unravel_index(rows, (n_rows // math.prod(grid), *grid)), axis=1).astype(np.int64)

    def save(self, path: str | Path) -> Path:
        """Write the codes to the folder `path`, which must not exist yet; returns the path.

        Raises
        ------
        FileExistsError
            If `path` exists; nothing is overwritten.
        """
        about = {"pool": self.pool, "precision": self.precision, "chosen": self.chosen}
        arrays = self.arrays if self.logits is None else {**self.arrays, LOGITS: self.logits}
        n_blocks = 1 + max(array.nbytes for array in arrays.values()) // SAVED_AT_ONCE
        with CodesWriter(path, about=about, settings={}, keep=False) as writer:
            for parts in zip(*(blocks(array, n_blocks) for array in arrays.values()), strict=True):
                rows = {name: torch.from_numpy(np.array(part)) for name, part in zip(arrays, parts, strict=True)}
                writer.write(rows, shapes=self.shapes, n_images=0)
            writer.finish()
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> LayerCodes:
        """Open a folder written by :meth:`save` or by ``capture(out=…)``; arrays are memory-mapped, read-only.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If the folder does not hold a complete capture: the message names the file.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(
                f"expected a folder of layer codes at {path}, found none; capture with out={str(path)!r}"
            )
        meta = _read_meta(path)
        arrays = {entry["layer"]: _open_array(path, entry["file"]) for entry in meta["layers"]}
        shapes = {entry["layer"]: tuple(entry["shape"]) for entry in meta["layers"]}
        logits = _open_array(path, LOGITS) if meta["logits"] else None
        n_images = len(logits) if logits is not None else None
        for layer, array in arrays.items():
            per_image = math.prod(_grid(shapes[layer], meta["pool"]))
            n_images = len(array) // per_image if n_images is None else n_images
            if len(array) != n_images * per_image:
                raise ValueError(
                    f"expected {n_images * per_image} rows for layer {layer!r} in {path}, got {len(array)}; "
                    "capture again"
                )
        return cls(arrays, logits, shapes, meta["pool"], meta["precision"], meta["chosen"])


def _grid(shape: tuple[int, ...], pool: str) -> tuple[int, ...]:
    """Positions that are rows of their own: (height, width) or (tokens,) with pool="spatial", else none."""
    if pool != "spatial" or len(shape) == 1:
        return ()
    return shape[1:] if len(shape) == 3 else shape[:1]


def _read_meta(path: Path) -> dict:
    """The content of codes.json, checked for everything that :meth:`LayerCodes.load` uses."""
    file = path / DESCRIPTION
    try:
        if file.stat().st_size > LONGEST_DESCRIPTION:
            raise ValueError(f"{file.stat().st_size:,} bytes")
        meta = {"logits": True, "precision": "float32", "chosen": ""} | json.loads(file.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"the format {meta['format']!r}")
        for entry in meta["layers"]:
            if Path(entry["file"]).name != entry["file"] or not entry["file"].endswith(".npy"):
                raise ValueError(f"the file name {entry['file']!r}")
            sizes = entry["shape"]
            if not 1 <= len(sizes) <= 3 or not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError(f"the shape {sizes!r} of {entry['layer']!r}")
        names = [entry["layer"] for entry in meta["layers"]]
        texts = [*names, meta["pool"], meta["precision"], meta["chosen"]]
        if not names or len(set(names)) < len(names) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"the layers {names!r}, pool {meta['pool']!r}, precision {meta['precision']!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"expected the description of a complete capture in {file}, got {error}; capture again"
        ) from None
    return meta


def _open_array(path: Path, name: str) -> np.ndarray:
    """Memory-map one float32 matrix of the folder."""
    file = path / name
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # a damaged header can make numpy's parser raise nearly anything
        raise ValueError(f"expected a complete npy file at {file}, got {error}; capture again") from None
    if array.dtype != np.float32 or array.ndim != 2:
        raise ValueError(f"expected a float32 matrix in {file}, got {array.dtype} {array.shape}; capture again")
    if file.stat().st_size != array.offset + array.nbytes:
        raise ValueError(
            f"expected a complete npy file at {file}, got {file.stat().st_size - array.offset:,} bytes where its "
            f"header states {array.nbytes:,}; capture again"
        )
    return array
