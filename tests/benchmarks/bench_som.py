"""Training a SOM: this library's torch backend beside somoclu and other tools, in time and in quality of the map.

    python tests/benchmarks/bench_som.py                       # all rows, five rounds: half an hour on a quiet machine
    python tests/benchmarks/bench_som.py --rows 0 --rounds 3   # the smallest
    python tests/benchmarks/bench_som.py --emergent            # 200 x 200 units: time and memory
    python tests/benchmarks/bench_som.py --device cuda         # torch and somoclu's GPU kernel beside the CPU's

The tools take turns in one process, so that whatever else the machine does hurts all; medians are reported. The floor
is what the products of data and codebook in the search passes alone would take at the rate of a plain matrix product,
measured in every round. All tools get the same data; quantization and topographic error of every map are measured by
the same code. requirements-som.txt says how to install the peers; those that are missing are named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from nfcodes_lib import _som_somoclu
from nfcodes_lib._som_settings import radii
from nfcodes_lib.doctor import processor
from nfcodes_lib.som import SOM

ROWS = [  # samples, features, side of the map, epochs
    (5_000, 128, 20, 10),
    (10_000, 512, 20, 10),
    (10_000, 512, 40, 5),
    (60_000, 512, 20, 5),
    (60_000, 64, 50, 5),
    (10_000, 2_048, 20, 10),
]
SLOW_TOOLS = {
    "minisom": 1,
    "torchsom": 1,
}  # rounds, on the first row only: each takes a minute there and hours elsewhere
SETTLE = 0.3  # seconds: numpy's BLAS threads spin for 0.1 s after a product, at the expense of whoever comes next
EQUAL_QUALITY = (
    0.01  # a map counts as equal if neither error is worse than torch's by more than this share (QE, TE + 0.01)
)


def relu_codes(n_samples: int, n_features: int) -> np.ndarray:
    """Something like pooled activations: ten classes in 16 latent dimensions, mixed, noisy, rectified. float32."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(10, 16))[rng.integers(0, 10, n_samples)] + 0.6 * rng.normal(size=(n_samples, 16))
    x = latent.astype(np.float32) @ rng.normal(size=(16, n_features)).astype(np.float32)
    x += rng.normal(size=x.shape).astype(np.float32)
    return np.maximum(x, 0, out=x)


def run_torch(x, side, n_epochs, device="cpu", search_dtype="float32"):
    """This library, from the array to the fitted map: validation and initialization included."""
    som = SOM(side, side, backend="torch", n_epochs=n_epochs, random_state=0, device=device, search_dtype=search_dtype)
    return som.fit(x).codebook_


def run_somoclu(x, side, n_epochs, kernel="cpu"):
    """somoclu's own training in one call, as its users run it; the same initial codebook, not counted in its time."""
    start = SOM(side, side, backend="torch", n_epochs=0, random_state=0).fit(x).codebook_.ravel()
    bmus, u_matrix, flat = np.zeros(2 * len(x), np.intc), np.zeros(side * side, np.float32), x.ravel()
    began = time.perf_counter()
    _som_somoclu.compiled_train()(
        flat, n_epochs, side, side, x.shape[1], len(x), 0, 1.000001, "linear", 0.1, 0.01, "linear",
        _som_somoclu.KERNELS[kernel], "planar", "rectangular", True, True, 0.5, 0, start, bmus, u_matrix, "euclidean",
    )  # fmt: skip
    return start.reshape(side, side, -1), time.perf_counter() - began


def run_xpysom(x, side, n_epochs):
    """The same rule, schedule and neighbourhood; from random samples, as its PCA takes longer than the rest."""
    from xpysom import XPySom

    som = XPySom(
        side, side, x.shape[1], sigma=side / 2, sigmaN=1, decay_function="linear", std_coeff=0.5, compact_support=True,
        random_seed=0, xp=np,
    )  # fmt: skip
    som.random_weights_init(x)
    som.train(x, n_epochs)
    return np.asarray(som.get_weights())


def run_intrasom(x, side, n_epochs):
    """Its batch training in its fast profile; its radius is the Gaussian's width, so it gets half of ours."""
    import intrasom

    widths = radii(SOM(side, side, n_epochs=n_epochs)) / 2
    som = intrasom.SOMFactory.build(
        x, mapsize=(side, side), mapshape="planar", lattice="rect", normalization=None, initialization="pca",
        faster=True,
    )  # fmt: skip
    som.train(
        save=False, summary=False, n_job=-1, train_rough_len=n_epochs - 1, train_rough_radiusin=widths[0],
        train_rough_radiusfin=widths[-2], train_finetune_len=1, train_finetune_radiusin=widths[-1],
        train_finetune_radiusfin=widths[-1],
    )  # fmt: skip
    return np.asarray(som.codebook.matrix).reshape(side, side, -1)


