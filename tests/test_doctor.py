"""The doctor: reports on planted damage, names what mends it, and always reaches the end of its report."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planting import break_module, environment, hide

from nfcodes_lib import _assets, doctor
from nfcodes_lib.doctor import FAIL, NOTE, OK, Finding

ROOT = Path(__file__).resolve().parents[1]


def report(env=None):
    """Run ``python -m nfcodes_lib`` in a process of its own; return its exit status and the report's lines."""
    run = subprocess.run([sys.executable, "-m", "nfcodes_lib"], capture_output=True, text=True, cwd=ROOT, env=env)
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout.splitlines()


def finding(lines, words):
    """Return the one line that holds `words`, and the line after it."""
    (index,) = [index for index, line in enumerate(lines) if words in line]
    return lines[index], lines[index + 1]


@pytest.fixture
def assets(tmp_path):
    """Copy two embedded files and a manifest that lists them and nothing else."""
    names = [name for name in _assets.manifest() if "labels" in name]
    assert len(names) == 2
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(_assets.ASSETS / name, tmp_path / name)
        _assets.register(name, source="a copy", license="MIT", root=tmp_path)
    return tmp_path, names


def test_healthy_machine_can_run_the_book():
    status, lines = report()
    assert (status, lines[-1]) == (0, "the book can run")
    for words in ("Python 3.", "numpy ", "torch ", "jupyter-book ", "CPU kernel trains", "SHA-256", "GB free"):
        assert any(line.startswith("ok") and words in line for line in lines), words
    assert not any(line.startswith(FAIL) for line in lines)


def test_missing_torch_is_reported_not_raised(tmp_path):
    status, lines = report(hide(tmp_path, "torch"))
    line, remedy = finding(lines, "torch 2.15.0 is installed but cannot be imported")
    assert line.startswith(FAIL)
    assert "No module named 'torch'" in line
    assert remedy.strip() == f"mend: {doctor.pip_command('torch', reinstall=True)}"
    assert status == 1
    assert lines[-1].startswith("the book cannot run")
    assert finding(lines, "`import nfcodes_lib` fails")[0].startswith(FAIL)


def test_torch_whose_libraries_do_not_load_is_reported(tmp_path):
    status, lines = report(break_module(tmp_path, "torch", 'raise OSError("libcudart.so.13: cannot open")'))
    assert finding(lines, "torch 2.15.0 is installed but cannot be imported (OSError: libcudart")[0].startswith(FAIL)
    assert status == 1


def test_library_without_torch_points_to_the_doctor(tmp_path):
    env = hide(tmp_path, "torch")
    run = subprocess.run(
        [sys.executable, "-c", "import nfcodes_lib"], capture_output=True, text=True, cwd=ROOT, env=env
    )
    assert run.returncode == 1
    assert "`python -m nfcodes_lib`" in run.stderr.splitlines()[-1]


def test_somoclu_without_its_binary_cannot_run_the_book(tmp_path, monkeypatch):
    probe, env = doctor.somoclu_build.probe, hide(tmp_path, "_somoclu_wrap")
    monkeypatch.setattr(doctor.somoclu_build, "probe", lambda: probe(env=env))
    (found,) = doctor.check_somoclu()
    assert found.state == FAIL
    assert "installed without its compiled part" in found.text
    assert found.remedy.endswith("-m nfcodes_lib.somoclu_build cpu")


def test_package_that_is_not_there_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "BOOK_NEEDS", ("no-such-package",))
    monkeypatch.setattr(doctor, "pins", lambda: {"no-such-package": "1.2", "no-such-tool": "3.4"})
    needed, tool = doctor.check_packages()
    assert (needed.state, needed.text) == (FAIL, "no-such-package is not installed")
    assert needed.remedy.endswith(("no-such-package==1.2", "setup, then use its .venv/bin/python"))
    assert tool.state == NOTE


