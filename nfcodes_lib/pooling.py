"""What is kept of an activation: one vector per image, or one per position.

Feature maps, shape (n, channels, height, width), and sequences of tokens, shape (n, tokens, units), are reduced here to
matrices with one sample per row; a layer that gives one vector per image is kept as it is. Sums of half-precision
activations are taken in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from ._names import did_you_mean

POOLS = ("mean", "max", "none", "spatial", "cls", "tokens")
HALF = (torch.float16, torch.bfloat16)


def check_pool(pool: str | int) -> None:
    """Raise ValueError unless `pool` is one of `POOLS` or a positive int."""
    is_size = isinstance(pool, int) and not isinstance(pool, bool) and pool >= 1
    if not is_size and pool not in POOLS:
        hint = did_you_mean(pool, POOLS)
        raise ValueError(f"pool must be one of {list(POOLS)} or a positive int, got {pool!r}{hint}")


def pool_maps(activation: torch.Tensor, pool: str | int) -> torch.Tensor:
    """Reduce activations to codes, differentiably.

    Parameters
    ----------
    activation : torch.Tensor
        Feature maps of shape (n, channels, height, width), tokens of shape (n, tokens, units), or vectors of shape
        (n, units), which are returned as they are.
    pool : {"mean", "max", "none", "spatial", "cls", "tokens"} or int
        Of feature maps: their mean, their maximum, everything (flattened), every position as a row of its own, or the
        average over a k x k grid. Of tokens: the first, which is the class token of a vision transformer (``"cls"``),
        the mean over all of them (``"tokens"``), everything, or every token as a row of its own (``"spatial"``).

    Returns
    -------
    torch.Tensor
        Shape (n, channels), (n, channels * height * width), (n * height * width, channels) or (n, channels * k * k);
        of tokens (n, units), (n, tokens * units) or (n * tokens, units).

    Raises
    ------
    ValueError
        If `pool` does not fit the number of axes, or the maps are smaller than k x k.

    Examples
    --------
    >>> maps = torch.arange(8.0).reshape(1, 2, 2, 2)
    >>> pool_maps(maps, "mean"), pool_maps(maps, "spatial").shape
    (tensor([[1.5000, 5.5000]]), torch.Size([4, 2]))
    """
    if activation.ndim == 2:
        return activation
    if activation.ndim == 3:
        return _pool_tokens(activation, pool)
    if activation.ndim != 4:
        raise ValueError(
            "expected activations of shape (n, units), (n, tokens, units) or (n, channels, height, width), "
            f"got {tuple(activation.shape)}; name another layer"
        )
    if pool in ("cls", "tokens"):
        raise ValueError(
            f"pool={pool!r} expects a sequence of tokens, got feature maps of shape {tuple(activation.shape)}; "
            "pool='mean' averages each map"
        )
    if pool == "mean":
        return _mean(activation, (2, 3))
    if pool == "max":
        return activation.amax((2, 3))
    if pool == "none":
        return activation.flatten(1)
    if pool == "spatial":
        return activation.permute(0, 2, 3, 1).flatten(0, 2)
    if min(activation.shape[2:]) < pool:
        raise ValueError(f"pool must be at most {min(activation.shape[2:])} for this layer, got {pool}")
    return F.adaptive_avg_pool2d(activation.float() if activation.dtype in HALF else activation, pool).flatten(1)


def only_tensor(output: object, *, layer: str, key: str | None = None) -> torch.Tensor:
    """The tensor in a layer's output, which may be wrapped in a tuple, list, mapping or ``ModelOutput``.

    Parameters
    ----------
    output : object
        What the layer returned.
    layer : str
        Its name, for the message.
    key : str, optional
        Index or key of the part that is wanted, as in ``"block[0]"``. Without one, the output must hold one tensor
        and no more (None beside it does not count, so that ``nn.MultiheadAttention`` without weights passes).

    Raises
    ------
    TypeError
        If there is no tensor, or there are several and none is named.
    """
    if isinstance(output, torch.Tensor) and key is None:
        return output
    parts: dict[str, object] = {}
    if isinstance(output, Mapping):
        parts = {str(name): part for name, part in output.items()}
    elif isinstance(output, tuple | list):
        parts = {str(index): part for index, part in enumerate(output)}
    tensors = {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)}
    if key in tensors:
        return tensors[key]
    if key is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    shapes = ", ".join(f"{layer}[{name}] {tuple(part.shape)}" for name, part in tensors.items())
    remedy = f"name one of its tensors: {shapes}" if tensors else "name a layer inside it"
    wanted = f"a tensor [{key}]" if key is not None else "a tensor"
    raise TypeError(f"layer {layer!r} must return {wanted}, got {type(output).__name__}; {remedy}")


def _pool_tokens(activation: torch.Tensor, pool: str | int) -> torch.Tensor:
    if pool == "cls":
        return activation[:, 0]
    if pool == "tokens":
        return _mean(activation, 1)
    if pool == "none":
        return activation.flatten(1)
    if pool == "spatial":
        return activation.flatten(0, 1)
    raise ValueError(
        f"pool={pool!r} expects activations of shape (n, units) or (n, channels, height, width), "
        f"got {tuple(activation.shape)}; name another layer, or, if these are tokens (n, tokens, units), take "
        "pool='cls' (the first token), 'tokens' (their mean), 'spatial' or 'none'"
    )


def _mean(activation: torch.Tensor, axes) -> torch.Tensor:
    return activation.mean(axes, dtype=torch.float32 if activation.dtype in HALF else None)
