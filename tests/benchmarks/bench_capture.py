"""Time of a capture of all four layers against the plain forward pass: `pytest tests/benchmarks/bench_capture.py -s`.

The two take turns in one run, so that whatever else the machine does hurts both; the ratio of medians is printed.
"""

import statistics
import time

import torch

import nfcodes_lib as nf

N_ROUNDS = 7
BATCH_SIZE = 256


def plain_forward(model, images):
    with torch.inference_mode():
        return [model(batch) for batch in images.split(BATCH_SIZE)]


def seconds(function, *arguments, **options):
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def test_capture_beside_plain_forward():
    model = nf.load_model("resnet")
    images, _ = nf.load_images("test", n_samples=4000)
    layers = ["layer1", "layer2", "layer3", "layer4"]
    rounds = [
        (
            seconds(plain_forward, model, images),
            seconds(nf.capture, model, images, layers=layers, batch_size=BATCH_SIZE, progress=False),
        )
        for _ in range(N_ROUNDS + 1)
    ][1:]
    plain, captured = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"\n{len(images):,} images, {torch.get_num_threads()} threads: plain forward {plain:.2f} s, "
        f"capture of {len(layers)} layers {captured:.2f} s, ratio {captured / plain:.2f}"
    )