def test_other_version_than_pinned_is_noted(monkeypatch):
    monkeypatch.setattr(doctor, "BOOK_NEEDS", ())
    monkeypatch.setattr(doctor, "pins", lambda: {"numpy": "0.9"})
    (found,) = doctor.check_packages()
    assert found.state == NOTE
    assert found.text.endswith("the book was made with 0.9")


def test_cpu_wheels_of_torch_count_as_the_pinned_version(monkeypatch):
    monkeypatch.setattr(doctor, "BOOK_NEEDS", ())
    monkeypatch.setattr(doctor, "pins", lambda: {"torch": "2.15.0"})
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.15.0+cpu")
    assert list(doctor.check_packages()) == [Finding(OK, "torch 2.15.0+cpu")]


def test_pins_are_read_from_the_file(tmp_path):
    (tmp_path / "r.txt").write_text("# a comment==1\nnumpy==2.4.6\n\njupyter-book==1.0.4.post1  # why\n")
    assert doctor.pins(tmp_path / "r.txt") == {"numpy": "2.4.6", "jupyter-book": "1.0.4.post1"}
    assert doctor.pins(tmp_path / "none.txt") == {}
    assert set(doctor.BOOK_NEEDS) <= set(doctor.pins())


def test_outside_the_checkout_environment_the_remedy_is_to_make_one(monkeypatch):
    monkeypatch.setattr(doctor.sys, "prefix", "/usr")
    assert doctor.pip_command("torch").startswith("make -C ")
    monkeypatch.setattr(doctor.sys, "prefix", str(ROOT / ".venv"))
    assert doctor.pip_command("torch").endswith(f"-m pip install torch=={doctor.pins()['torch']}")


def test_sound_assets_are_listed_with_their_checksums(assets):
    root, names = assets
    found = list(doctor.check_assets(root))
    assert [f.state for f in found] == [OK, OK]
    assert all(name in f.text and "SHA-256" in f.text for name, f in zip(names, found, strict=True))


def test_truncated_altered_and_missing_assets_each_fail(assets):
    root, (first, second) = assets
    path = root / first
    path.write_bytes(path.read_bytes()[:-100])
    altered = bytearray((root / second).read_bytes())
    altered[50] ^= 1
    (root / second).write_bytes(altered)
    truncated, changed = doctor.check_assets(root)
    assert truncated.state == changed.state == FAIL
    assert "truncated" in truncated.text
    assert first in truncated.text
    assert "expected SHA-256" in changed.text
    path.unlink()
    assert "found nothing there" in next(doctor.check_assets(root)).text
    (root / "MANIFEST.json").unlink()
    (no_manifest,) = doctor.check_assets(root)
    assert no_manifest.state == FAIL
    assert "git checkout" in no_manifest.text


def test_gpu_kernel_compiled_but_without_a_device_is_a_note(monkeypatch):
    class Compiled(doctor.somoclu_build.Kernels):
        has_cuda = True

    kernels = Compiled("1.7.6", "_somoclu_wrap.so", "ok", "RuntimeError: cudaGetDeviceCount: 35")
    monkeypatch.setattr(doctor.somoclu_build, "probe", lambda: kernels)
    cpu, gpu = doctor.check_somoclu()
    assert (cpu.state, gpu.state) == (OK, NOTE)
    assert "shows no usable CUDA device (RuntimeError: cudaGetDeviceCount: 35)" in gpu.text


def test_little_disk_is_noted(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 10**10, 5 * 10**8))
    (found,) = doctor.check_disk()
    assert found.state == NOTE
    assert "building takes up to 2 GB" in found.text


def test_missing_kernel_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    (found,) = doctor.check_kernel()
    assert found.state == FAIL
    assert "no Jupyter kernel" in found.text


def plant_kernel(monkeypatch, tmp_path, text):
    spec = tmp_path / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(text)
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    return list(doctor.check_kernel())


def test_kernel_of_an_environment_that_was_moved_fails(monkeypatch, tmp_path):
    (found,) = plant_kernel(monkeypatch, tmp_path, '{"argv": ["/old/place/bin/python", "-m", "ipykernel_launcher"]}')
    assert found.state == FAIL
    assert "starts /old/place/bin/python, which is not there" in found.text
    assert found.remedy == f"{sys.executable} -m ipykernel install --sys-prefix"