def run_torchsom(x, side, n_epochs):
    """Its stochastic training in batches of 256."""
    from torchsom import SOM as TorchSOM

    som = TorchSOM(side, side, x.shape[1], epochs=n_epochs, batch_size=256, sigma=side / 4, device="cpu", random_seed=0)
    som.initialize_weights(torch.from_numpy(x), mode="pca")
    som.fit(torch.from_numpy(x), verbose=False)
    return som.weights.detach().numpy()


def run_minisom(x, side, n_epochs):
    """Its online training, one sample at a time."""
    from minisom import MiniSom

    som = MiniSom(side, side, x.shape[1], sigma=side / 4, learning_rate=0.5, random_seed=0)
    som.random_weights_init(x)
    som.train(x, n_epochs, use_epochs=True)
    return som.get_weights()


def tools(device: str) -> dict:
    """Name -> function(x, side, n_epochs) of everything that works here; says what does not."""
    found = {
        "torch": lambda *a: run_torch(*a, device),
        "torch bf16": lambda *a: run_torch(*a, device, "bfloat16"),
        **({"torch int8": lambda *a: run_torch(*a, device, "int8")} if device == "cpu" else {}),
        "somoclu": run_somoclu,
    }
    if device != "cpu":
        found = {"torch cpu": run_torch, **found}
        if problem := _som_somoclu.gpu_problem():
            print(f"without somoclu's GPU kernel: {problem}")
        else:
            found["somoclu gpu"] = lambda *a: run_somoclu(*a, "gpu")
    else:
        peers = {"intrasom": run_intrasom, "xpysom": run_xpysom, "torchsom": run_torchsom, "minisom": run_minisom}
        found |= {name: function for name, function in peers.items() if find_spec(name)}
        if missing := [name for name in peers if name not in found]:
            print(f"without {', '.join(missing)}: not installed (see requirements-som.txt)")
    return found


def matrix_product_rate(device: str) -> float:
    """FLOP/s of one 2,048 x 2,048 x 2,048 product in float32: the better of torch's and, on a CPU, numpy's."""
    a = torch.randn(2048, 2048, device=device)
    products = [lambda: a @ a] + ([lambda: a.numpy() @ a.numpy()] if device == "cpu" else [])
    best = np.inf
    for product in products * 2:
        began = time.perf_counter()
        product()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


def timed(function, x, side, n_epochs) -> tuple[float, np.ndarray]:
    """Seconds and codebook; a function may take its own time, and returns it then."""
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    time.sleep(SETTLE)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), quiet[0], quiet[1]:
        began = time.perf_counter()
        result = function(x, side, n_epochs)
        seconds = time.perf_counter() - began
    return (result[1], result[0]) if isinstance(result, tuple) else (seconds, result)


def quality(x, codebook) -> tuple[float, float]:
    """Quantization and topographic error of any tool's codebook, (rows, columns, features)."""
    codebook = np.ascontiguousarray(codebook, np.float32)
    som = SOM(*codebook.shape[:2], backend="torch", n_epochs=0, initialization=codebook).fit(x)
    return som.quantization_error(x), som.topographic_error(x)


def bench(row, n_rounds: int, chosen: list[str] | None, device: str) -> dict:
    """All tools on one row, in turns."""
    n_samples, n_features, side, n_epochs = row
    x = relu_codes(n_samples, n_features)
    functions = {name: f for name, f in tools(device).items() if not chosen or name in chosen}
    if row != ROWS[0]:
        functions = {name: f for name, f in functions.items() if name not in SLOW_TOOLS}
    rates, seconds, codebooks = [], {name: [] for name in functions}, {}
    for turn in range(n_rounds + 1):  # the first warms up and is not counted, except for the slow
        rates.append(matrix_product_rate(device))
        for name, function in functions.items():
            slow = name in SLOW_TOOLS or (name.startswith("somoclu") and turn > 3)
            if slow and turn >= 1:
                continue
            taken, codebooks[name] = timed(function, x, side, n_epochs)
            if turn or name in SLOW_TOOLS:
                seconds[name].append(taken)
    rate = statistics.median(rates[1:] or rates)
    floor = 2.0 * n_samples * n_features * side**2 * (n_epochs + 1) / rate
    result = {"row": row, "gflops": rate / 1e9, "floor": floor, "tools": {}}
    for name, times in seconds.items():
        error, torn = quality(x, codebooks[name])
        median = statistics.median(times)
        result["tools"][name] = {
            "seconds": median, "all": times, "times_floor": median / floor, "quantization_error": error,
            "topographic_error": torn,
        }  # fmt: skip
    return result


