"""Captures to disk: within little memory, going on after any end, and stopping cleanly where nothing can be written."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import nfcodes_lib as nf
from nfcodes_lib import _codes_writer, _npy_file

PREAMBLE = """
    import resource, sys, time, warnings
    import numpy as np, torch
    from torch import nn
    import nfcodes_lib as nf
    torch.set_num_threads(1)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, n, side, wait=0):
            self.n, self.side, self.wait = n, side, wait
        def __len__(self):
            return self.n
        def __getitem__(self, i):
            time.sleep(self.wait)
            return torch.sin(torch.arange(self.side**2, dtype=torch.float32) * (i + 1)).reshape(1, self.side, self.side)

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten(), nn.Linear(64, 3)).eval()
"""


def script(text):
    return textwrap.dedent(PREAMBLE) + textwrap.dedent(text)


def run(text, *arguments):
    command = [sys.executable, "-c", script(text), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


@pytest.fixture
def pictures():
    return torch.rand(22, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# --- memory


LARGE = """
    nf.capture(network(), Pictures(8, 32), layers="0", pool="none", batch_size=4, out=sys.argv[1] + "/warm")
    held = [line for line in open("/proc/self/status") if line.startswith("VmData")][0]
    limit = int(held.split()[1]) * 1024 + 64 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    out = sys.argv[1] + "/codes" if sys.argv[2] == "disk" else None
    codes = nf.capture(network(), Pictures(600, 32), layers="0", pool="none", batch_size=4, out=out)
    if out:
        codes.save(sys.argv[1] + "/copy")
    print("finished", codes["0"].nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts RLIMIT_DATA as this needs it")
def test_codes_larger_than_memory_stream_to_disk(tmp_path):
    """150 MiB of codes in a process that may allocate 64 MiB more, captured and then copied."""
    finished = run(LARGE, tmp_path, "disk")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["finished", str(600 * 64 * 32 * 32 * 4)]
    codes, copy = (nf.LayerCodes.load(tmp_path / name) for name in ("codes", "copy"))
    np.testing.assert_array_equal(codes["0"][-1], copy["0"][-1])
    failed = run(LARGE, tmp_path / "other", "memory")
    assert failed.returncode != 0, "the limit of this test is one: in memory they do not fit"
    assert "MemoryError" in failed.stderr or "alloc" in failed.stderr


# --- going on

SLOW = """
    from nfcodes_lib import _codes_writer
    _codes_writer.CHECKPOINT_SECONDS = 0
    wait = float(sys.argv[2])
    codes = nf.capture(network(), Pictures(60, 8, wait), layers=["0", "2"], pool=2, batch_size=4, out=sys.argv[1])
    print(codes)
"""


def test_a_killed_capture_goes_on_and_ends_with_the_same_bytes(tmp_path):
    out = tmp_path / "killed"
    victim = subprocess.Popen([sys.executable, "-c", script(SLOW), str(out), "0.05"], stderr=subprocess.DEVNULL)
    progress = tmp_path / ".killed.partial" / "progress.json"
    deadline = time.monotonic() + 300
    while not (progress.exists() and json.loads(progress.read_text())["n_batches"] >= 3):
        assert victim.poll() is None, "the capture ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not out.exists()
    done = json.loads(progress.read_text())["n_images"]
    assert 12 <= done < 60
    resumed = run(SLOW, out, 0)
    assert resumed.returncode == 0, resumed.stderr
    whole = run(SLOW, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    assert content(out) == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


class StopsAt(Dataset):
    """Images, until one cannot be read; counts how many were asked for."""

    def __init__(self, images, stop, error=KeyboardInterrupt):
        self.images, self.stop, self.error, self.asked = images, stop, error, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i == self.stop:
            raise self.error("stop")
        self.asked.append(i)
        return self.images[i]


ARGUMENTS = {"layers": ["0", "2"], "batch_size": 4, "progress": False}


def interrupt(net, pictures, out, stop=14, **arguments):
    with pytest.raises(KeyboardInterrupt) as caught:
        nf.capture(net, StopsAt(pictures, stop), out=out, **ARGUMENTS | arguments)
    return caught.value


@pytest.mark.parametrize("stop", [5, 14, 21])
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_an_interrupted_capture_goes_on(net, pictures, tmp_path, stop, kind):
    error = interrupt(net, pictures, tmp_path / "codes", stop)
    (note,) = error.__notes__
    assert f"the codes of the first {stop // 4 * 4} images are kept in" in note
    assert [path.name for path in tmp_path.iterdir()] == [".codes.partial"]
    again = StopsAt(pictures, None)
    source = again if kind == "dataset" else DataLoader(again, 4)
    codes = nf.capture(net, source, out=tmp_path / "codes", **ARGUMENTS)
    if kind == "dataset":
        done = stop // 4
        looked_at = sorted({*range(4), *range(4 * done - 4, 22)})
        assert again.asked == looked_at, "the first and last batch once more, and what was missing"
    nf.capture(net, pictures, out=tmp_path / "whole", **ARGUMENTS)
    assert content(tmp_path / "codes") == content(tmp_path / "whole")
    memory = nf.capture(net, pictures, **ARGUMENTS)
    np.testing.assert_array_equal(codes["2"], memory["2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes", "whole"]


def test_an_image_that_cannot_be_read_loses_nothing(net, pictures, tmp_path):
    with pytest.raises(OSError, match="stop") as caught:
        nf.capture(net, StopsAt(pictures, 9, OSError), out=tmp_path / "codes", **ARGUMENTS)
    assert "first 8 images" in caught.value.__notes__[0]
    assert len(nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)["0"]) == 22


def test_another_model_does_not_go_on(net, pictures, tmp_path):
    interrupt(net, pictures, tmp_path / "codes")
    before = content(tmp_path / ".codes.partial")
    with torch.no_grad():
        net[0].weight.mul_(1.01)
    with pytest.raises(
        ValueError, match=r"expected the same model and images .* of its first batch; pass resume=False"
    ):
        nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
    after = content(tmp_path / ".codes.partial")
    assert {name: after[name] for name in before if name.endswith("npy")} == {
        name: before[name] for name in before if name.endswith("npy")
    }
    codes = nf.capture(net, pictures, out=tmp_path / "codes", resume=False, **ARGUMENTS)
    np.testing.assert_array_equal(codes["0"], nf.capture(net, pictures, **ARGUMENTS)["0"])


def test_other_images_do_not_go_on(net, pictures, tmp_path):
    interrupt(net, pictures, tmp_path / "codes")
    pictures[8:12] *= 0.5
    with pytest.raises(ValueError, match=r"got other codes of its last batch"):
        nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)


@pytest.mark.parametrize(
    "other", [{"batch_size": 5}, {"layers": ["0"]}, {"pool": "max"}, {"precision": "bfloat16"}, {"logits": False}]
)
def test_other_settings_do_not_go_on(net, pictures, tmp_path, other):
    interrupt(net, pictures, tmp_path / "codes")
    (name,) = other
    with pytest.raises(ValueError, match=rf"expected the settings of the interrupted capture .*'{name}'"):
        nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS | other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "progress.json").unlink(),
        lambda folder: (folder / "progress.json").write_text('{"settings": {'),
        lambda folder: (folder / "progress.json").write_text("[]"),
        lambda folder: os.truncate(folder / "00-0.npy", 150),
        lambda folder: (folder / "01-2.npy").unlink(),
    ],
)
def test_damaged_remains_are_started_over(net, pictures, tmp_path, damage):
    interrupt(net, pictures, tmp_path / "codes")
    damage(tmp_path / ".codes.partial")
    codes = nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
    np.testing.assert_array_equal(codes["0"], nf.capture(net, pictures, **ARGUMENTS)["0"])


