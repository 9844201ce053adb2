"""Two processes that train one map: gloo on this machine stands for any torch process group."""

import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

import nfcodes_lib as nf
from nfcodes_lib.som import SOM

SETTINGS = {"n_rows": 7, "n_columns": 5, "backend": "torch", "n_epochs": 5, "random_state": 0}


def data():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(901, 12)) * np.linspace(3, 1, 12) + 50).astype(np.float32)


def shard(rank):
    return data()[:400] if rank == 0 else data()[400:]


def join(rank, port, results, tasks, seconds):
    """Become rank `rank` of two, do the tasks, and put what came of each (or its error's text) into `results`."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=seconds))
    for task in tasks:
        try:
            results.put((task.__name__, rank, task(rank)))
        except Exception as error:
            results.put((task.__name__, rank, f"{type(error).__name__}: {error}"))
    results.close()
    results.join_thread()
    os._exit(0)  # a group that has lost a rank cannot be taken down in order


def two_ranks(*tasks, n_results, seconds=300):
    """Do the tasks on two ranks; returns {(name of the task, rank): result} and the exit statuses."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=join, args=(rank, port, results, tasks, seconds)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=300) for _ in range(n_results)]
        for process in processes:
            process.join(60)
        return {(name, rank): result for name, rank, result in found}, [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def fit_pca(rank):
    som = SOM(**SETTINGS).fit(shard(rank))
    return som.codebook_, som.labels_, som.history_


def fit_random(rank):
    som = SOM(**SETTINGS, initialization="random").fit(shard(rank))
    return som.codebook_, som.labels_, som.history_


def fit_int8(rank):
    som = SOM(**SETTINGS, search_dtype="int8").fit(shard(rank))
    return som.codebook_, som.labels_, som.history_


def fit_unseeded(rank):
    return SOM(**{**SETTINGS, "random_state": None}, initialization="random").fit(shard(rank)).codebook_


def fit_nan(rank):
    x = shard(rank)
    if rank == 1:
        x[3, 3] = np.nan
    SOM(**SETTINGS).fit(x)


def fit_other_features(rank):
    SOM(**SETTINGS).fit(shard(rank)[:, : 12 - rank])


def fit_somoclu(rank):
    with pytest.warns(UserWarning, match="that rank's data alone"):
        som = SOM(**{**SETTINGS, "backend": "somoclu"}).fit(shard(rank))
    return som.codebook_


def fit_and_die(rank):
    def leave(epoch):
        if rank == 1 and epoch.index == 2:
            os._exit(9)

    SOM(**SETTINGS).fit(shard(rank), callback=leave)


def fit_and_stall(rank):
    def wait(epoch):
        if rank == 1 and epoch.index == 2:
            time.sleep(60)
            os._exit(9)

    SOM(**SETTINGS).fit(shard(rank), callback=wait)


@pytest.fixture(scope="module")
def together():
    """What seven jobs, one after the other in one process group, gave on each rank."""
    jobs = fit_nan, fit_other_features, fit_pca, fit_random, fit_int8, fit_unseeded, fit_somoclu
    found, status = two_ranks(*jobs, n_results=14)
    assert status == [0, 0]
    return found


@pytest.mark.parametrize(
    ("task", "settings"),
    [("fit_pca", {}), ("fit_random", {"initialization": "random"}), ("fit_int8", {"search_dtype": "int8"})],
)
def test_two_ranks_make_the_map_of_one(task, settings, together):
    alone = SOM(**SETTINGS, **settings).fit(data())
    codebooks, labels, histories = zip(together[task, 0], together[task, 1], strict=True)
    np.testing.assert_array_equal(codebooks[0], codebooks[1])
    assert np.abs(codebooks[0] - alone.codebook_).max() < 1e-5 * np.abs(alone.codebook_).max()
    assert (np.concatenate(labels) == alone.labels_).mean() > 0.998
    np.testing.assert_allclose(histories[0], alone.history_, rtol=1e-5)


def test_without_a_seed_the_ranks_still_agree(together):
    np.testing.assert_array_equal(together["fit_unseeded", 0], together["fit_unseeded", 1])


def test_bad_data_on_one_rank_stop_both_and_the_group_lives_on(together):
    assert "NaN" in together["fit_nan", 1]
    assert together["fit_nan", 0].startswith("RuntimeError: rank 1 of 2 refused its data")


def test_ranks_that_differ_are_told(together):
    for rank in (0, 1):
        assert "same map and the same number of features on every rank" in together["fit_other_features", rank]
        assert "[[12, 7, 5, 5], [11, 7, 5, 5]]" in together["fit_other_features", rank]


def test_somoclu_stays_with_its_own_rank(together):
    for rank in (0, 1):
        alone = SOM(**{**SETTINGS, "backend": "somoclu"}).fit(shard(rank)).codebook_
        np.testing.assert_allclose(together["fit_somoclu", rank], alone, atol=1e-5)


def test_a_rank_that_dies_ends_the_job():
    found, status = two_ranks(fit_and_die, n_results=1)
    assert status == [0, 9]
    assert found["fit_and_die", 0].startswith("RuntimeError: rank 0 of 2 lost contact while training the map")


@pytest.mark.slow
def test_a_rank_that_stalls_ends_the_job_at_the_timeout():
    found, status = two_ranks(fit_and_stall, n_results=1, seconds=30)
    assert status[0] == 0
    assert "lost contact" in found["fit_and_stall", 0]


def test_the_script_of_the_book_runs_under_torchrun(tmp_path):
    page = (Path(__file__).parents[1] / "book" / "scale.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    (tmp_path / "train_map.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train_map.py"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    together = SOM.load(tmp_path / "layer4.npz")
    shares = [nf.LayerCodes.load(tmp_path / f"codes-rank{rank}-of-2")["layer4"] for rank in range(2)]
    alone = SOM(10, 10, backend="torch", n_epochs=10, random_state=0).fit(np.concatenate(shares))
    assert abs(together.quantization_error(shares[0]) / alone.quantization_error(shares[0]) - 1) < 0.01
