"""Independent pieces of work, spread over the cores: each worker computes its piece alone, from product to minimum.

Dividing every single matrix product among the cores, as torch does by itself, makes all of them wait for the slowest
at each step and leaves what is not parallel (numpy's argmin) to one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


class Workers:
    """As many threads as torch may use on a CPU, the caller's among them, and the caller's alone on other devices.

    Use as a context manager. While it is open, torch and numpy run each operation on one core: those of a worker on its
    own, and those of the caller too, since threads that torch keeps waiting would take turns with the workers.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device):
        self.n_threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool = None
        self._open = ExitStack()
        self._own = threading.local()

    def __enter__(self) -> Workers:
        if self.n_threads > 1:
            self._open.enter_context(blas_libraries().limit(limits=1, user_api="blas"))
            self._open.callback(torch.set_num_threads, self.n_threads)
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self.n_threads - 1, initializer=torch.set_num_threads, initargs=(1,))
            self._open.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *exception) -> None:
        self._open.close()
        self._pool = None

    def run(self, piece_of_work: Callable, pieces: Iterable) -> None:
        """Call ``piece_of_work(piece)`` for every piece, in any order; an exception in one is raised here."""
        pieces = list(pieces)
        waiting = iter(pieces)  # shared: each piece goes to whoever asks first

        def work():
            try:
                for piece in waiting:
                    piece_of_work(piece)
            finally:
                for _ in waiting:  # after an exception nothing is left for the others to begin
                    pass

        helpers = [self._pool.submit(work) for _ in range(min(self.n_threads, len(pieces)) - 1)] if self._pool else []
        try:
            work()
        finally:
            for helper in helpers:
                helper.result()

    def share(self, n: int, tile: int) -> int:
        """Size of the pieces into which to cut `n` things that are worked on in tiles.

        All pieces are about equal, so that no worker waits for another; there are more of them when there is much to
        do, as cores are not equally fast all the time.
        """
        per_worker = max(1, min(8, n // (8 * tile * self.n_threads)))
        return max(1, -(-n // (per_worker * self.n_threads)))

    def buffer(self, n_rows: int, n_columns: int, dtype: torch.dtype, device, *, name: str = "") -> torch.Tensor:
        """Uninitialised (n_rows, n_columns), from memory that the calling worker keeps, by name and dtype."""
        kept = self._own.__dict__.get((name, dtype))
        if kept is None or kept.numel() < n_rows * n_columns:
            kept = self._own.__dict__[name, dtype] = torch.empty(n_rows * n_columns, dtype=dtype, device=device)
        return kept[: n_rows * n_columns].view(n_rows, n_columns)


@cache
def blas_libraries() -> ThreadpoolController:
    """Those of this process; looked for once, which takes some milliseconds."""
    return ThreadpoolController()