def table(results: list[dict]) -> str:
    """The results as Markdown, with the goals and whether they are met."""
    lines = [
        "| N x D, map, epochs | tool | seconds | times floor | times somoclu | QE | TE |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for result in results:
        n_samples, n_features, side, n_epochs = result["row"]
        title = f"{n_samples:,} x {n_features:,}, {side} x {side}, {n_epochs}"
        lines.append(f"| {title} | floor at {result['gflops']:.0f} GFLOP/s | {result['floor']:.3f} | 1.00 | | | |")
        found = result["tools"]
        for name, tool in found.items():
            gain = found["somoclu"]["seconds"] / tool["seconds"] if "somoclu" in found else float("nan")
            lines.append(
                f"| | {name} | {tool['seconds']:.3f} | {tool['times_floor']:.2f} | {gain:.1f} | "
                f"{tool['quantization_error']:.4f} | {tool['topographic_error']:.3f} |"
            )
        verdicts += judge(title, n_features, found)
    return "\n".join([*lines, "", *verdicts])


def judge(title: str, n_features: int, found: dict) -> list[str]:
    """One line per goal that these tools allow to judge."""
    lines = []
    ours = found.get("torch")
    low = min((found[name] for name in found if name.startswith("torch ")), key=lambda t: t["seconds"], default=None)
    if ours:
        lines.append(
            f"- {title}: {verdict(ours['times_floor'] <= 1.3)} {ours['times_floor']:.2f} times floor (goal 1.3)"
        )
        limits = {
            "quantization_error": ours["quantization_error"] * (1 + EQUAL_QUALITY),
            "topographic_error": ours["topographic_error"] * (1 + EQUAL_QUALITY) + 0.01,
        }
        equal = {
            name: tool["seconds"]
            for name, tool in found.items()
            if not name.startswith("torch ") and name != "torch" and all(tool[k] <= limits[k] for k in limits)
        }
        if equal:
            name = min(equal, key=equal.get)
            gain = equal[name] / ours["seconds"]
            lines.append(
                f"- {title}: {verdict(gain >= 2.5)} {gain:.1f} times {name}, the fastest of equal quality (goal 2.5)"
            )
    if ours and low and "somoclu" in found and n_features >= 512:
        gain = found["somoclu"]["seconds"] / low["seconds"]
        worse = low["quantization_error"] / ours["quantization_error"] - 1
        lines.append(
            f"- {title}: {verdict(gain >= 50 and worse <= 0.003)} low precision {gain:.0f} times somoclu (goal 50), "
            f"quantization error {100 * worse:+.2f} % (goal 0.3)"
        )
    return lines


def verdict(met: bool) -> str:
    """How a goal came out."""
    return "met:" if met else "NOT met:"


def emergent(n_samples: int, side: int, n_epochs: int, with_somoclu: bool) -> dict:
    """A map with more units than samples, in a process of its own: seconds, and memory beyond the data."""
    result = {}
    for name in ["torch", *(["somoclu"] if with_somoclu else [])]:
        command = [sys.executable, __file__, "--one", name, str(n_samples), "512", str(side), str(n_epochs)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        result[name] = json.loads(answer.stdout.splitlines()[-1])
    return result


def one(name: str, n_samples: int, n_features: int, side: int, n_epochs: int) -> dict:
    """What the process of :func:`emergent` does."""
    warnings.simplefilter("ignore")
    x = relu_codes(n_samples, n_features)
    run_torch(x[:200], 4, 1)  # what is loaded at first use is not the map's
    before = peak_memory()
    seconds, _ = timed(run_torch if name == "torch" else run_somoclu, x, side, n_epochs)
    return {"seconds": seconds, "peak_gib_beyond_data": (peak_memory() - before) / 2**30}


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(device: str) -> dict:
    """What the figures were measured on."""
    return {
        "cpu": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if device != "cpu" else None, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip


def main(arguments=None) -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(ROWS))), help=f"of {ROWS}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", nargs="*", help="only these")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--emergent", action="store_true")
    parser.add_argument("--without-somoclu", action="store_true", help="in --emergent, where it takes many minutes")
    parser.add_argument("--out", type=Path, default=Path("bench_som.json"), help="all figures, as JSON")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(one(options.one[0], *map(int, options.one[1:]))))
        return
    report = {"machine": machine(options.device)}
    print(report["machine"])
    if options.emergent:
        report["emergent"] = emergent(10_000, 200, 2, not options.without_somoclu)
        print(json.dumps(report["emergent"], indent=1))
    else:
        report["rows"] = [bench(ROWS[k], options.rounds, options.tools, options.device) for k in options.rows]
        print(table(report["rows"]))
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
