"""Sums over ranks: the only thing that a batch SOM on many machines needs.

Without a torch process group (or with one of a single rank) every method leaves its argument as it is, so the training
loop reads the same on a laptop and on a cluster.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from sklearn.utils import check_random_state


class Ranks:
    """The ranks that train one map together.

    Parameters
    ----------
    device : str or torch.device
        Where this rank computes. With the nccl backend it must be a CUDA device, since nccl moves nothing else.
    together : bool
        False leaves the other ranks out of it.
    """

    def __init__(self, device: str | torch.device = "cpu", *, together: bool = True):
        self.active = together and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.size = dist.get_world_size() if self.active else 1
        self.rank = dist.get_rank() if self.active else 0
        self.device = torch.device(device)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add `tensor` up over ranks; every rank gets the total."""
        return self._reduce(tensor, "SUM")

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over ranks."""
        return self._reduce(tensor, "MAX")

    def agree(self, problem: Exception | None, signature: tuple[int, ...]) -> None:
        """Go on only if no rank has a `problem` and all have the same `signature`; else every rank stops, none waits.

        Raises
        ------
        Exception
            This rank's own problem, as it is.
        RuntimeError
            If another rank has one; it names the rank.
        ValueError
            If the ranks' signatures differ.
        """
        if self.active:
            state = torch.zeros(self.size, 1 + len(signature), dtype=torch.int64, device=self.device)
            state[self.rank] = torch.tensor([problem is not None, *signature])
            state = self.sum(state).cpu()
            failed = torch.nonzero(state[:, 0]).ravel().tolist()
            if failed and problem is None:
                raise RuntimeError(f"rank {failed[0]} of {self.size} refused its data; its own error says why")
            if not failed and (state != state[0]).any():
                raise ValueError(
                    f"expected the same map and the same number of features on every rank, got {state[:, 1:].tolist()} "
                    "as (features, rows, columns, epochs) of ranks 0, 1, …"
                )
        if problem is not None:
            raise problem

    def seed(self, random_state) -> np.random.RandomState:
        """The generator that rank 0 makes of `random_state`, on every rank; so None too is one seed for all."""
        drawn = int(check_random_state(random_state).randint(2**31 - 1)) if self.rank == 0 else 0
        return np.random.RandomState(int(self.sum(torch.tensor(drawn, device=self.device))))

    def counts(self, n_samples: int) -> list[int]:
        """Number of samples on each rank."""
        counts = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        counts[self.rank] = n_samples
        return self.sum(counts).tolist()

    def _reduce(self, tensor: torch.Tensor, operation: str) -> torch.Tensor:
        if not self.active:
            return tensor
        try:
            dist.all_reduce(tensor, getattr(dist.ReduceOp, operation))
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {self.rank} of {self.size} lost contact while training the map: another rank ended or stopped "
                f"answering, and its own log says why. Start the job again. ({error})"
            ) from error
        return tensor
