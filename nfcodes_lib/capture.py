"""Record what the layers of a network answer to images: activations become codes.

A forward hook on each named layer sees its output, of shape (n, channels, height, width), and keeps one vector per
image. With ``pool="mean"`` that vector is the mean of each feature map,

    code[i, c] = 1 / (h w) * sum over y, x of activation[i, c, y, x],

the "vectorized code" of Lee and Vijayan (arXiv:2205.10952). Pooling happens inside the hook, so memory holds codes and
one batch of activations, never all activations. The network is left as it came: hooks removed, train or eval mode and
gradient flags as they were, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ._batches import Batches, rank_and_world_size
from ._codes_writer import LOGITS, CodesWriter
from ._forward_pass import ForwardPass
from ._progress import progress_bar
from .architectures import auto_layers
from .hooks import LayerOutput, check_ran, evaluating, layer_outputs, reading, resolve_layers, tap
from .layer_codes import LayerCodes
from .pooling import check_pool, pool_maps

__all__ = ["capture", "evaluating", "pool_maps", "resolve_layers", "tap"]


def capture(
    model: nn.Module,
    images,
    *,
    layers: str | list[str] | tuple[str, ...],
    pool: str | int = "mean",
    batch_size: int = 256,
    out: str | Path | None = None,
    resume: bool = True,
    precision: str | None = None,
    logits: bool = True,
    progress: bool | None = None,
) -> LayerCodes:
    """Run `model` over `images` once and keep the codes of `layers`, with the logits of the same pass.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits, shape (n, n_classes). It is run in eval mode, without gradients, on the device of its
        parameters, and is given back in the mode in which it came. DataParallel and compiled modules are read through
        the module inside them, on one device and uncompiled.
    images : torch.Tensor, ndarray, Dataset or DataLoader
        Floats of shape (n, channels, height, width), brought to the model's device and dtype. A Dataset or DataLoader
        may yield images alone or tuples that begin with them. The order of a DataLoader is kept, so pass one that does
        not shuffle.
    layers : "auto", str or list of str
        Names as in ``model.named_modules()``; ``"auto"`` takes the composite layers (see
        :func:`nfcodes_lib.architectures.auto_layers`), and the codes' `chosen` says which. Of a layer that returns
        several tensors, ``"block[0]"`` or ``"block[hidden]"`` takes one.
    pool : {"mean", "max", "none", "spatial", "cls", "tokens"} or int
        What is kept of a feature map: its mean, its maximum, everything (flattened), every position as a row of its
        own, or its average over a k x k grid. Of a sequence of tokens: the class token, the mean of the tokens,
        everything, or every token as a row. Layers that give one vector per image are kept as they are.
    batch_size : int
        Images per forward pass (a DataLoader's own batches are taken as they come).
    out : path, optional
        A folder, which must not exist yet: the codes are streamed to memory-mapped files there, under their final
        name only when complete. None keeps them in memory. Both give the same bits.
    resume : bool
        Go on where an earlier, interrupted capture to `out` stopped, after checking that it was the same one: its
        settings, and the codes of its first and its last batch. False starts over.
    precision : {None, "bfloat16"}
        None computes in the model's own precision. ``"bfloat16"`` computes convolutions and matrix products with 8
        bits of mantissa, in half the time where the processor has instructions for it; see Notes.
    logits : bool
        False ends each pass behind the last of `layers`, keeps no logits, and takes models that return none.
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
        If a layer is unknown, is called twice in one pass or not at all, `pool` does not fit its output, ``"auto"``
        does not know the model, or what is left of an interrupted capture is of another model, images or settings.
    TypeError
        If the images are not floats, or the model or a layer does not return a tensor.
    FileExistsError
        If `out` exists.
    OSError
        If the codes cannot be written: a full disk, a read-only folder. What was written is kept beside `out` and the
        same call goes on from there; nothing stands under the name `out`.

    Notes
    -----
    The pass runs in channels-last memory format and, if there are several batches, with batch norms folded into the
    convolutions before them, if an image of the first batch shows that the codes stay the same up to rounding: the
    same function, computed faster. The model's own parameters are not touched.

    What ``"bfloat16"`` does to maps was measured on the book's network (10 x 10 units, 3,000 held-out images, by
    ``tests/benchmarks/bench_capture.py --maps``): 94 % (layer1) to 99 % (layer4) of the images keep their unit on one
    map; a map trained on such codes has a quantization error within 0.4 % of the other's, and an adjusted mutual
    information with the predictions within 0.003, where another seed of the map moves it by up to 0.004.

    Memory: besides the model and a second copy of its convolutions, one batch of images, of the activations that the
    model itself keeps, and of codes (and all codes if `out` is None).

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, labels = nf.load_images("test", n_samples=32)
    >>> codes = nf.capture(nf.load_model("resnet"), images, layers=["layer1", "layer4"])
    >>> codes["layer4"].shape, codes.logits.shape
    ((32, 128), (32, 10))
    """
    chosen = ""
    if isinstance(layers, str) and layers == "auto":
        choice = auto_layers(model)
        layers, chosen = choice.layers, str(choice)
    model, outputs = layer_outputs(model, layers)
    check_pool(pool)
    source = Batches(images, batch_size)
    rank, world_size = rank_and_world_size()
    if out is not None and world_size > 1:
        out = f"{out}-rank{rank}-of-{world_size}"

    def read(images: torch.Tensor, run: Callable) -> tuple[dict[str, torch.Tensor], dict[str, tuple[int, ...]]]:
        """Codes by layer, with the logits as `LOGITS`, and shapes of one batch; `run` is the model's pass."""
        with _codes_of(model, outputs, pool, stop=not logits) as (codes, shapes):
            answer = run(images)
        check_ran(outputs, codes)
        rows = {layer: codes[layer] for layer in outputs}
        return (rows | {LOGITS: _checked_logits(answer)} if logits else rows), shapes

    modules = tuple({found.module for found in outputs.values()})
    forward = ForwardPass(model, layers=modules, read=lambda *given: read(*given)[0], precision=precision)
    settings = {"layers": list(outputs), "pool": str(pool), "precision": forward.computes_in, "logits": logits}
    about = settings | {"chosen": chosen}
    settings = settings | {"batch_size": source.batch_size, "n_images": source.n_images}
    with CodesWriter(out, about=about, settings=settings, resume=resume) as writer, evaluating(model), forward:
        done = writer.n_batches
        again = {0, done - 1} if done else set()  # looked at again, to check that this is the capture to go on with
        with progress_bar(show=progress, total=source.n_batches, initial=done, desc="capture", unit="batch") as bar:
            for number, batch in source.batches(again, start=done):
                if source.n_batches != 1:  # one batch would take longer to prepare than it saves
                    forward.fold(batch)
                rows, shapes = read(batch, forward)
                if number < done:
                    writer.compare(rows, first=number == 0)
                else:
                    writer.write(rows, shapes=shapes, n_images=len(batch))
                    bar.update()
        arrays = writer.finish()
        if out is not None:
            return LayerCodes.load(out)
        answers = arrays.pop(LOGITS, None)
        return LayerCodes(arrays, answers, writer.shapes, str(pool), forward.computes_in, chosen)


@contextmanager
def _codes_of(model: nn.Module, outputs: dict[str, LayerOutput], pool: str | int, *, stop: bool):
    """Context manager: (codes, shapes) by layer, which a forward pass in the block fills; on the CPU, float32.

    With `stop`, the pass ends with LayersSeen when all are there.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str, activation: torch.Tensor) -> torch.Tensor:
        activation = activation.detach()
        shapes[name] = tuple(activation.shape[1:])
        rows = pool_maps(activation, pool).to(device="cpu", dtype=torch.float32)
        shares_memory = rows.untyped_storage().data_ptr() == activation.untyped_storage().data_ptr()
        return rows.clone() if shares_memory else rows

    with reading(model, outputs, keep, stop=stop) as codes:
        yield codes, shapes


def _checked_logits(answer: object) -> torch.Tensor:
    """The logits in what the model returned, (n, n_classes); of a ``ModelOutput`` or a dict its entry "logits"."""
    logits = answer.get("logits") if isinstance(answer, Mapping) else answer
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(answer).__name__
        raise TypeError(
            f"the model must return logits of shape (n, n_classes), got {got}; wrap it in one that does, "
            "or pass logits=False"
        )
    return logits.detach().to(device="cpu", dtype=torch.float32)
