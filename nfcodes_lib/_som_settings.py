"""The settings of a SOM: what each may be, and the schedule of radii that follows from them."""

from __future__ import annotations

import numpy as np
import torch

from . import grids

CHOICES = {
    "backend": ("somoclu", "torch"),
    "kernel": ("auto", "cpu", "gpu"),
    "initialization": ("pca", "random"),
    "map_type": grids.MAP_TYPES,
    "grid_type": grids.GRID_TYPES,
    "neighborhood": ("gaussian", "bubble"),
    "radius_cooling": ("linear", "exponential"),
    "search_dtype": ("float32", "bfloat16", "int8"),
}


def radii(som) -> np.ndarray:
    """The radius of each epoch, float64; the last of a linear schedule is `radiusN` to the bit."""
    end = float(som.radiusN)
    start = max(min(som.n_rows, som.n_columns) / 2, end) if som.radius0 is None else float(som.radius0)
    epochs = np.arange(som.n_epochs)
    if som.radius_cooling == "exponential":
        return start * (end / start) ** (epochs / max(1, som.n_epochs))
    return start - epochs * (start - end) / max(1, som.n_epochs - 1)


def check_settings(som) -> None:
    """Raise ValueError, naming parameter, value and what it must be, if `som` cannot be trained as it is set."""
    for name, known in CHOICES.items():
        value = getattr(som, name)
        if name == "initialization" and isinstance(value, np.ndarray):
            continue
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {list(known)}, got {value!r}")
    grids.check_grid(som.n_rows, som.n_columns, som.map_type, som.grid_type)
    if not isinstance(som.n_epochs, int | np.integer) or isinstance(som.n_epochs, bool) or som.n_epochs < 0:
        raise ValueError(f"n_epochs must be an integer of at least 0, got {som.n_epochs!r}")
    for name in ("std_coeff", "radius0", "radiusN", "working_memory"):
        value = getattr(som, name)
        if name == "radius0" and value is None:
            continue
        if not np.isscalar(value) or isinstance(value, str) or not 0 < value < np.inf:
            raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    if som.backend == "somoclu" and som.search_dtype != "float32":
        raise ValueError(
            f"search_dtype must be 'float32' with backend='somoclu', got {som.search_dtype!r}; "
            "backend='torch' has the others"
        )
    if som.search_dtype == "int8" and torch.device(som.device).type != "cpu":
        raise ValueError(
            f"search_dtype='int8' must be on device='cpu', got device={som.device!r}; 'bfloat16' works on any"
        )


def check_device(som) -> None:
    """Raise ValueError if torch does not find the device (a loaded map may have been trained on another machine)."""
    try:
        torch.empty(0, device=som.device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that torch finds here, got {som.device!r} ({reason}); set_params(device='cpu') works"
        ) from None


def check_codebook(som) -> None:
    """Raise ValueError if the array given as `initialization` is no codebook for the data that `som` has seen."""
    codebook = som.initialization
    expected = (som.n_rows, som.n_columns, som.n_features_in_)
    if codebook.shape != expected:
        raise ValueError(f"initialization must be a codebook of shape {expected}, got {codebook.shape}")
    if not np.isfinite(codebook).all():
        raise ValueError("initialization must be a codebook of finite numbers, got NaN or infinity")
