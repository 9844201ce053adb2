"""Compile somoclu, which PyPI offers as source only, and prove that what was installed can train.

``pip install somoclu`` can succeed and leave nothing that works: its build needs numpy without declaring it, and its
``setup.py`` answers any compile error by installing the package without its binary. So this script checks the compiler
first, builds a wheel, looks for the binary inside that wheel before it replaces anything, and then trains a small map
with what it installed. It needs nothing beyond the standard library, and so runs before anything else is installed::

    python nfcodes_lib/somoclu_build.py cpu     # what `make setup` does
    python nfcodes_lib/somoclu_build.py gpu     # what `make gpu` does: the CPU kernel, and the CUDA kernel beside it

The kernels are numbered as somoclu numbers them: ``kernelType`` 0 is the CPU, 1 the GPU (Wittek et al. 2017,
"Somoclu: an efficient parallel library for self-organizing maps", arXiv:1305.1422).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

SOMOCLU = "somoclu==1.7.6"
NEEDS = (
    "numpy",
    "setuptools",
    "wheel",
    "scipy",
    "matplotlib",
)  # the first three to build it, the last two to import it
COMPILER_REMEDY = (
    "install a C++ compiler with OpenMP and Python's headers "
    "(Debian, Ubuntu: `apt-get install g++ python3-dev`; Fedora: `dnf install gcc-c++ python3-devel`; "
    "macOS: `brew install gcc`, then CC=gcc-15 CXX=g++-15)"
)
# Compute capabilities that get machine code, by CUDA's major version; newer devices translate the last one's PTX.
ARCHITECTURES = {12: ("70", "75", "80", "90"), 13: ("75", "80", "90")}
# CUDA 13 dropped two base classes from thrust and includes less by itself; somoclu's kernel was written for both.
COMPAT_HEADER = """\
#pragma once
#ifdef __CUDACC__
#include <thrust/version.h>
#include <thrust/tuple.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <thrust/iterator/zip_iterator.h>
#if THRUST_VERSION >= 300000
namespace thrust {
template <typename Argument, typename Result> struct unary_function {
  typedef Argument argument_type;
  typedef Result result_type;
};
template <typename First, typename Second, typename Result> struct binary_function {
  typedef First first_argument_type;
  typedef Second second_argument_type;
  typedef Result result_type;
};
}  // namespace thrust
#endif
#endif
"""
# Run in a process of its own: a broken binary may kill the interpreter that loads it. The last line is the answer.
PROBE = """
import importlib.metadata, importlib.util, json
found = {"version": None, "binary": None, "cpu": "not tried", "gpu": "not tried"}
try:
    found["version"] = importlib.metadata.version("somoclu")
except importlib.metadata.PackageNotFoundError:
    pass
spec = importlib.util.find_spec("_somoclu_wrap")
found["binary"] = spec.origin if spec else None
try:
    import numpy as np
    from somoclu.somoclu_wrap import train
except BaseException as error:
    found["cpu"] = f"{type(error).__name__}: {error}"
else:
    def attempt(kernel):
        x = np.repeat(np.eye(4, dtype=np.float32), 16, axis=0)
        codebook = np.full((12, 4), 0.25, dtype=np.float32)
        codebook[[0, 3, 8, 11]] += 0.25 * np.eye(4, dtype=np.float32)  # each corner leans towards one of the points
        bmus, u_matrix = np.zeros(64 * 2, dtype=np.intc), np.zeros(12, dtype=np.float32)
        try:
            train(x.ravel(), 5, 4, 3, 4, 64, 0, 1, "linear", 0, 0.01, "linear", kernel, "planar", "rectangular",
                  True, True, 0.5, 0, codebook.reshape(-1), bmus, u_matrix, "euclidean")
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        miss = np.abs(codebook.reshape(12, 4)[bmus[1::2] * 4 + bmus[::2]] - x).max()
        return "ok" if miss < 0.25 else f"a map of four points misses them by {miss:.2f}"
    found["cpu"], found["gpu"] = attempt(0), attempt(1)
print()
print(json.dumps(found))
"""


class BuildError(RuntimeError):
    """Somoclu could not be built or does not work; the message says what is missing and the command that mends it."""


@dataclass(frozen=True)
class Kernels:
    """What the installed somoclu can do.

    Attributes
    ----------
    version : str or None
        The installed package's version, None if there is no package.
    binary : str or None
        Path of its compiled part, None if there is none.
    cpu, gpu : str
        ``"ok"`` if a small map was trained with that kernel, otherwise what happened instead.
    """

    version: str | None
    binary: str | None
    cpu: str
    gpu: str

    @property
    def has_cuda(self) -> bool:
        """Whether the binary calls CUDA's matrix product, hence was compiled with the GPU kernel."""
        return self.binary is not None and b"cublasSgemm" in Path(self.binary).read_bytes()