@pytest.mark.parametrize("text", ["", "[]", '{"argv": []}', '{"argv": 3}'])
def test_damaged_kernel_fails(monkeypatch, tmp_path, text):
    (found,) = plant_kernel(monkeypatch, tmp_path, text)
    assert (found.state, "cannot be read" in found.text) == (FAIL, True)
    assert found.remedy.endswith("ipykernel install --sys-prefix")


def test_kernel_that_names_no_path_is_this_environments(monkeypatch, tmp_path):
    assert [f.state for f in plant_kernel(monkeypatch, tmp_path, '{"argv": ["python"]}')] == [OK]


def run_answers(monkeypatch, returncode=0, stdout="", stderr=""):
    answer = subprocess.CompletedProcess([], returncode, stdout, stderr)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **options: answer)
    return list(doctor.check_library())


def test_library_that_is_not_installed_fails(monkeypatch):
    (found,) = run_answers(monkeypatch, 1, stderr="ModuleNotFoundError: No module named 'nfcodes_lib'")
    assert found.state == FAIL
    assert "is not installed in this environment" in found.text
    assert found.remedy.endswith(f"pip install --no-deps --no-build-isolation -e {ROOT}")


def test_another_copy_of_the_library_is_noted(monkeypatch):
    (found,) = run_answers(monkeypatch, 0, stdout="/elsewhere/nfcodes_lib/__init__.py\n")
    assert found.state == NOTE
    assert "another copy of nfcodes_lib, /elsewhere/nfcodes_lib/__init__.py" in found.text
    assert [f.state for f in run_answers(monkeypatch, 0, stdout=f"{ROOT}/nfcodes_lib/__init__.py\n")] == [OK]


def test_torch_without_numpy_fails(monkeypatch):
    import torch

    def refuse(self):
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch.Tensor, "numpy", refuse)
    found = next(doctor.check_devices())
    assert found.state == FAIL
    assert "torch and numpy do not work together (Numpy is not available)" in found.text
    assert found.remedy == doctor.pip_command("torch numpy", reinstall=True)


@pytest.mark.parametrize(
    ("cuda", "words", "remedy"),
    [(None, "built for the CPU alone", "make TORCH=cuda setup"), ("13.2", "built for CUDA 13.2, cannot use", "driver")],
)
def test_gpu_that_torch_cannot_use_is_noted(monkeypatch, cuda, words, remedy):
    import torch

    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (found,) = [found for found in doctor.check_devices() if found.state == NOTE]
    assert words in found.text
    assert remedy in found.remedy


def test_no_place_for_temporary_files_fails(monkeypatch):
    def refuse():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = next(doctor.check_disk())
    assert (found.state, found.remedy) == (FAIL, "export TMPDIR=<a folder that you may write>")


def test_report_is_printed_where_only_ascii_can_be(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert doctor.main((lambda: iter([Finding(OK, "SHA-256 12…")]),)) == 0
    screen.flush()
    assert screen.buffer.getvalue().splitlines()[0] == b"ok    SHA-256 12?"


def test_check_that_fails_itself_does_not_end_the_report(capsys):
    def check_moon():
        raise ZeroDivisionError("no moon")
        yield

    def check_sun():
        yield Finding(OK, "the sun")

    assert doctor.main((check_moon, check_sun)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "note  check_moon could not be carried out (ZeroDivisionError: no moon)",
        "ok    the sun",
        "",
        "the book can run",
    ]


def test_status_counts_failures_only(capsys):
    def check():
        yield Finding(NOTE, "slow", "buy more")
        yield Finding(FAIL, "broken", "mend it")

    assert doctor.main((check,)) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "the book cannot run: 1 to mend"


def test_planted_environment_keeps_the_rest(tmp_path):
    assert environment(tmp_path)["PATH"] == os.environ["PATH"]
