"""In a live kernel: a long cell is interrupted, leaves everything as it was, and gives its result when run again."""

import os
import sys
import time

import pytest
from jupyter_client.manager import KernelManager

START = """
import time, torch, numpy as np, nfcodes_lib as nf
from nfcodes_lib.som import SOM
from nfcodes_lib.adversarial import trace_attack
from nfcodes_lib.reconstruct import reconstruct
from nfcodes_lib.decoder import train_decoder

model = nf.load_model("resnet")
images, labels = nf.load_images("test", n_samples=600)
codes = nf.capture(model, images, layers=["layer2", "layer4"], progress=False)
many = images.repeat(40, 1, 1, 1)
soms = {layer: SOM(5, 5, backend="torch", n_epochs=3, random_state=0).fit(codes[layer]) for layer in codes}

def state():
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    gradients = [p.requires_grad for p in model.parameters()]
    total = float(sum(p.detach().double().sum() for p in model.parameters()))
    return hooks, modes, gradients, total, torch.get_num_threads(), torch.is_grad_enabled()

import torch._dynamo  # optimizers load it at first use; torch does not survive an interrupt in the middle of that
before = state()
"""
LONG = {  # name -> (a cell that takes a minute or so, the same for a moment, what must hold of `result` then)
    "capture": (
        "nf.capture(model, many.repeat(5, 1, 1, 1), layers='layer2', progress=False)",
        "nf.capture(model, images, layers=['layer2', 'layer4'], progress=False)",
        "np.array_equal(result['layer2'], codes['layer2'])",
    ),
    "capture to disk": (
        "nf.capture(model, many, layers='layer2', out=folder, batch_size=64, progress=False)",
        "nf.capture(model, many, layers='layer2', out=folder, batch_size=64, progress=False)",
        "len(result['layer2']) == len(many) and np.allclose(result['layer2'][:600], codes['layer2'], atol=1e-4)",
    ),
    "SOM, torch": (
        "SOM(60, 60, backend='torch', n_epochs=2000, random_state=0).fit(codes['layer4'])",
        "SOM(5, 5, backend='torch', n_epochs=3, random_state=0).fit(codes['layer4'])",
        "np.array_equal(result.labels_, soms['layer4'].labels_)",
    ),
    "SOM, somoclu": (
        "SOM(20, 20, n_epochs=5000, random_state=0).fit(codes['layer4'])",
        "SOM(5, 5, n_epochs=3, random_state=0).fit(codes['layer4'])",
        "np.mean(result.labels_ == soms['layer4'].labels_) > 0.99",
    ),
    "trace": (
        "trace_attack(model, images, labels, soms, epsilons=[0.02], steps=2000, progress=False)",
        "trace_attack(model, images[:20], labels[:20], soms, epsilons=[0.02], steps=2, progress=False)",
        "result.code_change.shape[:2] == (1, 2)",
    ),
    "reconstruct": (
        "reconstruct(model, 'layer4', codes['layer4'][:8], n_steps=20000, progress=False)",
        "reconstruct(model, 'layer4', codes['layer4'][:2], n_steps=3, progress=False)",
        "result.images.shape == (2, 1, 28, 28)",
    ),
    "decoder": (
        "train_decoder(model, images, layers=['layer4'], n_epochs=5000, progress=False)",
        "train_decoder(model, images[:64], layers=['layer4'], n_epochs=1, progress=False)",
        "result.shape == (1, 28, 28)",
    ),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    manager = KernelManager()
    manager.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    assert run(client, START + f"folder = {str(tmp_path_factory.mktemp('codes') / 'out')!r}")["status"] == "ok"
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, cell, timeout=180):
    """Execute a cell and wait for its answer."""
    return client.execute_interactive(cell, timeout=timeout, output_hook=lambda message: None)["content"]


@pytest.mark.parametrize("name", list(LONG))
def test_interrupted_cell_leaves_no_trace_and_runs_again(kernel, name):
    manager, client = kernel
    long, short, claim = LONG[name]
    sent = client.execute(f"started = time.time(); result = None; result = {long}")
    time.sleep(2)
    manager.interrupt_kernel()
    interrupted = time.monotonic()
    while (answer := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != sent:
        pass
    assert answer["content"].get("ename") == "KeyboardInterrupt", answer["content"]
    assert time.monotonic() - interrupted < 30
    check = f"assert result is None\nassert state() == before, (state(), before)\nresult = {short}\nassert {claim}"
    answer = run(client, check)
    assert answer["status"] == "ok", answer