def test_half_a_batch_is_cut_off(net, pictures, tmp_path):
    """What a kill between two files leaves: rows that no checkpoint counts."""
    interrupt(net, pictures, tmp_path / "codes")
    with open(tmp_path / ".codes.partial" / "00-0.npy", "ab") as stream:
        stream.write(b"\x00" * 17)
    codes = nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
    np.testing.assert_array_equal(codes["0"], nf.capture(net, pictures, **ARGUMENTS)["0"])


def test_two_captures_do_not_write_to_one_folder(net, pictures, tmp_path):
    pytest.importorskip("fcntl")

    class Meddles(StopsAt):
        def __getitem__(self, i):
            if i == 9:
                with pytest.raises(OSError, match=r"expected to be alone in writing .* another process does"):
                    nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
            return super().__getitem__(i)

    codes = nf.capture(net, Meddles(pictures, None), out=tmp_path / "codes", **ARGUMENTS)
    np.testing.assert_array_equal(codes["0"], nf.capture(net, pictures, **ARGUMENTS)["0"])


# --- where nothing can be written

FULL = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
    try:
        nf.capture(network(), Pictures(60, 16), layers="0", pool="none", batch_size=4, out=sys.argv[1])
    except OSError as error:
        print(error)
        print(*error.__notes__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_file_that_cannot_grow_stops_the_capture(tmp_path):
    """The kernel's own refusal, by a limit on the size of files."""
    refused = run(FULL, tmp_path / "codes")
    assert refused.returncode == 0, refused.stderr
    message, note = refused.stdout.splitlines()
    assert "cannot write the codes of" in message
    assert "File too large; make room, then capture again, or choose another `out`" in message
    assert note.startswith("the codes of the first 8 images are kept in")
    assert [path.name for path in tmp_path.iterdir()] == [".codes.partial"]


def test_a_disk_that_fills_up_loses_nothing(net, pictures, tmp_path, monkeypatch):
    write, room = os.write, 900

    def write_while_there_is_room(handle, data):
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= len(data)
        return write(handle, data)

    monkeypatch.setattr(_npy_file.os, "write", write_while_there_is_room)
    with pytest.raises(
        OSError, match=r"cannot write the codes of .*codes: No space left .*; make room, then capture"
    ) as e:
        nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
    assert e.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == [".codes.partial"]
    monkeypatch.undo()
    codes = nf.capture(net, pictures, out=tmp_path / "codes", **ARGUMENTS)
    np.testing.assert_array_equal(codes["0"], nf.capture(net, pictures, **ARGUMENTS)["0"])


def test_a_copy_that_fails_leaves_nothing(net, pictures, tmp_path, monkeypatch):
    codes = nf.capture(net, pictures, **ARGUMENTS)

    def refuse(handle, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_npy_file.os, "write", refuse)
    with pytest.raises(OSError, match=r"cannot write the codes of .*No space left"):
        codes.save(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_after_the_first_batch(net, pictures, tmp_path, monkeypatch):
    free = 22 * 2 * 4 * 4  # bytes: less than the three files will hold
    monkeypatch.setattr(_codes_writer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    source = StopsAt(pictures, None)
    with pytest.raises(OSError, match=r"the codes need 0\.0 GB more, and 0\.0 GB are free; make room") as caught:
        nf.capture(net, source, out=tmp_path / "codes", **ARGUMENTS)
    assert caught.value.errno == errno.ENOSPC
    assert source.asked == [0, 1, 2, 3]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def read_only(tmp_path):
    """A folder in which this process may not write, whoever it is."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if is_root:  # root may write anywhere: be nobody for a while
        for parent in folder.parents:
            if parent.stat().st_mode & 0o005 != 0o005:  # nobody has to get there: pytest's folders, one more with xdist
                parent.chmod(0o755)
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders have no such mode")
def test_a_read_only_folder_is_named(net, pictures, read_only):
    with pytest.raises(PermissionError, match=r"cannot make the codes of .*; choose a folder that can be written"):
        nf.capture(net, pictures, out=read_only / "codes", **ARGUMENTS)
    with pytest.raises(PermissionError, match="cannot make the codes of"):
        nf.capture(net, pictures, **ARGUMENTS).save(read_only / "codes")
    assert list(read_only.iterdir()) == []


def test_a_file_in_the_way_is_named(net, pictures, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot make the codes of"):
        nf.capture(net, pictures, out=tmp_path / "file" / "codes", **ARGUMENTS)
    assert (tmp_path / "file").read_text() == "mine"


def test_header_is_what_numpy_writes(tmp_path):
    for n_rows, n_columns in ((0, 1), (7, 3), (1_281_167 * 3136, 512)):
        header = _npy_file.npy_header(n_rows, n_columns)
        assert len(header) == 128
        (tmp_path / "a.npy").write_bytes(header)
        with open(tmp_path / "a.npy", "rb") as stream:
            np.lib.format.read_magic(stream)
            assert np.lib.format.read_array_header_1_0(stream) == ((n_rows, n_columns), False, np.dtype("<f4"))
