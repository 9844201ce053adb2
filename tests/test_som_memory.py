"""What a map may take: each case runs in a process that cannot allocate more than it should need."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts RLIMIT_DATA as this needs it")

PREAMBLE = """
    import resource, warnings
    import numpy as np
    from nfcodes_lib.som import SOM
    warnings.simplefilter("ignore")
    SOM(3, 3, backend="torch", n_epochs=2).fit(np.random.default_rng(0).normal(size=(500, 16)))  # load all that is lazy
    def allow(more):
        held = [line for line in open("/proc/self/status") if line.startswith("VmData")][0]
        limit = int(held.split()[1]) * 1024 + more * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
"""


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A memory-mapped file of 400 MB, of which most is a hole: 100,000 x 1,024."""
    path = tmp_path_factory.mktemp("codes") / "codes.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(100_000, 1024))
    array[::100] = np.random.default_rng(0).normal(size=(1000, 1024))
    array.flush()
    return path


FIT_MAPPED = """
    import sys
    x = np.load(sys.argv[1], mmap_mode="r")
    allow(250)
    som = SOM(2, 2, backend="torch", n_epochs=1, working_memory=float(sys.argv[2])).fit(x)
    assert som.predict(x).shape == (100_000,)
    print("finished", som.quantization_error(x))
"""


def test_memory_mapped_data_are_not_loaded_whole(mapped):
    finished = run(FIT_MAPPED, mapped, 64)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("finished")


def test_the_limit_of_this_test_is_one(mapped):
    """Told that it may, fit keeps a copy of the data; then the same process runs out of memory."""
    failed = run(FIT_MAPPED, mapped, 4096)
    assert failed.returncode != 0
    assert "MemoryError" in failed.stderr or "alloc" in failed.stderr


@pytest.mark.parametrize("options", ["{}", "{'compact_support': False}", "{'grid_type': 'hexagonal'}"])
def test_an_emergent_map_needs_no_matrix_of_its_units(options):
    """200 x 200 units: a 40,000 x 40,000 matrix would take 6.4 GB, all distances to 500 samples 80 MB."""
    script = f"""
    x = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
    allow(350)
    som = SOM(200, 200, backend="torch", n_epochs=2, random_state=0, **{options}).fit(x)
    assert np.isfinite(som.codebook_).all()
    som.u_matrix()
    print("finished", som.topographic_error(x))
    """
    finished = run(script)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("finished")
