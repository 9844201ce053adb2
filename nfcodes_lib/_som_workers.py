"""Independent pieces of work, spread over the cores: each worker computes its piece alone, from product to minimum.

Dividing every single matrix product among the cores, as torch does by itself, makes all of them wait for the slowest
at each step and leaves what is not parallel (numpy's argmin) to one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch


class Workers:
    """As many threads as torch may use on a CPU, and none beside the caller's own on other devices.

    Use as a context manager. While it is open, torch runs each operation on one core: those of a worker on its own, and
    those of the caller too, since threads that torch keeps waiting would take turns with the workers.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device):
        self.n_threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool = None
        self._own = threading.local()

    def __enter__(self) -> Workers:
        if self.n_threads > 1:
            self._pool = ThreadPoolExecutor(self.n_threads, initializer=torch.set_num_threads, initargs=(1,))
            torch.set_num_threads(1)
        return self

    def __exit__(self, *exception) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self.n_threads)
            self._pool = None

    def run(self, piece_of_work: Callable, pieces: Iterable) -> None:
        """Call ``piece_of_work(piece)`` for every piece, in any order; an exception in one is raised here."""
        pieces = list(pieces)
        if self._pool is None or len(pieces) == 1:
            for piece in pieces:
                piece_of_work(piece)
        else:
            for _ in self._pool.map(piece_of_work, pieces):
                pass

    def even(self, n: int, most: int) -> int:
        """Size of the pieces, `most` or a little less, into which to cut `n` so that no worker waits for another."""
        rounds = -(-n // (most * self.n_threads))
        return max(1, -(-n // (rounds * self.n_threads)))

    def buffer(self, n_rows: int, n_columns: int, dtype: torch.dtype, device, *, name: str = "") -> torch.Tensor:
        """Uninitialised (n_rows, n_columns), from memory that the calling worker keeps, by name and dtype."""
        kept = self._own.__dict__.get((name, dtype))
        if kept is None or kept.numel() < n_rows * n_columns:
            kept = self._own.__dict__[name, dtype] = torch.empty(n_rows * n_columns, dtype=dtype, device=device)
        return kept[: n_rows * n_columns].view(n_rows, n_columns)