def probe(*, python: str = sys.executable, env: dict[str, str] | None = None) -> Kernels:
    """Train a map of 12 units on four distinct points with either kernel, in a process of its own.

    Parameters
    ----------
    python : str
        The interpreter whose somoclu is meant.
    env : dict, optional
        Environment of that process; by default this one's.
    """
    run = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, env=env)
    try:
        return Kernels(**json.loads(run.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        died = f"the interpreter died loading it (exit status {run.returncode}): {run.stderr.strip()[-300:]}"
        return Kernels(version=None, binary=None, cpu=died, gpu=died)


def explain(kernels: Kernels) -> str:
    """Say in one sentence why somoclu's CPU kernel does not work, empty if it does."""
    if kernels.cpu == "ok":
        return ""
    if kernels.version is None and kernels.binary is None:
        return f"somoclu is not installed ({kernels.cpu})"
    if kernels.binary is None:
        return (
            f"somoclu {kernels.version} is installed without its compiled part: its setup.py hides every compile "
            "error, the usual one being an `nvcc` on PATH without CUDA's libraries, and pip may have cached the result"
        )
    return f"somoclu's compiled part {kernels.binary} does not work: {kernels.cpu}"


def remedy(kernel: str = "cpu", *, force: bool = False) -> str:
    """Return the command that builds somoclu in this environment."""
    return f"{shlex.quote(sys.executable)} -m nfcodes_lib.somoclu_build {kernel}{' --force' * force}"


def check_prerequisites() -> None:
    """Raise BuildError unless the packages in `NEEDS` and a compiler with OpenMP and Python's headers are there."""
    missing = [name for name in NEEDS if not _installed_version(name)]
    if missing:
        raise BuildError(
            f"building somoclu needs {', '.join(NEEDS)} in this environment, missing: {', '.join(missing)}; "
            f"run: {shlex.quote(sys.executable)} -m pip install {' '.join(missing)}"
        )
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++")
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"building somoclu needs a C++ compiler, found no `{compiler[0]}` on PATH; {COMPILER_REMEDY}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "trial.cpp"
        source.write_text("#include <omp.h>\n#include <Python.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        command = [*compiler, "-fopenmp", f"-I{sysconfig.get_path('include')}", "-c", str(source), "-o", os.devnull]
        trial = subprocess.run(command, capture_output=True, text=True)
    if trial.returncode:
        raise BuildError(f"`{compiler[0]}` cannot compile a trial program: {trial.stderr.strip()}; {COMPILER_REMEDY}")


def pip_environment(kernel: str, cuda_home: Path | None = None, header: Path | None = None) -> dict[str, str]:
    """Environment in which somoclu's setup.py builds the wanted kernel and only that.

    Parameters
    ----------
    kernel : {"cpu", "gpu"}
        For "cpu", ``CUDAHOME`` names a folder that does not exist: setup.py looks there first, and so does not find
        an ``nvcc`` on PATH.
    cuda_home : Path, optional
        For "gpu", the folder with CUDA's ``bin``, ``include`` and ``lib64`` or ``lib``.
    header : Path, optional
        For "gpu", the compatibility header that nvcc reads before the source.
    """
    if kernel == "cpu":
        return {**os.environ, "CUDAHOME": "/nonexistent"}
    known = ARCHITECTURES.get(cuda_version(cuda_home)[0], ARCHITECTURES[13])
    codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in known]
    codes.append(f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}")
    flags = f"{os.environ.get('NVCC_PREPEND_FLAGS', '')} -include {header} {' '.join(codes)}".strip()
    return {**os.environ, "CUDAHOME": str(cuda_home), "NVCC_PREPEND_FLAGS": flags}


def build_wheel(folder: Path, env: dict[str, str]) -> Path:
    """Build somoclu's wheel into `folder`; raise BuildError if it came out without its compiled part."""
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation"]
    command += ["--no-cache-dir", "--no-binary=somoclu", f"--wheel-dir={folder}", SOMOCLU]
    run = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wheels = list(folder.glob("somoclu-*.whl"))
    if run.returncode or not wheels:
        raise BuildError(f"pip could not build {SOMOCLU}; the end of its log:\n{run.stdout[-3000:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        if not any(name.startswith("_somoclu_wrap") for name in wheel.namelist()):
            lines = run.stdout.splitlines()
            errors = "\n".join([line for line in lines if "error" in line.lower()][:20])
            raise BuildError(f"{SOMOCLU} did not compile; what its log says of errors:\n{errors}\n{COMPILER_REMEDY}")
    return wheels[0]


def install(kernel: str, *, force: bool = False) -> Kernels:
    """Build and install somoclu with the wanted kernel unless it works already, and prove it by training.

    Parameters
    ----------
    kernel : {"cpu", "gpu"}
        "gpu" builds both kernels into one binary, which also serves machines without a GPU.
    force : bool
        Build even if the installed one works.

    Returns
    -------
    Kernels
        What the installed somoclu can do now.

    Raises
    ------
    BuildError
        If the compiler, its needs or CUDA are missing, the build fails, or the result does not train.
    """
    before = probe()
    if not force and before.cpu == "ok" and (kernel == "cpu" or before.has_cuda):
        return before
    check_prerequisites()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="somoclu-") as folder:
        if kernel == "gpu":
            header = Path(folder) / "thrust_compat.h"
            header.write_text(COMPAT_HEADER)
            env = pip_environment("gpu", find_cuda(), header)
        else:
            env = pip_environment("cpu")
        print(f"compiling {SOMOCLU} ({kernel} kernel) ...", flush=True)
        wheel = build_wheel(Path(folder), env)
        print(f"compiled in {time.perf_counter() - started:.0f} s: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", "--no-index"]
        subprocess.run([*command, str(wheel)], check=True)
    kernels = probe()
    if kernels.cpu != "ok":
        raise BuildError(
            f"{explain(kernels)}; run: {shlex.quote(sys.executable)} -m nfcodes_lib.somoclu_build cpu --force"
        )
    if kernel == "gpu" and not kernels.has_cuda:
        raise BuildError(
            f"the binary {kernels.binary} was built without CUDA's matrix product, found only the CPU kernel"
        )
    return kernels


# -- CUDA ------------------------------------------------------------------------------------------------------------


def cuda_version(home: Path) -> tuple[int, ...]:
    """CUDA's version as nvcc in `home` reports it, such as (13, 2, 86)."""
    run = subprocess.run([str(home / "bin" / "nvcc"), "--version"], capture_output=True, text=True, check=True)
    number = run.stdout.rsplit(", V", 1)[-1].split()[0]  # "... release 13.2, V13.2.86"
    return tuple(int(part) for part in number.split("."))


def find_cuda() -> Path:
    """CUDA's folder: ``CUDA_HOME`` if that is set, else one made of PyPI's packages of torch's own CUDA version.

    Raises
    ------
    BuildError
        If the folder named lacks the compiler, cuBLAS or the runtime, or torch was installed without CUDA.
    """
    named = os.environ.get("CUDA_HOME")
    where = named or sys.prefix
    if len(where.split()) > 1:
        raise BuildError(
            f"expected a path without spaces, at which somoclu's setup.py would cut nvcc's, got {where!r}; "
            + ("link CUDA to another path and set CUDA_HOME to that" if named else "clone the book to another path")
        )
    home = Path(named) if named else pypi_cuda()
    library = home / ("lib64" if (home / "lib64").exists() else "lib")
    needed = [home / "bin" / "nvcc", home / "include" / "cublas_v2.h"]
    needed += [library / "libcudart.so", library / "libcublas.so"]
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise BuildError(
            f"expected CUDA's compiler, headers and libraries in {home}, missing: {', '.join(missing)}; "
            "set CUDA_HOME to a complete CUDA 12 or 13, or unset it to take the compiler from PyPI"
        )
    return home


def pypi_cuda() -> Path:
    """Install the CUDA compiler of torch's CUDA version from PyPI, and lay out a CUDA home of links beside it.

    torch's own packages bring the libraries and headers, but no ``libcublas.so`` without a version, for which the
    linker asks. The links stand in a folder of our own in the environment, so that no package's folder is changed.
    """
    version = _installed_version("nvidia-cuda-runtime")
    if version is None:
        raise BuildError(
            "expected torch with CUDA 13 in this environment (its package nvidia-cuda-runtime), found none; "
            "run `make TORCH=cuda setup`, or set CUDA_HOME to a system CUDA 12 or 13"
        )
    site = Path(sysconfig.get_path("purelib"))
    real = site / "nvidia" / f"cu{version.split('.')[0]}"
    compiler = [f"{name}=={version}" for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm")]
    print(f"installing CUDA's compiler from PyPI: {' '.join(compiler)}", flush=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *compiler], check=True)

    home = Path(sys.prefix) / "cuda-home"
    shutil.rmtree(home, ignore_errors=True)
    (home / "bin").mkdir(parents=True)
    (home / "lib64").mkdir()
    nvcc = home / "bin" / "nvcc"  # a wrapper, since nvcc looks for its other parts beside the path it was called by
    nvcc.write_text(f'#!/bin/sh\nexec {shlex.quote(str(real / "bin" / "nvcc"))} "$@"\n')
    nvcc.chmod(0o755)
    (home / "include").symlink_to(real / "include")
    for library in sorted((real / "lib").glob("lib*.so.*")):
        (home / "lib64" / library.name).symlink_to(library)
        (home / "lib64" / library.name.split(".so.")[0]).with_suffix(".so").symlink_to(library)
    return home


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Command line: build the kernel asked for, print what works, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nfcodes_lib.somoclu_build", description=__doc__.splitlines()[0])
    parser.add_argument("kernel", choices=["cpu", "gpu"], help="gpu builds both kernels into one binary")
    parser.add_argument("--force", action="store_true", help="build even if the installed one works")
    options = parser.parse_args(arguments)
    try:
        kernels = install(options.kernel, force=options.force)
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"somoclu {kernels.version}: the CPU kernel trains")
    if options.kernel == "gpu":
        print("the GPU kernel is compiled in, and " + gpu_verdict(kernels))
    return 0


def gpu_verdict(kernels: Kernels) -> str:
    """Say whether the compiled GPU kernel ran on this machine."""
    if kernels.gpu == "ok":
        return "trained a map on this machine's device"
    return f"was not run: this machine shows no usable CUDA device ({kernels.gpu})"


if __name__ == "__main__":
    sys.exit(main())
