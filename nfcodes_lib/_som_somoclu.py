"""somoclu (Wittek et al. 2017, doi:10.18637/jss.v078.i09) behind the same face as the torch rule, without its traps.

Each epoch is one call of somoclu's compiled ``train`` with ``nEpoch=1`` and the codebook passed on. That call, with
exponential cooling, uses exactly the radius it is given; a run of several epochs computes each radius in float32, and
can end just below the one asked for, whereupon the four direct neighbours of a BMU drop out. Nothing depends on the
clock, since the codebook is always given, and nothing is printed.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import cache

import numpy as np

from ._som_data import CenteredRows

KERNELS = {"cpu": 0, "gpu": 1}
INDEX_LIMIT = 2**31  # somoclu counts elements in 32-bit integers
NOT_INITIALISED = (1000.0, 2000.0)  # a codebook that begins so is replaced by somoclu with random numbers


@cache
def compiled_train():
    """somoclu's compiled function.

    Raises
    ------
    ImportError
        If somoclu or its binary is missing; names the remedies. (somoclu installs without its binary when that does
        not compile, and only prints a warning.)
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from somoclu.somoclu_wrap import train
    except ImportError as error:
        raise ImportError(
            f"backend='somoclu' needs somoclu's compiled binary, got {error!r}; build it with `python -m "
            "nfcodes_lib.somoclu_build cpu` (with a GPU: `make gpu`), or use backend='torch': it computes the same map"
        ) from error
    return train


@cache
def gpu_problem() -> str | None:
    """Why somoclu's GPU kernel cannot be used here, in somoclu's words; None if it can.

    Found out by letting it search the BMU of one sample.
    """
    try:
        _call(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), (1, 1), 0, 1.0, kernel="gpu")
    except RuntimeError as error:
        return str(error)
    return None


def choose_kernel(kernel: str) -> str:
    """``"cpu"`` or ``"gpu"``; ``"auto"`` takes the GPU kernel where it works.

    Raises
    ------
    RuntimeError
        If ``"gpu"`` is asked for and does not work; says how to get it.
    """
    if kernel == "cpu":
        return kernel
    problem = gpu_problem()
    if kernel == "auto":
        return "cpu" if problem else "gpu"
    if problem:
        raise RuntimeError(
            f"kernel='gpu' expected somoclu's GPU kernel and a CUDA device, got {problem!r}; build the kernel with "
            "`make gpu`, or use kernel='cpu', or backend='torch' with a device that torch finds"
        )
    return kernel


def train(
    rows: CenteredRows,
    codebook: np.ndarray,
    radii: list[float],
    shape: tuple[int, int],
    *,
    kernel: str,
    initial_state: bool,
    **options,
) -> Iterator[tuple[np.ndarray, np.ndarray | None, float]]:
    """Train a map; yield its state before the first epoch and after each, as :func:`_som_torch.train` does.

    Parameters
    ----------
    rows : CenteredRows
        float32 and in one block: somoclu wants all data in memory.
    codebook : ndarray, float32, shape (n_units, n_features)
        To start from; not modified.
    radii : list of float
    shape : tuple of int
        (n_rows, n_columns).
    kernel : {"cpu", "gpu"}
    initial_state : bool
        False leaves out the search in the first codebook, whose BMUs and error are then None and NaN.
    **options
        map_type, grid_type, neighborhood, compact_support, std_coeff.

    Raises
    ------
    ValueError
        If the data have more elements than somoclu can count.
    """
    ((_, block),) = rows.blocks()
    data = block.numpy()
    for what, array in (("data", data), ("codebook", codebook)):
        if array.size >= INDEX_LIMIT:
            raise ValueError(
                f"somoclu counts elements in 32 bits, so the {what} must have fewer than {INDEX_LIMIT:,}, got "
                f"{array.size:,}; use backend='torch', which has no such limit"
            )
    if initial_state or not radii:
        yield _state(data, codebook, _call(data, codebook, shape, 0, 1.0, kernel=kernel, **options)[1])
    else:
        yield codebook, None, float("nan")
    for radius in radii:
        codebook, bmus = _call(data, codebook, shape, 1, radius, kernel=kernel, **options)
        yield _state(data, codebook, bmus)


def _state(data, codebook, bmus):
    total = 0.0
    for start in range(0, len(data), step := max(1, 2**20 // data.shape[1])):
        difference = data[start : start + step] - codebook[bmus[start : start + step]]
        total += float(np.sqrt(np.einsum("nd,nd->n", difference, difference)).sum(dtype=np.float64))
    return codebook, bmus, total / len(data)


def _call(
    data: np.ndarray,
    codebook: np.ndarray,
    shape: tuple[int, int],
    n_epochs: int,
    radius: float,
    *,
    kernel: str = "cpu",
    map_type: str = "planar",
    grid_type: str = "rectangular",
    neighborhood: str = "gaussian",
    compact_support: bool = True,
    std_coeff: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Zero epochs or one at `radius`; returns the codebook (n_units, n_features) and each sample's BMU in it."""
    (n_rows, n_columns), (n_samples, n_features) = shape, data.shape
    weights = np.zeros(max(2, codebook.size), np.float32)  # somoclu looks at two numbers, however small the map
    weights[: codebook.size] = codebook.ravel()
    if (weights[0], weights[1]) == NOT_INITIALISED:
        weights[1] = np.nextafter(weights[1], np.float32(0))
    bmus = np.zeros(2 * n_samples, np.intc)
    u_matrix = np.zeros(n_rows * n_columns, np.float32)
    compiled_train()(
        data.ravel(), n_epochs, n_columns, n_rows, n_features, n_samples,
        radius, radius, "exponential", 1.0, 1.0, "exponential",
        KERNELS[kernel], map_type, grid_type, compact_support, neighborhood == "gaussian", std_coeff, 0,
        weights, bmus, u_matrix, "euclidean",
    )  # fmt: skip
    columns, rows = bmus.reshape(-1, 2).T.astype(np.int64)
    return weights[: codebook.size].reshape(codebook.shape), rows * n_columns + columns
