"""Execute the book's chapters, each at most once per change, and render the book so that nothing fails quietly.

``python nfcodes_lib/build_book.py`` (what ``make book`` runs) does three things.

1. It executes every chapter of ``_toc.yml`` and keeps the outputs in jupyter-cache, which knows a chapter again by its
   code cells alone (``make nbval`` keeps what it executes there too, see ``nbval_outputs.py``). What else an output
   depends on (the library with its data and weights, the pinned packages, the interpreter) is condensed into one
   SHA-256; when that changes, the cache is emptied. A chapter that raises is reported with its cell and its error,
   after the others have been tried too.
2. It renders all pages with Jupyter Book, every warning an error: broken references, unknown citations, bad markup.
   Pages are always read afresh, since Sphinx does not repeat the warnings of pages that it read in an earlier run.
3. It looks for a page behind every entry of the table of contents, and refuses pages that load anything from another
   host: the book is to be read without a network, from a file system if need be.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

WATCHED = ("nfcodes_lib", "requirements.txt")  # what every chapter's outputs depend on, besides its own cells
IGNORED = {"__pycache__", ".ipynb_checkpoints"}
CELL_TIMEOUT = 600  # seconds
AT_ONCE = 4  # chapters; each takes a gigabyte or two
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Whatever a browser fetches by itself; an <a href> is only followed by hand.
LOADED = re.compile(
    r"""<(?!a[ >])[a-z]+\b[^>]*?\b(?:src|srcset|poster|data)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b[^>]*?\bhref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)"""
    r"""|\b[A-Z_]*_URL\s*=\s*["']((?:https?:)?//[^"']+)""",
    flags=re.IGNORECASE,
)


class BookError(RuntimeError):
    """The book cannot be built as it stands; the message names the chapter or page and what is wrong with it."""


@dataclass(frozen=True)
class ChapterError:
    """Where and how a chapter failed.

    Attributes
    ----------
    chapter : str
        Path of the notebook below the book's root.
    cell : int
        Number of the failing cell, counted from 1 over all cells, text cells included; 0 if none was reached.
    source : str
        That cell's code.
    error : str
        The exception's name and message, or what became of the kernel.
    """

    chapter: str
    cell: int
    source: str
    error: str

    def __str__(self) -> str:
        code = "\n".join(f"    {line}" for line in self.source.splitlines())
        return f"{self.chapter}, cell {self.cell}: {self.error}\n{code}"


def execution_key(root: Path) -> str:
    """SHA-256 over the names and contents of all that the chapters' outputs depend on, as 64 hexadecimal digits.

    Contents, not dates: a file that was touched, or checked out anew, changes nothing.

    Parameters
    ----------
    root : Path
        The book's root; of it, `WATCHED` is read.
    """
    digest = hashlib.sha256()
    for name in WATCHED:
        top = root / name
        for path in sorted([top, *top.rglob("*")]):
            if path.is_file() and not IGNORED & set(path.parts):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    digest.update(sys.version.encode())
    for package in (
        "torch",
        "somoclu",
    ):  # the CPU wheels of one version of torch can round otherwise than the CUDA ones
        try:
            digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
        except importlib.metadata.PackageNotFoundError:
            digest.update(f"no {package}\n".encode())
    return digest.hexdigest()


def refresh_cache(root: Path, folder: Path) -> bool:
    """Empty the execution cache in `folder` unless it was filled under the present :func:`execution_key`.

    Returns
    -------
    bool
        Whether the outputs in the cache are still good.
    """
    key, record = execution_key(root), folder / "execution_key"
    if record.is_file() and record.read_text() == key:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record.write_text(key)
    return False


def keep_outputs(notebook: object, path: Path, seconds: float, folder: Path) -> None:
    """Put an executed chapter into the execution cache in `folder`.

    Parameters
    ----------
    notebook : NotebookNode
        With its outputs.
    path : Path
        The file it was read from.
    seconds : float
        That its execution took.
    folder : Path
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    get_cache(str(folder)).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def pages(root: Path) -> list[Path]:
    """Files behind the entries of ``_toc.yml``, in reading order.

    Raises
    ------
    BookError
        If an entry has no file, or there is no table of contents.
    """
    contents = root / "_toc.yml"
    if not contents.is_file():
        raise BookError(f"expected the table of contents {contents}, found no file")
    found = []
    for entry in _entries(yaml.safe_load(contents.read_text(encoding="utf-8"))):
        candidates = [path for suffix in (".md", ".ipynb", ".rst", "") if (path := root / f"{entry}{suffix}").is_file()]
        if not candidates:
            raise BookError(f"_toc.yml lists {entry!r}, expected {entry}.md or {entry}.ipynb, found neither")
        found.append(candidates[0])
    return found


def _entries(node: object) -> list[str]:
    if isinstance(node, list):
        return [entry for child in node for entry in _entries(child)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [entry for value in node.values() for entry in _entries(value)]


def execute_chapter(path: Path, root: Path, *, n_threads: int) -> tuple[object, float, ChapterError | None]:
    """Execute one notebook in its own folder, in a kernel of its own.

    Parameters
    ----------
    path, root : Path
        The notebook, and the book's root, below which it lies.
    n_threads : int
        That its kernel may compute with.

    Returns
    -------
    notebook : NotebookNode
        With its outputs.
    seconds : float
    error : ChapterError or None
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook, begun = nbformat.read(path, as_version=4), []
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,  # it would go to the cells' metadata, by which the cache knows the chapter too
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],
        on_cell_execute=lambda cell, cell_index: begun.append(cell_index),
    )
    started, failure = time.perf_counter(), None
    try:
        client.execute(env=os.environ | {name: str(n_threads) for name in THREAD_VARIABLES})
    except Exception as error:  # the cell's own, or one of the many ways in which a kernel dies or does not start
        chapter = path.relative_to(root).as_posix()
        of_cell = isinstance(error, CellExecutionError)
        what = f"{error.ename}: {error.evalue}" if of_cell else f"{type(error).__name__}: {error}"
        failure = ChapterError(chapter, 0, "", f"the kernel did not start: {what}")
        if begun:
            failure = ChapterError(chapter, begun[-1] + 1, notebook.cells[begun[-1]].source, what)
    return notebook, time.perf_counter() - started, failure


