"""Writes the codes of a capture batch by batch, so that a capture of any length can stop and go on.

Codes grow in a folder ``.NAME.partial`` beside the final one: one ``.npy`` file a layer and one for the logits, and
``progress.json``, a checkpoint that says how many rows of each belong to batches written in full. Every few seconds the
files are flushed to the disk and then the checkpoint is replaced, in one step. Whatever ends the process, the rows that
the last checkpoint counts are sound; who goes on cuts the files there and appends. The folder gets its final name when
all is written, so a name that exists is a capture that ended well.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from ._npy_file import NpyFile

FORMAT = "nfcodes layer codes, version 1"
LOGITS = "logits.npy"
DESCRIPTION, PROGRESS, LOCK = "codes.json", "progress.json", "lock"
CHECKPOINT_SECONDS = 5.0
SAME = 1e-3  # largest difference, relative to a layer's largest code, at which two captures count as the same
FREE_DISK = 1.02  # share of the codes' expected size that must be free


class CodesWriter:
    """Collects batches of codes, in memory (``out=None``) or appended to files of a folder; a context manager.

    Parameters
    ----------
    out : path or None
        Final name of the folder, which :meth:`finish` gives it.
    about : mapping
        What the description will say besides the layers: pool, precision and the like.
    settings : mapping
        What must be the same for a capture that goes on; with ``n_images``, None if unknown.
    resume : bool
        Go on with what an interrupted capture left; False removes it.
    keep : bool
        Keep what is written if the block ends with an error, for who may go on.

    Attributes
    ----------
    n_batches, n_images : int
        Written so far, those of an earlier capture included.
    shapes : dict of str to tuple of int
        Shape of one activation of each layer.

    Raises
    ------
    FileExistsError
        On entering, if `out` exists.
    ValueError
        On entering, if an interrupted capture with other settings is there.
    OSError
        On entering or writing, if the folder cannot be written.
    """

    def __init__(
        self, out: str | Path | None, *, about: Mapping, settings: Mapping, resume: bool = False, keep: bool = True
    ):
        self.out = None if out is None else Path(out)
        self.about, self.settings, self.resume, self.keep = dict(about), dict(settings), resume, keep
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.n_batches = self.n_images = 0
        self._sinks: dict[str, _MemorySink | NpyFile] = {}
        self._folder = None if self.out is None else self.out.with_name(f".{self.out.name}.partial")
        self._lock = None
        self._finished = False

    def __enter__(self) -> CodesWriter:
        if self.out is None:
            return self
        if self.out.exists() or self.out.is_symlink():
            raise FileExistsError(f"expected a new folder, but {self.out} exists; remove it or choose another name")
        with self._explained("make"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            self._lock = _locked(self._folder / LOCK)
        try:
            self._go_on() if self.resume else self._empty()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.out is None or self._finished:
            return
        with contextlib.suppress(OSError):  # the error that led here is the one to tell
            self._checkpoint()
        for sink in self._sinks.values():
            sink.close()
        if self.n_batches == 0 or not self.keep:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif error is not None:
            error.add_note(
                f"the codes of the first {self.n_images:,} images are kept in {self._folder}; the same capture goes on "
                "from there, with resume=False it starts over"
            )
        self._lock.close()

    def write(self, rows: Mapping[str, torch.Tensor], *, shapes: Mapping[str, tuple[int, ...]], n_images: int) -> None:
        """Append one batch: float32 tensors by layer (the logits as `LOGITS`), and the shape of one activation each."""
        if self.shapes and self.shapes != dict(shapes):
            raise ValueError(
                f"expected activations of one shape, {self.shapes}, got {dict(shapes)} in a later batch; "
                "resize the images"
            )
        for name, values in rows.items():
            if not torch.isfinite(values.sum(dtype=torch.float64)):  # of float32 it cannot overflow
                where = "logits" if name == LOGITS else f"codes of layer {name!r}"
                raise ValueError(
                    f"expected finite numbers, got NaN or infinity in the {where} within images "
                    f"{self.n_images} to {self.n_images + n_images - 1}; look for NaN in them or in the model's weights"
                )
        first = not self._sinks
        with self._explained("write"):
            for index, (name, values) in enumerate(rows.items()):
                if first:
                    self._sinks[name] = self._new_sink(index, name)
                self._sinks[name].append(values.numpy())
            self.shapes = dict(shapes)
            self.n_batches, self.n_images = self.n_batches + 1, self.n_images + n_images
            if first:
                self._check_free_disk()
            if time.monotonic() >= self._next_checkpoint:
                self._checkpoint()

    def compare(self, rows: Mapping[str, torch.Tensor], *, first: bool) -> None:
        """Raise ValueError unless `rows` are those of the first, or else the last, batch that is written already."""
        for name, values in rows.items():
            sink, values = self._sinks[name], values.numpy()
            kept = sink.rows(0 if first else sink.n_rows - len(values), len(values))
            if kept.shape != values.shape or np.abs(kept - values).max() > SAME * max(np.abs(kept).max(), 1e-12):
                raise ValueError(
                    f"expected the same model and images as in the interrupted capture {self._folder}, got other codes "
                    f"of its {'first' if first else 'last'} batch; pass resume=False to start over, or another `out`"
                )

    def finish(self) -> dict[str, np.ndarray] | None:
        """The arrays by name, if they are in memory; else give the folder its final name and return None."""
        if not self._sinks:
            raise ValueError("expected at least one image, got none")
        if self.out is None:
            return {name: sink.close() for name, sink in self._sinks.items()}
        with self._explained("finish"):
            for sink in self._sinks.values():
                sink.save()
                sink.close()
            layers = [name for name in self._sinks if name != LOGITS]
            entries = [{"layer": n, "file": self._sinks[n].path.name, "shape": self.shapes[n]} for n in layers]
            meta = {"format": FORMAT, **self.about, "logits": LOGITS in self._sinks, "layers": entries}
            _replace(self._folder / DESCRIPTION, json.dumps(meta, indent=2) + "\n")
            self._lock.close()
            for name in (PROGRESS, LOCK):
                (self._folder / name).unlink(missing_ok=True)
            self._folder.rename(self.out)
        self._finished = True
        return None

    # -- on disk ------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Open what an interrupted capture left, at its last checkpoint; start anew if it has none."""
        try:
            progress = json.loads((self._folder / PROGRESS).read_text(encoding="utf-8"))
            found = progress["settings"]
            shapes = {name: tuple(shape) for name, shape in progress["shapes"].items()}
            sizes = {name: (int(n_rows), int(n_columns)) for name, (n_rows, n_columns) in progress["sizes"].items()}
            n_batches, n_images = int(progress["n_batches"]), int(progress["n_images"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return self._empty()
        if found != json.loads(json.dumps(self.settings)):
            other = {
                name: (found.get(name), value) for name, value in self.settings.items() if found.get(name) != value
            }
            raise ValueError(
                f"expected the settings of the interrupted capture {self._folder}, got others, as (there, here): "
                f"{other}; pass resume=False to start over, or another `out`"
            )
        with self._explained("open"):
            for index, (name, (n_rows, n_columns)) in enumerate(sizes.items()):
                sink = NpyFile(self._folder / file_name(index, name))
                self._sinks[name] = sink
                if not sink.cut(n_rows, n_columns):
                    return self._empty()
        self.shapes, self.n_batches, self.n_images = shapes, n_batches, n_images
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        return None

    def _empty(self) -> None:
        """Remove what an earlier capture left in the folder."""
        for sink in self._sinks.values():
            sink.close()
        self._sinks = {}
        with self._explained("empty"):
            for path in self._folder.iterdir():
                if path.name != LOCK:
                    path.unlink()

    _next_checkpoint = 0.0  # the first batch is followed by one

    def _checkpoint(self) -> None:
        """Make what is written so far survive whatever comes."""
        if self._folder is None or not self.n_batches:
            return
        for sink in self._sinks.values():
            sink.save()
        progress = {
            "settings": self.settings,
            "shapes": self.shapes,
            "sizes": {name: (sink.n_rows, sink.n_columns) for name, sink in self._sinks.items()},
            "n_batches": self.n_batches,
            "n_images": self.n_images,
        }
        _replace(self._folder / PROGRESS, json.dumps(progress) + "\n")
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS

    def _new_sink(self, index: int, name: str) -> _MemorySink | NpyFile:
        return _MemorySink() if self._folder is None else NpyFile(self._folder / file_name(index, name))

    def _check_free_disk(self) -> None:
        """Raise OSError after the first batch if all batches will not fit."""
        n_images = self.settings.get("n_images")
        if self._folder is None or n_images is None:
            return
        written = sum(sink.n_rows * sink.n_columns * 4 for sink in self._sinks.values())
        needed = written * (n_images / self.n_images - 1) * FREE_DISK
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            self.n_batches = 0  # nothing worth keeping
            raise OSError(
                errno.ENOSPC, f"the codes need {needed / 1e9:,.1f} GB more, and {free / 1e9:,.1f} GB are free"
            )

    @contextlib.contextmanager
    def _explained(self, action: str):
        """Say in an OSError what could not be written, and what to do."""
        try:
            yield
        except BlockingIOError:
            raise OSError(
                errno.EBUSY, f"expected to be alone in writing {self.out}, but another process does; wait for it to end"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "make room, then capture again" if full else "choose a folder that can be written"
            raise OSError(
                error.errno, f"cannot {action} the codes of {self.out}: {reason}; {remedy}, or choose another `out`"
            ) from error


class _MemorySink:
    """Batches kept in a list, joined at the end."""

    def __init__(self):
        self._batches: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        self._batches.append(np.array(rows))

    def close(self) -> np.ndarray:
        batches, self._batches = self._batches, []
        return np.concatenate(batches)


def file_name(index: int, layer: str) -> str:
    """A file name for a layer: its index makes it unique, its name makes it readable."""
    if layer == LOGITS:
        return LOGITS
    return f"{index:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)[:100]}.npy"


def blocks(array: np.ndarray, n_blocks: int) -> Iterable[np.ndarray]:
    """Cut the rows of `array` into `n_blocks` consecutive parts."""
    ends = [len(array) * (i + 1) // n_blocks for i in range(n_blocks)]
    return (array[start:end] for start, end in zip([0, *ends], ends, strict=False))


def _replace(path: Path, text: str) -> None:
    """Write a small file in one step: it is whole or not there."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def _locked(path: Path):
    """Open a file and lock it, until it is closed or the process ends; BlockingIOError if another holds it."""
    stream = open(path, "w")  # noqa: SIM115 - closed by the writer
    try:
        import fcntl
    except ImportError:  # Windows
        return stream
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream
