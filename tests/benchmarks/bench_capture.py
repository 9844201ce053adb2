"""Time of a capture of four layers as a share of the plain forward pass, beside other tools; bfloat16 and maps.

    python tests/benchmarks/bench_capture.py                     # both networks, nine rounds, one thread: 15 minutes
    python tests/benchmarks/bench_capture.py --models resnet --rounds 5
    python tests/benchmarks/bench_capture.py --device cuda --threads 8
    python tests/benchmarks/bench_capture.py --maps              # the effect of precision="bfloat16" on maps

The tools take turns in one process, so that whatever else the machine does hurts all; each round gives one ratio to the
plain pass of that round, and medians of these are reported, of processor time on a CPU and of wall time on a GPU. All
tools keep the same thing, the mean of each feature map of four layers and the logits, for the same batches. "plain" is
the model as its author left it, in a loop under inference_mode. requirements-capture.txt says how to install the peers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torchvision

import nfcodes_lib as nf

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
MODELS = {"resnet": (2048, 256), "resnet18": (128, 16)}  # images, images in a batch
GOALS = {"nfcodes": 0.85, "nfcodes bf16": 0.45}  # shares of the plain pass
SLOWEST = 8.0  # times the plain pass; a slower tool runs twice and no more


def network(name: str, device: str):
    """The network and its images: the book's on Fashion-MNIST, or torchvision's, random weights on random pixels."""
    n_images, _ = MODELS[name]
    if name == "resnet":
        return nf.load_model("resnet", device=device), nf.load_images("test", n_samples=n_images)[0].to(device)
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval().to(device)
    return model, torch.rand(n_images, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)


def plain(model, images, batch_size):
    """The forward pass, and nothing kept but its answers."""
    with torch.inference_mode():
        return {"logits": torch.cat([model(batch) for batch in images.split(batch_size)])}


def captured(precision=None, out=False):
    """This library's capture, in memory or to a folder."""

    def run(model, images, batch_size):
        options = {"layers": LAYERS, "batch_size": batch_size, "progress": False, "precision": precision}
        with tempfile.TemporaryDirectory() as folder:
            codes = nf.capture(model, images, out=Path(folder) / "codes" if out else None, **options)
            return {layer: torch.tensor(np.array(codes[layer])) for layer in LAYERS}

    return run


def plain_hooks(model, images, batch_size):
    """What a reader would write: hooks that keep means."""
    kept = {layer: [] for layer in LAYERS}
    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda m, i, o, layer=layer: kept[layer].append(o.mean((2, 3)))
        )
        for layer in LAYERS
    ]
    plain(model, images, batch_size)
    for handle in handles:
        handle.remove()
    return {layer: torch.cat(parts) for layer, parts in kept.items()}


def torchvision_extractor(model, images, batch_size):
    """torchvision's create_feature_extractor, made once (not counted)."""
    if model not in _EXTRACTORS:
        from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

        nodes = get_graph_node_names(model)[1]
        ends = {[node for node in nodes if node.split(".")[0] == layer][-1]: layer for layer in LAYERS}
        _EXTRACTORS[model] = create_feature_extractor(model, {**ends, nodes[-1]: "logits"})
    return _means(_EXTRACTORS[model], images, batch_size)


_EXTRACTORS: dict = {}


def captum(model, images, batch_size):
    """Captum's LayerActivation for all four layers."""
    from captum.attr import LayerActivation

    method = LayerActivation(model, [model.get_submodule(layer) for layer in LAYERS])
    return _means(lambda batch: dict(zip(LAYERS, method.attribute(batch), strict=True)), images, batch_size)


def nnsight(model, images, batch_size):
    """nnsight's tracing, means taken inside the trace."""
    import nnsight as ns

    wrapped = ns.NNsight(model)

    def run(batch):
        with wrapped.trace(batch):
            kept = ns.save([])
            for layer in LAYERS:
                kept.append(wrapped.get(layer).output.mean((2, 3)))
        return {layer: mean[:, :, None, None] for layer, mean in zip(LAYERS, kept, strict=True)}

    return _means(run, images, batch_size)


def torchlens(model, images, batch_size):
    """torchlens' log of a forward pass, keeping these layers only."""
    import torchlens as tl
    from torchlens.options import CaptureOptions

    options = CaptureOptions(layers_to_save=LAYERS, unwrap_when_done=True)  # or torch stays slower for all others

    def run(batch):
        log = tl.trace(model, batch, capture=options)
        return {layer: log[layer].out for layer in LAYERS}

    return _means(run, images, batch_size)


def _means(run, images, batch_size):
    """Means of the maps that `run` gives for each batch."""
    kept = {layer: [] for layer in LAYERS}
    with torch.inference_mode():
        for batch in images.split(batch_size):
            maps = run(batch)
            for layer in LAYERS:
                kept[layer].append(maps[layer].detach().mean((2, 3)))
    return {layer: torch.cat(parts) for layer, parts in kept.items()}


def tools() -> dict:
    """Name -> function(model, images, batch_size) of everything that is installed; says what is not."""
    found = {
        "plain": plain,
        "nfcodes": captured(),
        "nfcodes to disk": captured(out=True),
        "nfcodes bf16": captured("bfloat16"),
        "plain hooks": plain_hooks,
        "torchvision": torchvision_extractor,
    }
    peers = {"captum": captum, "nnsight": nnsight, "torchlens": torchlens}
    if missing := [name for name in peers if not find_spec(name)]:
        print(f"without {', '.join(missing)}: not installed (see requirements-capture.txt)")
    return found | {name: function for name, function in peers.items() if name not in missing}


def timed(function, *arguments, device: str) -> tuple[float, dict]:
    """Seconds of processor time (wall time on a GPU) and the codes."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = clock()
        result = function(*arguments)
        if device != "cpu":
            torch.cuda.synchronize()
        return clock() - started, result


def bench(name: str, n_rounds: int, device: str, chosen: list[str] | None = None) -> dict:
    """All tools on one network, in turns: ratio to the plain pass, and largest difference from plain hooks."""
    model, images = network(name, device)
    batch_size = MODELS[name][1]
    functions = {tool: f for tool, f in tools().items() if tool == "plain" or not chosen or tool in chosen}
    expected = plain_hooks(model, images, batch_size)
    ratios, differences, broken = {tool: [] for tool in functions}, {}, {}
    for turn in range(n_rounds + 1):  # the first warms up and is not counted
        base = None
        for tool, function in functions.items():
            if tool in broken or (turn > 2 and statistics.median(ratios[tool]) > SLOWEST):
                continue
            try:
                taken, codes = timed(function, model, images, batch_size, device=device)
            except Exception as error:  # a peer that does not work here is reported, not hidden
                broken[tool] = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
                continue
            base = taken if tool == "plain" else base
            if turn:
                ratios[tool].append(taken / base)
                if tool == "plain":
                    ratios.setdefault("seconds", []).append(taken)
            if tool != "plain":
                differences[tool] = max(
                    float((codes[k].cpu() - expected[k].cpu()).abs().max() / expected[k].abs().max()) for k in LAYERS
                )
    seconds = statistics.median(ratios.pop("seconds"))
    rows = {
        tool: {"ratio": statistics.median(r), "all": r, "difference": differences.get(tool)}
        for tool, r in ratios.items()
        if r
    }
    return {"model": name, "images": len(images), "plain_seconds": seconds, "tools": rows, "broken": broken}


def table(result: dict) -> str:
    """One network's results as Markdown, with the goals and whether they are met."""
    lines = [
        f"{result['model']}, {result['images']} images, plain pass {result['plain_seconds']:.2f} s",
        "| tool | share of the plain pass | largest difference of a code |",
        "|---|---|---|",
    ]
    for tool, row in result["tools"].items():
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        lines.append(f"| {tool} | {row['ratio']:.2f} | {difference} |")
    lines += [f"| {tool} | did not work: {reason} | |" for tool, reason in result["broken"].items()]
    for tool, goal in GOALS.items():
        if tool in result["tools"]:
            ratio = result["tools"][tool]["ratio"]
            lines.append(f"- {'met' if ratio <= goal else 'NOT met'}: {tool} {ratio:.2f} (goal {goal})")
    return "\n".join(lines)


def effect_on_maps(n_images: int) -> dict:
    """Maps of each layer of the book's network, from float32 and from bfloat16 codes: what changes."""
    model = nf.load_model("resnet")
    fit, judge = (nf.load_images(split, n_samples=n_images)[0] for split in ("train", "test"))
    runs = {
        precision: [nf.capture(model, x, layers=LAYERS, precision=precision, progress=False) for x in (fit, judge)]
        for precision in (None, "bfloat16")
    }
    result = {}
    for layer in LAYERS:
        soms, held = {}, {}
        for precision, (train, test) in runs.items():
            soms[precision] = nf.SOM(10, 10, backend="torch", n_epochs=10, random_state=0).fit(train[layer])
            held[precision] = test
        other = nf.SOM(10, 10, backend="torch", n_epochs=10, random_state=1, initialization="random")
        other.fit(runs[None][0][layer])
        plain, low = held[None], held["bfloat16"]
        same_map = np.mean(soms[None].predict(plain[layer]) == soms[None].predict(low[layer]))
        errors = {p: soms[p].quantization_error(plain[layer]) for p in soms}
        association = {
            p: nf.association(soms[p].predict(plain[layer]), plain.predictions, n_permutations=1, n_resamples=2)
            for p in soms
        }
        scores = {p: a.adjusted_mutual_information for p, a in association.items()}
        seeds = nf.association(other.predict(plain[layer]), plain.predictions, n_permutations=1, n_resamples=2)
        result[layer] = {
            "same_unit_on_one_map": float(same_map),
            "quantization_error": [errors[None], errors["bfloat16"]],
            "adjusted_mutual_information": [scores[None], scores["bfloat16"]],
            "adjusted_mutual_information_of_another_seed": seeds.adjusted_mutual_information,
        }
    agree = np.mean(runs[None][1].predictions == runs["bfloat16"][1].predictions)
    return {"images": n_images, "same_prediction": float(agree), "layers": result}


def test_capture_beside_plain_forward():
    """What `make bench` runs: the book's network, a few rounds."""
    torch.set_num_threads(1)
    result = bench("resnet", 3, "cpu")
    print("\n" + table(result))
    assert result["tools"]["nfcodes"]["difference"] < 1e-4


def main(arguments=None) -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tools", nargs="*", help="only these, beside the plain pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--maps", action="store_true")
    parser.add_argument("--images", type=int, default=4000, help="of --maps")
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    report = {
        "machine": platform.processor() or platform.machine(), "threads": options.threads, "load": os.getloadavg()[0],
        "torch": torch.__version__, "device": options.device,
    }  # fmt: skip
    print(report)
    if options.maps:
        report["maps"] = effect_on_maps(options.images)
        print(json.dumps(report["maps"], indent=1))
    else:
        report["models"] = []
        for name in options.models:
            report["models"].append(bench(name, options.rounds, options.device, options.tools))
            print(table(report["models"][-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