def execute_chapters(root: Path, build: Path) -> None:
    """Execute all chapters that the cache does not know, as many at a time as there are cores, up to `AT_ONCE`.

    Chapters share the cores: several with one thread each are done sooner than one after the other with all. A chapter
    that fails leaves nothing in the cache.

    Raises
    ------
    BookError
        With every failure.
    """
    import nbformat
    from jupyter_cache import get_cache

    folder = build / ".jupyter_cache"
    if not refresh_cache(root, folder):
        print("no outputs of this library, these packages and this interpreter are kept: executing every chapter")
    cache, failures = get_cache(str(folder)), []
    chapters = [path for path in pages(root) if path.suffix == ".ipynb"]
    new = []
    for path in chapters:
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
            print(f"{path.relative_to(root).as_posix()}: cached", flush=True)
        except KeyError:
            new.append(path)
    cores = os.cpu_count() or 1
    at_once = max(1, min(cores, len(new), AT_ONCE))
    with ThreadPoolExecutor(at_once) as executor:
        jobs = {executor.submit(execute_chapter, path, root, n_threads=cores // at_once): path for path in new}
        for job in as_completed(jobs):
            (notebook, seconds, failure), path = job.result(), jobs[job]
            print(f"{path.relative_to(root).as_posix()}: {'failed' if failure else f'{seconds:.1f} s'}", flush=True)
            if failure:
                failures.append(failure)
                continue
            keep_outputs(notebook, path, seconds, folder)
    if failures:
        failures.sort(key=lambda failure: failure.chapter)
        raise BookError("\n".join(["chapters that raise:", *map(str, failures)]))
    seconds = {
        path.relative_to(root).with_suffix("").as_posix(): cache.match_cache_file(str(path)).data["execution_seconds"]
        for path in chapters
    }
    # The pages tell their reader, by way of book/_extensions.
    (build / "running_times.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


def render(root: Path, build: Path) -> None:
    """Render all pages with Jupyter Book; raise BookError with its warnings and errors if there are any."""
    shutil.rmtree(build / "html", ignore_errors=True)
    run = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["build", str(root), f"--path-output={build.parent}", "--all", "-W", "-n", "--keep-going"]
    command = [sys.executable, "-c", run, *options]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    (build / "build.log").write_text(text, encoding="utf-8")
    if result.returncode:
        lines = text.splitlines()
        wrong = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b", line)] or lines[-30:]
        raise BookError("\n".join([f"Jupyter Book refuses (all it said is in {build / 'build.log'}):", *wrong]))


def foreign_loads(html: Path) -> list[str]:
    """What pages and style sheets below `html` would fetch from another host, as "page: address", sorted.

    Scripts are not read: what they fetch, and when, only a browser can say (``tests/browser`` asks one).
    """
    found = set()
    for path in [*html.rglob("*.html"), *html.rglob("*.css")]:
        for match in LOADED.finditer(path.read_text(encoding="utf-8", errors="replace")):
            found.add(f"{path.relative_to(html).as_posix()}: {next(filter(None, match.groups()))}")
    return sorted(found)


def build_book(root: Path, build: Path) -> Path:
    """Execute and render the book below `root` into `build`, and return the path of its first page.

    Parameters
    ----------
    root : Path
        Folder with ``_config.yml`` and ``_toc.yml``.
    build : Path
        Folder named ``_build``; pages go to its ``html``, outputs are kept in its ``.jupyter_cache``.

    Raises
    ------
    BookError
        If a chapter raises, a page is missing, a page loads from another host, or Jupyter Book warns of anything.
    """
    build.mkdir(parents=True, exist_ok=True)
    execute_chapters(root, build)
    render(root, build)
    html = build / "html"
    expected = [html / path.relative_to(root).with_suffix(".html") for path in pages(root)] + [html / "index.html"]
    absent = [str(path) for path in expected if not path.is_file()]
    if absent:
        raise BookError(f"expected a page for every entry of _toc.yml, not written: {', '.join(absent)}")
    foreign = foreign_loads(html)
    if foreign:
        raise BookError("\n".join(["expected pages that load nothing from another host, but these do:", *foreign]))
    return html / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Command line: build, print the page to open and the time it took, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="folder with _config.yml and _toc.yml")
    root = parser.parse_args(arguments).root.resolve()
    # The kernel called python3 must be this environment's, not one that the reader registered elsewhere.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["TQDM_DISABLE"] = "1"  # a page should not show how long its making took
    started = time.perf_counter()
    try:
        index = build_book(root, root / "_build")
    except BookError as error:
        print(f"\nthe book was not built: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        os._exit(130)  # at once: a plain exit would wait for the chapters; their kernels end when they miss us
    print(f"built in {time.perf_counter() - started:.0f} s: {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
