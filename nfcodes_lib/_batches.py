"""Batches of images from whatever holds them, and this process's share of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset


class Batches:
    """This process's images in numbered batches.

    Parameters
    ----------
    images : torch.Tensor, ndarray, Dataset or DataLoader
        As in :func:`nfcodes_lib.capture`.
    batch_size : int
        Ignored for a DataLoader, whose batches are taken as they come.

    Attributes
    ----------
    n_images, n_batches : int or None
        None if unknown.
    """

    def __init__(self, images, batch_size: int):
        self.loader = images if isinstance(images, DataLoader) else None
        if self.loader is not None:
            self.batch_size = self.loader.batch_size
            self.n_batches = _length(self.loader)
            self.n_images = None if self.n_batches is None else _length(self.loader.dataset)
            return
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive int, got {batch_size!r}")
        self.batch_size = int(batch_size)
        if isinstance(images, np.ndarray):
            images = _tensor(images)
        if not isinstance(images, torch.Tensor | Dataset):
            raise TypeError(
                f"images must be a tensor, an array, a Dataset or a DataLoader, got {type(images).__name__}"
            )
        rank, world_size = rank_and_world_size()
        n_all = _length(images)
        if n_all is None:
            raise TypeError(f"images must have a length, got {type(images).__name__} without one; use a DataLoader")
        start, stop = n_all * rank // world_size, n_all * (rank + 1) // world_size
        if start == stop:
            raise ValueError(f"expected at least one image for each process, got {n_all} for {world_size}")
        self.images = images[start:stop] if isinstance(images, torch.Tensor) else Subset(images, range(start, stop))
        self.n_images = stop - start
        self.n_batches = -(-self.n_images // self.batch_size)

    def batches(self, again: Iterable[int] = (), *, start: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (number, images), checked, of the batches in `again` and of all from `start` on."""
        for number, batch in self._numbered(sorted(again), start):
            yield number, _checked(batch)

    def _numbered(self, again: list[int], start: int) -> Iterator[tuple[int, object]]:
        if self.loader is not None:
            yield from (
                (number, batch) for number, batch in enumerate(self.loader) if number in again or number >= start
            )
            return
        numbers = [*again, *range(start, self.n_batches)]
        chunks = [range(n * self.batch_size, min((n + 1) * self.batch_size, self.n_images)) for n in numbers]
        if isinstance(self.images, torch.Tensor):
            batches = (self.images[chunk.start : chunk.stop] for chunk in chunks)
        else:
            batches = iter(DataLoader(self.images, batch_sampler=chunks))
        yield from zip(numbers, batches, strict=True)


def rank_and_world_size() -> tuple[int, int]:
    """Rank and number of processes of the initialised process group; (0, 1) without one."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _checked(batch) -> torch.Tensor:
    """The images of a batch: itself, or the first of a tuple or list."""
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"a batch must be a tensor or a tuple that begins with one, got {type(images).__name__}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floats, got {images.dtype}; convert them, e.g. images.float() / 255")
    if len(images) == 0:
        raise ValueError("expected at least one image in each batch, got none")
    return images


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"images must be floats, got an array of {array.dtype}; convert them to float32")
    return torch.from_numpy(np.ascontiguousarray(array) if any(s < 0 for s in array.strides) else array)


def _length(collection) -> int | None:
    try:
        return len(collection)
    except TypeError:  # an iterable data set of unknown length
        return None
