"""A matrix on disk that grows: an npy file whose header is written again whenever the number of rows is to be known.

Written without a buffer of our own, so that an error of the disk is raised where the rows were appended.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


class NpyFile:
    """A float32 matrix in an npy file, to which rows are appended.

    Parameters
    ----------
    path : Path
        Opened, and made if it is not there.

    Attributes
    ----------
    n_rows, n_columns : int
        As appended so far; `n_columns` is None before.
    """

    def __init__(self, path: Path):
        self.path = path
        self.n_rows, self.n_columns = 0, None
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        self._start = None  # where the rows begin

    def append(self, rows: np.ndarray) -> None:
        """Write rows, shape (n, n_columns), behind the last."""
        if self.n_columns is None:
            os.ftruncate(self._handle, 0)
            self.n_columns = rows.shape[1]
            self._write_header()
        os.lseek(self._handle, self._start + self.n_rows * self.n_columns * 4, os.SEEK_SET)
        self._write_all(memoryview(np.ascontiguousarray(rows, "<f4")).cast("B"))
        self.n_rows += len(rows)

    def rows(self, first: int, n_rows: int) -> np.ndarray:
        """Read rows back."""
        if first < 0 or first + n_rows > self.n_rows:
            return np.empty((0, 0), np.float32)
        os.lseek(self._handle, self._start + first * self.n_columns * 4, os.SEEK_SET)
        parts, missing = [], n_rows * self.n_columns * 4
        while missing and (part := os.read(self._handle, missing)):
            parts.append(part)
            missing -= len(part)
        return np.frombuffer(b"".join(parts), "<f4").reshape(n_rows, self.n_columns)

    def cut(self, n_rows: int, n_columns: int) -> bool:
        """Forget what was appended after the first `n_rows`; False if there are fewer."""
        self.n_rows, self.n_columns = n_rows, n_columns
        self._write_header()
        end = self._start + n_rows * n_columns * 4
        is_whole = os.fstat(self._handle).st_size >= end
        os.ftruncate(self._handle, end)
        return is_whole

    def save(self) -> None:
        """Flush to the disk, with a header that states the rows written."""
        if self.n_columns is not None:
            self._write_header()
            os.ftruncate(self._handle, self._start + self.n_rows * self.n_columns * 4)
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; what was written since :meth:`save` has no header that counts it."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None

    def _write_header(self) -> None:
        header = npy_header(self.n_rows, self.n_columns)
        os.lseek(self._handle, 0, os.SEEK_SET)
        self._write_all(memoryview(header))
        self._start = len(header)

    def _write_all(self, content: memoryview) -> None:
        while content:
            content = content[os.write(self._handle, content) :]


def npy_header(n_rows: int, n_columns: int) -> bytes:
    """Header of an npy file, version 1.0, of a float32 matrix; its length does not depend on the number of rows."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {n_columns}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
