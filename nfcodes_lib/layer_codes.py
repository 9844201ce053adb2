"""The codes of a capture: a mapping from layer names to arrays, in memory or on disk.

On disk it is a folder: one ``.npy`` file a layer, one for the logits, and ``codes.json``, which names them. A folder is
written under a temporary name and renamed when complete, so a name that exists is a capture that ended well. Nothing
is pickled.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .models import nearest

FORMAT = "nfcodes layer codes, version 1"
LOGITS = "logits.npy"


@dataclass(frozen=True, eq=False)
class LayerCodes(Mapping):
    """Codes of several layers for the same images; ``codes["layer4"]`` is an array.

    Attributes
    ----------
    arrays : dict of str to ndarray, float32, shape (n_samples, n_units)
        With ``pool="spatial"``, n_samples * height * width rows, image by image, row by row.
    logits : ndarray, float32, shape (n_samples, n_classes)
        What the model answered on the same pass.
    shapes : dict of str to tuple of int
        Shape of one image's activation before pooling, for example (128, 4, 4).
    pool : str
        How activations became codes; see :func:`nfcodes_lib.capture`.
    """

    arrays: dict[str, np.ndarray]
    logits: np.ndarray
    shapes: dict[str, tuple[int, ...]]
    pool: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they were asked for."""
        return tuple(self.arrays)

    @property
    def predictions(self) -> np.ndarray:
        """The model's answers: index of the largest logit, int64, shape (n_samples,)."""
        return np.asarray(self.logits).argmax(1)

    def __getitem__(self, layer: str) -> np.ndarray:
        try:
            return self.arrays[layer]
        except KeyError:
            raise KeyError(
                f"layer must be one of {list(self.arrays)}, got {layer!r}{nearest(layer, self.arrays)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{layer}: {array.shape[0]} × {array.shape[1]}" for layer, array in self.arrays.items())
        return f"LayerCodes({sizes}; pool={self.pool!r})"

    def save(self, path: str | Path) -> Path:
        """Write the codes to the folder `path`, which must not exist yet; returns the path.

        Raises
        ------
        FileExistsError
            If `path` exists; nothing is overwritten.
        """
        with CodesWriter(path, layers=self.layers, pool=self.pool) as writer:
            codes = {layer: torch.from_numpy(np.array(array)) for layer, array in self.arrays.items()}
            writer.write(codes, torch.from_numpy(np.array(self.logits)), shapes=self.shapes)
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
        logits = _open_array(path, LOGITS)
        if meta["pool"] != "spatial":
            for layer, array in arrays.items():
                if len(array) != len(logits):
                    raise ValueError(f"expected {len(logits)} rows for layer {layer!r} in {path}, got {len(array)}")
        return cls(arrays, logits, shapes, meta["pool"])


class CodesWriter:
    """Collects batches of codes, in memory (``out=None``) or appended to files of a folder; a context manager.

    Parameters
    ----------
    out : path or None
        Final name of the folder. Everything is written to a temporary folder beside it, which :meth:`finish` renames;
        leaving the block before that removes it.
    layers : tuple of str
    pool : str
    """

    def __init__(self, out: str | Path | None, *, layers: tuple[str, ...], pool: str):
        self.out = None if out is None else Path(out)
        self.layers, self.pool = layers, pool
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.files = {layer: _file_name(i, layer) for i, layer in enumerate(layers)}
        self._sinks: dict[str, _MemorySink | _FileSink] = {}
        self._folder: Path | None = None

    def __enter__(self) -> CodesWriter:
        if self.out is not None:
            if self.out.exists():
                raise FileExistsError(f"expected a new folder, but {self.out} exists; remove it or choose another name")
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", dir=self.out.parent))
        return self

    def __exit__(self, *exception) -> None:
        for sink in self._sinks.values():
            sink.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(
        self, codes: dict[str, torch.Tensor], logits: torch.Tensor, *, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        """Append one batch: codes and logits as float tensors, and the shape of one activation of each layer."""
        if self.shapes and self.shapes != shapes:
            raise ValueError(
                f"expected activations of one shape, {self.shapes}, got {shapes} in a later batch; resize the images"
            )
        self.shapes = dict(shapes)
        for name, rows in {**codes, LOGITS: logits}.items():
            array = rows.detach().to(device="cpu", dtype=torch.float32).numpy()
            if name not in self._sinks:
                file = LOGITS if name == LOGITS else self.files[name]
                self._sinks[name] = _MemorySink() if self._folder is None else _FileSink(self._folder / file)
            self._sinks[name].append(array)

    def finish(self) -> LayerCodes:
        """Close the files, give the folder its final name, and return the codes."""
        if not self._sinks:
            raise ValueError("expected at least one image, got none")
        arrays = {name: sink.close() for name, sink in self._sinks.items()}
        if self._folder is None:
            logits = arrays.pop(LOGITS)
            return LayerCodes({layer: arrays[layer] for layer in self.layers}, logits, self.shapes, self.pool)
        entries = [{"layer": name, "file": self.files[name], "shape": self.shapes[name]} for name in self.layers]
        meta = {"format": FORMAT, "pool": self.pool, "layers": entries}
        (self._folder / "codes.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        self._folder.chmod(0o755)
        self._folder.rename(self.out)
        self._folder = None
        return LayerCodes.load(self.out)


class _MemorySink:
    """Batches kept in a list, joined at the end."""

    def __init__(self):
        self._batches: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        self._batches.append(np.array(rows))

    def close(self) -> np.ndarray | None:
        batches, self._batches = self._batches, []
        return np.concatenate(batches) if batches else None


class _FileSink:
    """Batches appended to an npy file, whose header is written again at the end, when the number of rows is known."""

    def __init__(self, path: Path):
        self._stream = open(path, "wb")  # noqa: SIM115 - closed by close(), which the writer calls however it ends
        self._n_rows, self._n_columns = 0, None

    def append(self, rows: np.ndarray) -> None:
        if self._n_columns is None:
            self._n_columns = rows.shape[1]
            self._write_header()
        self._stream.write(np.ascontiguousarray(rows).tobytes())
        self._n_rows += len(rows)

    def _write_header(self) -> None:
        self._stream.seek(0)
        shape = (self._n_rows, self._n_columns)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}  # numpy pads the header so that rows can grow
        np.lib.format.write_array_header_1_0(self._stream, header)

    def close(self) -> None:
        if not self._stream.closed:
            self._write_header()
            self._stream.close()


def _file_name(index: int, layer: str) -> str:
    """A file name for a layer: its index makes it unique, its name makes it readable."""
    return f"{index:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)}.npy"


def _read_meta(path: Path) -> dict:
    """The content of codes.json, checked for everything that :meth:`LayerCodes.load` uses."""
    file = path / "codes.json"
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"the format {meta['format']!r}")
        for entry in meta["layers"]:
            if Path(entry["file"]).name != entry["file"] or not entry["file"].endswith(".npy"):
                raise ValueError(f"the file name {entry['file']!r}")
            _ = entry["layer"], [int(size) for size in entry["shape"]]
        _ = meta["pool"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected the description of a complete capture in {file}, got {error}; capture again"
        ) from None
    return meta


def _open_array(path: Path, name: str) -> np.ndarray:
    """Memory-map one float32 matrix of the folder."""
    try:
        array = np.load(path / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"expected a complete npy file at {path / name}, got {error}; capture again") from None
    if array.dtype != np.float32 or array.ndim != 2:
        raise ValueError(f"expected a float32 matrix in {path / name}, got {array.dtype} {array.shape}; capture again")
    return array
