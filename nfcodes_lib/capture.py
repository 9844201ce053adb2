"""Record what the layers of a network answer to images: activations become codes.

A forward hook on each named layer sees its output, of shape (n, channels, height, width), and keeps one vector per
image. With ``pool="mean"`` that vector is the mean of each feature map,

    code[i, c] = 1 / (h w) * sum over y, x of activation[i, c, y, x],

the "vectorized code" of Lee and Vijayan (arXiv:2205.10952). Pooling happens inside the hook, so memory holds codes and
one batch of activations, never all activations. The network is left as it came: hooks removed, train or eval mode and
gradient flags as they were, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from ._progress import progress_bar
from .layer_codes import CodesWriter, LayerCodes
from .models import nearest

POOLS = ("mean", "max", "none", "spatial")


def capture(
    model: nn.Module,
    images,
    *,
    layers: str | list[str] | tuple[str, ...],
    pool: str | int = "mean",
    batch_size: int = 256,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> LayerCodes:
    """Run `model` over `images` once and keep the codes of `layers`, with the logits of the same pass.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits, shape (n, n_classes). It is run in eval mode, without gradients, on the device of its
        parameters, and is given back in the mode in which it came.
    images : torch.Tensor, ndarray, Dataset or DataLoader
        Floats of shape (n, channels, height, width). A Dataset or DataLoader may yield images alone or tuples that
        begin with them. The order of a DataLoader is kept, so pass one that does not shuffle.
    layers : str or list of str
        Names as in ``model.named_modules()``.
    pool : {"mean", "max", "none", "spatial"} or int
        What is kept of a feature map: its mean, its maximum, everything (flattened), every position as a row of its
        own, or its average over a k x k grid. Layers that give one vector per image are kept as they are.
    batch_size : int
        Images per forward pass (a DataLoader's own batches are taken as they come).
    out : path, optional
        A folder, which must not exist yet: the codes are streamed to memory-mapped files there, under their final
        name only when complete. None keeps them in memory. Both give the same bits.
    progress : bool, optional
        Show a progress bar; None shows one unless in CI.

    Returns
    -------
    LayerCodes
        ``codes["layer4"]`` is float32 of shape (n, n_units); ``codes.logits`` float32 of shape (n, n_classes). With a
        ``torch.distributed`` process group initialised, each rank captures its own contiguous part of the data
        (a DataLoader is taken to hold the rank's part already), and `out` gets ``-rank0-of-2`` and so on.

    Raises
    ------
    ValueError
        If a layer is unknown, is called twice in one pass or not at all, or `pool` does not fit its output.
    TypeError
        If the images are not floats, or the model or a layer does not return a tensor.
    FileExistsError
        If `out` exists.

    Notes
    -----
    Four-dimensional weights are passed to the model in channels-last memory format for the time of the run, which
    computes the same function faster; the model's own parameters are not touched.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, labels = nf.load_images("test", n_samples=32)
    >>> codes = nf.capture(nf.load_model("resnet"), images, layers=["layer1", "layer4"])
    >>> codes["layer4"].shape, codes.logits.shape
    ((32, 128), (32, 10))
    """
    layers = resolve_layers(model, layers)
    pool_activation = _pooling(pool)
    batches, n_batches = _batches(images, batch_size)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    rank, world_size = _rank_and_world_size()
    if out is not None and world_size > 1:
        out = f"{out}-rank{rank}-of-{world_size}"
    with CodesWriter(out, layers=layers, pool=str(pool)) as writer, evaluating(model):
        parameters = _channels_last_parameters(model)
        with tap(model, layers, pool_activation) as outputs:
            for batch in progress_bar(batches, show=progress, total=n_batches, desc="capture", unit="batch"):
                outputs.clear()
                with torch.inference_mode():
                    logits = torch.func.functional_call(model, parameters, (_as_input(batch, device),))
                _check_outputs(outputs, layers, logits)
                codes = {layer: outputs[layer][0] for layer in layers}
                writer.write(codes, logits, shapes={layer: outputs[layer][1] for layer in layers})
        return writer.finish()


@contextmanager
def tap(
    model: nn.Module, layers: tuple[str, ...] | list[str], keep: Callable[[torch.Tensor], object]
) -> Iterator[dict[str, object]]:
    """Context manager: a dict that each forward pass fills with ``keep(output)`` of each named layer.

    The hooks are removed when the block ends, however it ends. The caller clears the dict between passes; a layer that
    finds its own name there was called twice in one pass, and raises.

    Parameters
    ----------
    model : torch.nn.Module
    layers : sequence of str
    keep : callable
        Takes the layer's output, a tensor; what it returns is stored. It must not return a view of its input, which a
        following in-place operation may overwrite.

    Raises
    ------
    ValueError
        From the forward pass, if a layer is called twice.
    TypeError
        From the forward pass, if a layer returns something other than a tensor.
    """
    outputs: dict[str, object] = {}

    def hook_for(layer: str):
        def hook(module, inputs, output):
            if layer in outputs:
                raise ValueError(
                    f"layer {layer!r} was expected to run once in a forward pass, but it ran twice; "
                    "capture a layer around it, or give each use a module of its own"
                )
            if not isinstance(output, torch.Tensor):
                raise TypeError(
                    f"layer {layer!r} must return a tensor, got {type(output).__name__}; name a layer inside it"
                )
            outputs[layer] = keep(output)

        return hook

    modules = dict(model.named_modules())
    handles = []
    try:
        for layer in layers:
            handles.append(modules[layer].register_forward_hook(hook_for(layer)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager: `model` in eval mode, and every module back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def resolve_layers(model: nn.Module, layers: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Check names of layers against ``model.named_modules()`` and return them as a tuple.

    Raises
    ------
    ValueError
        If a name is unknown (the message lists the nearest and the top-level layers), given twice, or none is given.
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    known = [name for name, _ in model.named_modules() if name]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers must be one or more different names, got {layers!r}")
    for name in names:
        if name not in known:
            top = [name for name, _ in model.named_children()]
            raise ValueError(f"layer must be one of {top} or a module inside them, got {name!r}{nearest(name, known)}")
    return names


def pool_maps(activation: torch.Tensor, pool: str | int) -> torch.Tensor:
    """Reduce activations to codes, differentiably.

    Parameters
    ----------
    activation : torch.Tensor
        Shape (n, channels, height, width), or (n, units), which is returned as it is.
    pool : {"mean", "max", "none", "spatial"} or int
        As in :func:`capture`.

    Returns
    -------
    torch.Tensor
        Shape (n, channels), (n, channels * height * width), (n * height * width, channels) or (n, channels * k * k).

    Raises
    ------
    ValueError
        If `activation` has another number of axes, or is smaller than k x k.
    """
    if activation.ndim == 2:
        return activation
    if activation.ndim != 4:
        raise ValueError(
            "expected activations of shape (n, units) or (n, channels, height, width), "
            f"got {tuple(activation.shape)}; name another layer"
        )
    if pool == "mean":
        return activation.mean((2, 3))
    if pool == "max":
        return activation.amax((2, 3))
    if pool == "none":
        return activation.flatten(1)
    if pool == "spatial":
        return activation.permute(0, 2, 3, 1).flatten(0, 2)
    if min(activation.shape[2:]) < pool:
        raise ValueError(f"pool must be at most {min(activation.shape[2:])} for this layer, got {pool}")
    return F.adaptive_avg_pool2d(activation, pool).flatten(1)


def _pooling(pool: str | int) -> Callable[[torch.Tensor], tuple[torch.Tensor, tuple[int, ...]]]:
    """Check `pool`; return a function from an activation to (codes that own their memory, shape of one activation)."""
    is_size = isinstance(pool, int) and not isinstance(pool, bool) and pool >= 1
    if not is_size and pool not in POOLS:
        raise ValueError(f"pool must be one of {list(POOLS)} or a positive int, got {pool!r}{nearest(pool, POOLS)}")

    def keep(activation: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        codes = pool_maps(activation.detach(), pool).to(device="cpu", dtype=torch.float32)
        shares_memory = codes.untyped_storage().data_ptr() == activation.untyped_storage().data_ptr()
        return (codes.clone() if shares_memory else codes), tuple(activation.shape[1:])

    return keep


def _batches(images, batch_size: int) -> tuple[object, int | None]:
    """Iterable of batches and their number (None if unknown); this rank's part where a process group is initialised."""
    if isinstance(images, DataLoader):
        try:
            return images, len(images)
        except TypeError:  # an iterable data set of unknown length
            return images, None
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive int, got {batch_size!r}")
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if not isinstance(images, torch.Tensor | Dataset):
        raise TypeError(f"images must be a tensor, an array, a Dataset or a DataLoader, got {type(images).__name__}")
    n_images = len(images)
    rank, world_size = _rank_and_world_size()
    start, stop = n_images * rank // world_size, n_images * (rank + 1) // world_size
    if start == stop:
        raise ValueError(f"expected at least one image for each process, got {n_images} for {world_size}")
    if isinstance(images, torch.Tensor):
        batches = images[start:stop].split(batch_size)
    else:
        batches = DataLoader(Subset(images, range(start, stop)), batch_size)
    return batches, -(-(stop - start) // batch_size)


def _as_input(batch, device: torch.device) -> torch.Tensor:
    """The images of a batch (itself, or the first of a tuple), checked, on `device`."""
    images = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"a batch must be a tensor or a tuple that begins with one, got {type(images).__name__}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floats, got {images.dtype}; convert them, e.g. images.float() / 255")
    if images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    return images.to(device)


def _check_outputs(outputs: Mapping[str, object], layers: tuple[str, ...], logits: object) -> None:
    """Raise unless every layer ran and the model returned one vector of logits per image."""
    silent = [layer for layer in layers if layer not in outputs]
    if silent:
        raise ValueError(f"expected every layer to run in the forward pass, but {silent} did not; name other layers")
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"the model must return logits of shape (n, n_classes), got {got}; wrap it in one that does")


def _channels_last_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's four-dimensional parameters, copied to channels-last format: same numbers, faster convolutions."""
    return {
        name: parameter.detach().contiguous(memory_format=torch.channels_last)
        for name, parameter in model.named_parameters()
        if parameter.ndim == 4
    }


def _rank_and_world_size() -> tuple[int, int]:
    """Rank and number of processes of the initialised process group; (0, 1) without one."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
