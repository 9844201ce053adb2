"""One training run of a SOM: what `fit` does once its settings and data are known to be good, for either backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from . import _som_somoclu, _som_torch
from ._som_data import CenteredRows, Frame, measure_frame, pca_codebook, sampled_rows
from ._som_distributed import Ranks
from ._som_neighborhood import Neighborhood
from ._som_workers import Workers

State = tuple[np.ndarray, np.ndarray, float]  # codebook, BMUs and quantization error, in the frame of the data


@dataclass(frozen=True)
class Epoch:
    """The state of a map during training, as a callback of :meth:`SOM.fit` gets it."""

    index: int  # epochs trained so far; 0 is the initial codebook
    radius: float | None  # of the epoch that led here
    codebook: np.ndarray  # float32, (n_rows, n_columns, n_features)
    bmus: np.ndarray  # int64, (n_samples,): flat unit index of every sample's BMU in this codebook
    quantization_error: float


def train_map(
    som, x: np.ndarray, ranks: Ranks, callback: Callable[[Epoch], None] | None
) -> tuple[Frame, np.ndarray, np.ndarray, list[float]]:
    """Train the map that `som` describes.

    Parameters
    ----------
    som : SOM
        With valid settings and `radii_`; not modified.
    x : ndarray, float32 or float64, shape (n_samples, n_features)
    ranks : Ranks
    callback : callable, optional
        As for :meth:`SOM.fit`.

    Returns
    -------
    frame : Frame
    codebook : ndarray, float32, shape (n_units, n_features)
        In that frame.
    bmus : ndarray, int64, shape (n_samples,)
    history : list of float
        Quantization errors in the units of the data: of the initial codebook, and after each epoch.
    """
    with_torch = som.backend == "torch"
    with Workers(torch.device(som.device if with_torch else "cpu")) as workers:
        frame = measure_frame(x, ranks)
        rows = centered(som, x, frame)
        codebook = initial_codebook(som, x, rows, ranks, workers)
        if with_torch:
            return frame, *follow(som, torch_states(som, rows, codebook, ranks, workers), frame, callback)
    states = somoclu_states(som, rows, codebook, callback is not None)  # with all cores for its own threads
    return frame, *follow(som, states, frame, callback)


def centered(som, x: np.ndarray, frame: Frame) -> CenteredRows:
    """The data about their mean: with torch in the memory allowed, for somoclu whole."""
    if som.backend == "somoclu":
        return CenteredRows(x, frame, dtype=torch.float32, device="cpu", memory=4 * x.size * 4, ones=False)
    memory, int8 = int(som.working_memory * 2**20), som.search_dtype == "int8"
    return CenteredRows(x, frame, dtype=torch.float32, device=som.device, memory=memory, int8=int8)


def initial_codebook(som, x: np.ndarray, rows: CenteredRows, ranks: Ranks, workers: Workers) -> np.ndarray:
    """float32, (n_units, n_features), in the frame of `rows`."""
    seed = ranks.seed(som.random_state)
    if isinstance(som.initialization, np.ndarray):
        return rows.frame.inward(som.initialization.reshape(-1, rows.n_features).astype(x.dtype))
    if som.initialization == "pca":
        return pca_codebook(x, rows, (som.n_rows, som.n_columns), seed, ranks, workers)
    return sampled_rows(x, rows.frame, som.n_rows * som.n_columns, seed, ranks)


def follow(som, states: Iterator[State], frame: Frame, callback) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Let the training go on, tell `callback`; return the last codebook, its BMUs and all errors."""
    history = []
    for index, state in enumerate(tqdm(states, total=som.n_epochs + 1, desc="SOM", disable=not som.verbose)):
        codebook, bmus, error = state
        history.append(error * frame.scale)
        if callback is not None:
            radius = float(som.radii_[index - 1]) if index else None
            shown = frame.outward(codebook).reshape(som.n_rows, som.n_columns, -1)
            callback(Epoch(index, radius, shown, bmus.copy(), history[-1]))
    return codebook, bmus, history


def torch_states(som, rows: CenteredRows, codebook: np.ndarray, ranks: Ranks, workers: Workers) -> Iterator[State]:
    """The training by torch."""
    dtype = getattr(torch, som.search_dtype)
    if dtype is torch.int8 and (reason := why_not_int8(rows, ranks)):
        warnings.warn(f"search_dtype='int8' is not used, but 'float32': {reason}", stacklevel=4)
        dtype = rows.dtype
    neighborhood = Neighborhood(
        (som.n_rows, som.n_columns),
        function=som.neighborhood,
        compact_support=som.compact_support,
        std_coeff=som.std_coeff,
        map_type=som.map_type,
        grid_type=som.grid_type,
        device=rows.device,
    )
    settings = {"search_dtype": dtype, "ranks": ranks, "workers": workers}
    return _som_torch.train(rows, codebook, som.radii_.tolist(), neighborhood, **settings)


def why_not_int8(rows: CenteredRows, ranks: Ranks) -> str | None:
    """What speaks against searching in 8 bits on this machine and with these data, and what to do; None if nothing."""
    if _som_torch.too_coarse(rows, ranks):  # asked on every rank, whatever its processor
        return (
            "a few values are so much larger than the rest that rounding to 8 bits would lose too much of these data; "
            "scale the features, or use 'bfloat16'"
        )
    if not torch.cpu.get_capabilities().get("avx512_vnni"):  # without, torch multiplies such numbers one by one
        return "this processor has no instruction for products of 8-bit numbers (AVX512-VNNI)"
    return None


def somoclu_states(som, rows: CenteredRows, codebook: np.ndarray, initial_state: bool) -> Iterator[State]:
    """The training by somoclu."""
    if som.grid_type == "hexagonal":
        warnings.warn(
            "somoclu 1.7.6 computes wrong distances on hexagonal grids, so this map is not quite hexagonal; "
            "backend='torch' computes them right",
            stacklevel=4,
        )
    return _som_somoclu.train(
        rows,
        codebook,
        som.radii_.tolist(),
        (som.n_rows, som.n_columns),
        kernel=_som_somoclu.choose_kernel(som.kernel),
        initial_state=initial_state,
        map_type=som.map_type,
        grid_type=som.grid_type,
        neighborhood=som.neighborhood,
        compact_support=bool(som.compact_support),
        std_coeff=float(som.std_coeff),
    )
