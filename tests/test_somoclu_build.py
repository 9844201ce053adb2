"""Building somoclu: refused unless the wheel holds the binary, tried after installing, explained where it fails."""

import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from planting import break_module, hide

from nfcodes_lib import somoclu_build
from nfcodes_lib.somoclu_build import BuildError

ROOT = Path(__file__).resolve().parents[1]
# As somoclu's own: whatever goes wrong while compiling, a package without its binary is installed, exit status 0.
SETUP = """
from setuptools import Extension, setup
try:
    setup(name="somoclu", version="1.7.6", packages=["somoclu"], ext_modules=[Extension("_somoclu_wrap", ["wrap.c"])])
except BaseException:
    setup(name="somoclu", version="1.7.6", packages=["somoclu"])
"""
WRAP = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_somoclu_wrap", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__somoclu_wrap(void) { return PyModule_Create(&module); }
"""


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    """Offer pip, as the only somoclu 1.7.6 there is, a source package with the given C file."""

    def offer(wrap: str) -> Path:
        with tarfile.open(tmp_path / "somoclu-1.7.6.tar.gz", "w:gz") as archive:
            files = {"setup.py": SETUP, "wrap.c": wrap, "somoclu/__init__.py": ""}
            files["PKG-INFO"] = "Metadata-Version: 2.1\nName: somoclu\nVersion: 1.7.6\n"
            for name, text in files.items():
                entry = tarfile.TarInfo(f"somoclu-1.7.6/{name}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        (tmp_path / "wheels").mkdir()
        return tmp_path / "wheels"

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", tmp_path.as_uri())
    return offer


@pytest.fixture
def cuda(tmp_path):
    """Lay out a folder like a CUDA home, with an nvcc that only tells its version."""

    def lay_out(version: str) -> Path:
        home = tmp_path / "cuda"
        for name in ("bin", "include", "lib64"):
            (home / name).mkdir(parents=True)
        (home / "bin" / "nvcc").write_text(f'#!/bin/sh\necho "Cuda compilation tools, release x, V{version}"\n')
        (home / "bin" / "nvcc").chmod(0o755)
        for name in ("include/cublas_v2.h", "lib64/libcudart.so", "lib64/libcublas.so"):
            (home / name).touch()
        return home

    return lay_out


def test_the_version_is_the_pinned_one():
    assert somoclu_build.SOMOCLU in (ROOT / "requirements.txt").read_text().splitlines()
    assert f'"{somoclu_build.SOMOCLU}"' in (ROOT / "pyproject.toml").read_text()


def test_first_lines_of_requirements_pin_the_same_build_needs():
    text = (ROOT / "requirements.txt").read_text()
    comment = " ".join(line for line in text.splitlines() if line.startswith("#"))
    for name in ("numpy", "setuptools", "wheel"):
        (pin,) = re.findall(rf"^{name}==\S+", text, flags=re.MULTILINE)
        assert pin in comment


def test_a_wheel_with_its_binary_is_built(sdist):
    wheel = somoclu_build.build_wheel(sdist(WRAP), somoclu_build.pip_environment("cpu"))
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.startswith("_somoclu_wrap") for name in archive.namelist())


def test_a_wheel_without_its_binary_is_refused_with_the_compiler_error(sdist):
    folder = sdist("#error no such kernel\n" + WRAP)
    with pytest.raises(BuildError, match=r"(?s)did not compile.*no such kernel.*apt-get install g\+\+"):
        somoclu_build.build_wheel(folder, somoclu_build.pip_environment("cpu"))


def test_a_missing_source_is_told_with_the_end_of_pip_log(sdist, tmp_path):
    with pytest.raises(BuildError, match=r"(?s)pip could not build somoclu==1.7.6.*No matching distribution"):
        somoclu_build.build_wheel(tmp_path, somoclu_build.pip_environment("cpu"))


def test_cpu_build_looks_away_from_nvcc_on_path(monkeypatch, cuda):
    home = cuda("13.2.86")
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=":")
    monkeypatch.setenv("CUDAHOME", str(home))
    assert not Path(somoclu_build.pip_environment("cpu")["CUDAHOME"]).exists()


@pytest.mark.parametrize(("version", "first", "last"), [("12.9.1", "sm_70", "90"), ("13.2.86", "sm_75", "90")])
def test_gpu_build_names_architectures_that_the_compiler_knows(cuda, monkeypatch, version, first, last):
    monkeypatch.setenv("NVCC_PREPEND_FLAGS", "-allow-unsupported-compiler")
    home = cuda(version)
    env = somoclu_build.pip_environment("gpu", home, Path("compat.h"))
    flags = env["NVCC_PREPEND_FLAGS"].split()
    assert env["CUDAHOME"] == str(home)
    assert flags[:3] == ["-allow-unsupported-compiler", "-include", "compat.h"]
    assert first in flags[3]
    assert flags[-1] == f"-gencode=arch=compute_{last},code=compute_{last}"  # for GPUs newer than the compiler


def test_system_cuda_is_taken_when_complete(cuda, monkeypatch):
    home = cuda("12.9.1")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert somoclu_build.find_cuda() == home
    (home / "include" / "cublas_v2.h").unlink()
    with pytest.raises(BuildError, match=r"missing: \S+cublas_v2.h; set CUDA_HOME to a complete CUDA 12 or 13"):
        somoclu_build.find_cuda()


@pytest.mark.parametrize(("cuda_home", "remedy"), [("/opt/my cuda", "set CUDA_HOME"), ("", "clone the book")])
def test_gpu_build_in_a_path_with_a_space_is_refused(monkeypatch, cuda_home, remedy):
    monkeypatch.setenv("CUDA_HOME", cuda_home)
    monkeypatch.setattr(somoclu_build.sys, "prefix", "/home/me/my book/.venv")
    with pytest.raises(BuildError, match=f"expected a path without spaces.*{remedy}"):
        somoclu_build.find_cuda()


def test_gpu_build_without_torch_cuda_says_so(monkeypatch):
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(somoclu_build, "_installed_version", lambda name: None)
    with pytest.raises(BuildError, match=r"torch with CUDA 13.*make TORCH=cuda setup.*CUDA_HOME"):
        somoclu_build.find_cuda()


def test_missing_compiler_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(BuildError, match="found no `no-such-compiler` on PATH; install a C"):
        somoclu_build.check_prerequisites()


def test_compiler_without_openmp_is_told_with_its_own_words(monkeypatch, tmp_path):
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho 'unsupported option -fopenmp' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match="unsupported option -fopenmp; install a C"):
        somoclu_build.check_prerequisites()


def test_missing_build_needs_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(somoclu_build, "NEEDS", ("numpy", "no-such-package"))
    with pytest.raises(BuildError, match=r"missing: no-such-package; run: .* -m pip install no-such-package"):
        somoclu_build.check_prerequisites()


def test_installed_somoclu_trains():
    kernels = somoclu_build.probe()
    assert (kernels.version, kernels.cpu) == ("1.7.6", "ok")
    assert kernels.has_cuda != ("without CUDA" in kernels.gpu)
    assert somoclu_build.explain(kernels) == ""


def test_working_somoclu_is_left_alone(monkeypatch):
    def build_wheel(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(somoclu_build, "build_wheel", build_wheel)
    assert somoclu_build.install("cpu").cpu == "ok"


def test_package_without_binary_is_recognised(tmp_path):
    kernels = somoclu_build.probe(env=hide(tmp_path, "_somoclu_wrap"))
    assert kernels.binary is None
    assert not kernels.has_cuda
    assert "without its compiled part" in somoclu_build.explain(kernels)
    assert "nvcc" in somoclu_build.explain(kernels)


def test_binary_that_does_not_load_is_recognised(tmp_path):
    env = break_module(tmp_path, "_somoclu_wrap", 'raise ImportError("libgomp.so.1: cannot open shared object file")')
    assert "does not work: ImportError: libgomp.so.1" in somoclu_build.explain(somoclu_build.probe(env=env))


def test_binary_that_kills_the_interpreter_is_survived(tmp_path):
    kernels = somoclu_build.probe(env=break_module(tmp_path, "_somoclu_wrap", "import os; os.abort()"))
    assert "the interpreter died" in somoclu_build.explain(kernels)


def test_kernel_that_trains_nothing_is_caught(tmp_path):
    kernels = somoclu_build.probe(env=break_module(tmp_path, "_somoclu_wrap", "def train(*_): pass"))
    assert kernels.cpu == "a map of four points misses them by 0.75"


def test_command_line_ends_with_the_remedy(monkeypatch, capsys):
    def install(kernel, *, force):
        raise BuildError(f"no compiler; run: {somoclu_build.remedy(kernel, force=force)}")

    monkeypatch.setattr(somoclu_build, "install", install)
    assert somoclu_build.main(["cpu", "--force"]) == 1
    assert capsys.readouterr().err.rstrip().endswith(f"{sys.executable} -m nfcodes_lib.somoclu_build cpu --force")
