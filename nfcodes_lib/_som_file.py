"""A trained map in one file: a ``.npz`` archive of plain arrays, read without pickle and checked entry by entry."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from ._som_settings import check_settings

FORMAT = "nfcodes-som"
VERSION = 1
ENTRIES = {  # name -> (kinds of dtype, number of axes)
    "codebook": ("f4", 3),
    "center": ("f4f8", 1),
    "labels": ("i8", 1),
    "history": ("f8", 1),
    "radii": ("f8", 1),
}
MEMBERS = {"header", "initialization", "feature_names", *ENTRIES}


def save(som, path: str | Path) -> Path:
    """Write a fitted :class:`nfcodes_lib.som.SOM`; see :meth:`SOM.save`."""
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    parameters = som.get_params()
    arrays = {name: getattr(som, name + "_") for name in ENTRIES}
    if isinstance(parameters["initialization"], np.ndarray):
        arrays["initialization"], parameters["initialization"] = parameters["initialization"], None
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None  # a generator has moved on since; its seed is not known
    if hasattr(som, "feature_names_in_"):
        arrays["feature_names"] = np.array([str(name) for name in som.feature_names_in_])
    header = {"format": FORMAT, "version": VERSION, "parameters": parameters}
    text = json.dumps(header, default=lambda value: value.item() if hasattr(value, "item") else str(value))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, header=np.array(text), **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def load(cls, path: str | Path):
    """Read what :func:`save` wrote; see :meth:`SOM.load`."""
    path = Path(path)
    try:
        _check_members(path)
        with np.load(path, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
            header = json.loads(str(entries.pop("header")))
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a saved map at {path}, found no file; SOM.save writes one") from None
    except (ValueError, KeyError, TypeError, EOFError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise _refuse(path, f"{type(error).__name__}: {error}") from None
    if header["version"] != VERSION:
        raise _refuse(path, f"version {header['version']} where this library reads {VERSION}; it may need an update")
    for name, (kinds, n_axes) in ENTRIES.items():
        if name not in entries:
            raise _refuse(path, f"no entry {name!r}")
        if entries[name].dtype.str[1:] not in kinds or entries[name].ndim != n_axes:
            raise _refuse(path, f"{name!r} of dtype {entries[name].dtype} and shape {entries[name].shape}")
    parameters = header["parameters"]
    if "initialization" in entries:
        parameters["initialization"] = entries["initialization"]
    try:
        som = cls(**parameters)
        check_settings(som)
    except (TypeError, ValueError) as error:
        raise _refuse(path, str(error)) from None
    codebook, labels = entries["codebook"], entries["labels"]
    n_units, n_features = som.n_rows * som.n_columns, codebook.shape[2]
    names = entries.get("feature_names")
    consistent = {
        "codebook": codebook.shape[:2] == (som.n_rows, som.n_columns)
        and n_features > 0
        and np.isfinite(codebook).all(),
        "center": entries["center"].shape == (n_features,) and np.isfinite(entries["center"]).all(),
        "labels": labels.size == 0 or (labels.min() >= 0 and labels.max() < n_units),
        "history": len(entries["history"]) == som.n_epochs,
        "radii": len(entries["radii"]) == som.n_epochs,
        "feature_names": names is None or (names.dtype.kind == "U" and names.shape == (n_features,)),
    }
    if not all(consistent.values()):
        wrong = [name for name, fine in consistent.items() if not fine]
        raise _refuse(path, f"{wrong} do not fit a map of {som.n_rows} x {som.n_columns} units")
    for name in ENTRIES:
        setattr(som, name + "_", entries[name])
    som.bmus_ = np.column_stack(np.divmod(labels, som.n_columns))
    som.n_features_in_, som.n_iter_, som._n_features_out = n_features, som.n_epochs, n_units
    if names is not None:
        som.feature_names_in_ = names.astype(object)
    return som


def _check_members(path: Path) -> None:
    """Raise ValueError if the archive holds what :func:`save` does not write, before any of it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    unknown = [member.filename for member in members if member.filename.removesuffix(".npy") not in MEMBERS]
    if unknown:
        raise ValueError(f"members {unknown} that no map has")
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        size = sum(member.file_size for member in members)
        raise ValueError(f"compressed members {packed}, which would unpack to {size:,} bytes")


def _refuse(path: Path, problem: str) -> ValueError:
    return ValueError(f"expected a map saved by SOM.save in {path}, got {problem}; save it again")
