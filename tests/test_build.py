"""The book's build: nothing fails quietly, and no output outlives the library that made it.

Each test builds a small book with the real configuration and the command that ``make book`` uses.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from nfcodes_lib.doctor import pins

ROOT = Path(__file__).resolve().parents[1]
BUILDER = ROOT / "nfcodes_lib" / "build_book.py"
spec = importlib.util.spec_from_file_location("build_book", BUILDER)  # a script, which make runs outside the package
build_book = importlib.util.module_from_spec(spec)
sys.modules["build_book"] = build_book
spec.loader.exec_module(build_book)

READS_LIBRARY = "import sys\nsys.path.insert(0, '..')\nfrom nfcodes_lib.constants import ANSWER\nprint(ANSWER)"


def write_chapter(root, name, *cells):
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [new_markdown_cell(f"# {name}"), *map(new_code_cell, cells)]
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def book(tmp_path):
    """A book of one page and one chapter, in a folder with a space in its name."""
    root = tmp_path / "a book"
    (root / "book").mkdir(parents=True)
    (root / "nfcodes_lib").mkdir()
    shutil.copy(ROOT / "_config.yml", root)
    for name in ("_extensions", "_static"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    for name in yaml.safe_load((ROOT / "_config.yml").read_text())["bibtex_bibfiles"]:
        shutil.copy(ROOT / name, root / name)
    (root / "nfcodes_lib" / "__init__.py").touch()
    (root / "nfcodes_lib" / "constants.py").write_text("ANSWER = 41\n")
    (root / "requirements.txt").write_text("numpy==2.4.6\n")
    (root / "book" / "first.md").write_text("# First page\n\nSee [the chapter](../notebooks/one.ipynb) and $e^{x}$.\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/first\nchapters:\n- file: notebooks/one\n")
    write_chapter(root, "one", READS_LIBRARY)
    (root / ".venv" / "lib").mkdir(parents=True)
    (root / ".venv" / "lib" / "their.rst").write_text("A page in an installed package, with a `broken_` reference_\n")
    (root / ".venv" / "lib64").symlink_to("lib")  # as venv makes it
    return root


def build(root, **env):
    """Build as make does; return exit status, what was printed, and what was complained."""
    command = [sys.executable, "-P", str(BUILDER), str(root)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    return run.returncode, run.stdout, run.stderr


def built_page(root, **env):
    """Build, and return the page of the chapter."""
    status, _, err = build(root, **env)
    assert status == 0, err
    return (root / "_build" / "html" / "notebooks" / "one.html").read_text()


def kept(root, name="one"):
    """Return the chapter with its outputs from the execution cache."""
    from jupyter_cache import get_cache

    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    return get_cache(str(root / "_build" / ".jupyter_cache")).merge_match_into_notebook(notebook)[1]


def printed(root, name="one"):
    """Return what the chapter's last cell printed."""
    return kept(root, name).cells[-1].outputs[0]["text"]


def execute(root):
    build_book.execute_chapters(root, root / "_build")


def test_book_is_built_and_built_again_when_the_library_changes(book):
    status, out, err = build(book)
    assert err == ""
    assert status == 0
    assert "executing every chapter" in out
    html = book / "_build" / "html"
    assert "41" in (html / "notebooks" / "one.html").read_text()
    assert "book/first.html" in (html / "index.html").read_text()
    assert "THEBE_JS_URL" not in (html / "notebooks" / "one.html").read_text()
    (seconds,) = json.loads((book / "_build" / "running_times.json").read_text()).values()
    assert f"Its cells ran in {seconds:.0f} s" in (html / "notebooks" / "one.html").read_text()
    assert "running-time" not in (html / "book" / "first.html").read_text()
    log = (book / "_build" / "build.log").read_text()
    assert "Using cached notebook" in log
    assert "Executing notebook" not in log  # Jupyter Book found every chapter executed
    (html / "renamed.html").write_text("a page of an earlier build")

    (book / "nfcodes_lib" / "constants.py").write_text("ANSWER = 42\n")
    assert build(book)[0] == 0
    assert "42" in (html / "notebooks" / "one.html").read_text()
    assert not (html / "renamed.html").exists()


def test_broken_page_fails_the_build_each_time(book):
    page = "# First page\n\nSee [nothing](../notebooks/none.ipynb).\n\n```{nonsense}\n```\n"
    (book / "book" / "first.md").write_text(page)
    for _ in range(2):  # Sphinx would not read the page a second time, nor warn a second time
        status, _, err = build(book)
        assert status == 1
        assert "the book was not built" in err
        assert "first.md:3: WARNING" in err
        assert "none.ipynb" in err
        assert "first.md:5: WARNING: Unknown directive type: 'nonsense'" in err


def test_page_that_loads_from_another_host_fails_the_build(book):
    raw = '<script src="https://cdn.example.org/x.js"></script><a href="https://example.org">a link is no load</a>'
    (book / "book" / "first.md").write_text(f"# First page\n\nSee [it](../notebooks/one.ipynb).\n\n{raw}\n")
    status, _, err = build(book)
    assert status == 1
    assert "load nothing from another host" in err
    assert "book/first.html: https://cdn.example.org/x.js\n" in err
    assert "https://example.org" not in err


@pytest.mark.parametrize(
    "text",
    [
        "<script async src='https://h.org/a.js'>",
        '<img alt="x" src="//h.org/a.png">',
        '<link rel="stylesheet" href="http://h.org/a.css" />',
        "<iframe src=https://h.org/a>",
        '<script>const THEBE_JS_URL = "https://h.org/a.js";</script>',
        "<style>@import 'https://h.org/a.css';</style>",
        "<style>b { background: url(https://h.org/a.png) }</style>",
    ],
)
def test_foreign_loads_are_found(tmp_path, text):
    (tmp_path / "page.html").write_text(f"<p>one</p>\n{text}\n<p>two</p>")
    (found,) = build_book.foreign_loads(tmp_path)
    assert re.fullmatch(r"page\.html: (https?:)?//h\.org/a(\.\w+)?", found)


def test_links_and_own_files_are_no_foreign_loads(tmp_path):
    text = '<a href="https://h.org">x</a><img src="../a.png"><img src="data:image/png;base64,AA//BB"><svg xmlns="http://w3.org/svg">'
    (tmp_path / "page.html").write_text(text)
    assert build_book.foreign_loads(tmp_path) == []


def test_launch_buttons_appear_where_the_copy_is_public(book):
    assert "mybinder.org" not in built_page(book)
    page = built_page(book, NFCODES_REPOSITORY="owner/name")
    assert "mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/one.ipynb" in page
    assert "colab.research.google.com/github/owner/name/blob/main/notebooks/one.ipynb" in page


def test_failing_chapters_are_named_with_cell_and_error(book):
    write_chapter(book, "one", "a = 1", "a / 0", "print('never')")
    write_chapter(book, "two", "assert round(0.21, 2) == 0.25, 'expected 0.25'")
    write_chapter(book, "three", "print('fine')")
    toc = {"format": "jb-book", "root": "book/first"}
    toc["chapters"] = [{"file": f"notebooks/{name}"} for name in ("one", "two", "three")]
    (book / "_toc.yml").write_text(yaml.safe_dump(toc))
    status, out, err = build(book)
    assert status == 1
    assert "notebooks/one.ipynb, cell 3: ZeroDivisionError: division by zero\n    a / 0" in err
    assert "notebooks/two.ipynb, cell 2: AssertionError: expected 0.25\n    assert round" in err
    assert "three.ipynb: failed" not in out
    assert printed(book, "three") == "fine\n"
    assert not (book / "_build" / "html").exists()


def test_chapter_whose_kernel_dies_is_named(book):
    write_chapter(book, "one", "import os", "os._exit(1)")
    with pytest.raises(build_book.BookError, match=r"one\.ipynb, cell 3: .*[Kk]ernel died"):
        execute(book)


def test_chapter_whose_kernel_does_not_start_is_named(book, monkeypatch):
    def start(*_, **__):
        raise RuntimeError("no port is free")

    monkeypatch.setattr("nbclient.NotebookClient.execute", start)
    with pytest.raises(
        build_book.BookError, match=r"one\.ipynb, cell 0: the kernel did not start: RuntimeError: no port is free"
    ):
        execute(book)


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (3, "3")])
def test_a_single_chapter_gets_all_cores(book, monkeypatch, cores, threads):
    monkeypatch.setattr(build_book.os, "cpu_count", lambda: cores)
    write_chapter(book, "one", "import os", "print(os.environ['OMP_NUM_THREADS'])")
    execute(book)
    assert printed(book) == f"{threads}\n"


def test_chapters_run_at_once_and_share_the_cores(book, monkeypatch):
    """Each waits for a file that the other writes."""
    monkeypatch.setattr(build_book.os, "cpu_count", lambda: 4)
    wait = (
        "import os, pathlib, time\npathlib.Path('{}').touch()\nwhile not pathlib.Path('{}').exists(): time.sleep(0.1)"
    )
    write_chapter(book, "one", wait.format("a", "b"), "print(os.environ['OMP_NUM_THREADS'])")
    write_chapter(book, "two", wait.format("b", "a"), "print(os.environ['OMP_NUM_THREADS'])")
    toc = (book / "_toc.yml").read_text()
    (book / "_toc.yml").write_text(toc.replace("notebooks/one", "notebooks/one\n- file: notebooks/two"))
    execute(book)
    assert printed(book, "one") == printed(book, "two") == "2\n"


def test_chapter_that_does_not_end_is_named(book, monkeypatch):
    monkeypatch.setattr(build_book, "CELL_TIMEOUT", 1)
    write_chapter(book, "one", "import time", "time.sleep(60)")
    with pytest.raises(build_book.BookError, match=r"(?s)one\.ipynb, cell 3: .*timed out"):
        execute(book)


def validate(root, *more):
    """Run nbval over the book's chapters as ``make nbval`` does, with this library's plugin, not one of the book's."""
    (root / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "-p", "nfcodes_lib.nbval_outputs", "--nbval-lax", "notebooks", "--dist", "loadfile", *more]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    run = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=root, capture_output=True, text=True, env=env)
    return run.stdout + run.stderr


@pytest.mark.parametrize("processes", [0, 2])
def test_book_shows_what_was_validated(book, processes, capsys):
    """Executed by nbval, by one process or by two, and not again by the book."""
    counts = "from pathlib import Path\nruns = Path('../runs')\nruns.write_text('x' * (1 + runs.is_file()))"
    write_chapter(book, "one", counts, READS_LIBRARY, "6 * 7", "print('as seen')\n2 + 3;")
    said = validate(book, "-n", str(processes))
    assert "4 passed in" in said, said
    *_, last_but_one, last = kept(book).cells
    assert [output["data"]["text/plain"] for output in last_but_one.outputs] == ["42"]
    assert [output["text"] for output in last.outputs] == ["as seen\n"]  # and no 5
    build_book.execute_chapters(book, book / "_build")
    assert "notebooks/one.ipynb: cached" in capsys.readouterr().out
    assert (book / "runs").read_text() == "x"
    assert 0 < json.loads((book / "_build" / "running_times.json").read_text())["notebooks/one"] < 60
    assert "as seen" in built_page(book)
    (book / "nfcodes_lib" / "constants.py").write_text("ANSWER = 42\n")
    build_book.execute_chapters(book, book / "_build")
    assert "notebooks/one.ipynb: cached" not in capsys.readouterr().out
    assert (book / "runs").read_text() == "xx"


@pytest.mark.parametrize(
    ("cells", "options", "outcome"),
    [
        (["print(1)", "1 / 0"], [], "1 failed, 1 passed"),
        (["1 / 0", "print(1)"], [], "1 failed, 1 passed"),
        (["# NBVAL_SKIP\nprint(1)", "print(2)"], [], "1 passed, 1 skipped"),
        (["print(1)", "print(2)"], ["--deselect", "notebooks/one.ipynb::Cell 1"], "1 passed, 1 deselected"),
    ],
)
def test_only_whole_validated_chapters_are_kept(book, cells, options, outcome):
    write_chapter(book, "one", *cells)
    said = validate(book, *options)
    assert outcome in said, said
    with pytest.raises(KeyError):
        printed(book)


def test_changed_library_executes_the_chapters_again(book, capsys):
    execute(book)
    assert printed(book) == "41\n"
    os.utime(book / "nfcodes_lib" / "constants.py", (1, 1))  # another date, the same content
    execute(book)
    assert capsys.readouterr().out.endswith("one.ipynb: cached\n")
    (book / "nfcodes_lib" / "constants.py").write_text("ANSWER = 42\n")
    execute(book)
    assert printed(book) == "42\n"


@pytest.mark.parametrize("name", ["requirements.txt", "nfcodes_lib/constants.py", "nfcodes_lib/assets/w.safetensors"])
def test_key_follows_contents(book, name):
    keys = [build_book.execution_key(book)]
    (book / name).parent.mkdir(exist_ok=True)
    for content in (b"one", b"two", b"one"):
        (book / name).write_bytes(content)
        keys.append(build_book.execution_key(book))
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
    (book / name).rename(book / "nfcodes_lib" / "renamed")
    assert build_book.execution_key(book) not in keys


def test_key_ignores_what_python_leaves_behind(book):
    key = build_book.execution_key(book)
    (book / "nfcodes_lib" / "__pycache__").mkdir()
    (book / "nfcodes_lib" / "__pycache__" / "constants.cpython-311.pyc").touch()
    (book / "book" / "first.md").write_text("# Another text\n")
    assert build_book.execution_key(book) == key


def test_key_follows_the_installed_torch(book, monkeypatch):
    key = build_book.execution_key(book)
    monkeypatch.setattr(build_book.importlib.metadata, "version", lambda package: "2.15.0+cpu")
    assert build_book.execution_key(book) != key


def test_chapters_run_in_the_kernel_of_this_environment(book, tmp_path):
    folder = tmp_path / "theirs" / "kernels" / "python3"
    folder.mkdir(parents=True)
    kernel = {"argv": ["false", "{connection_file}"], "display_name": "Theirs", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(kernel))
    theirs = str(tmp_path / "theirs")
    write_chapter(book, "one", "import sys\nraise SystemError(sys.prefix)")
    status, _, err = build(book, JUPYTER_PATH=theirs, JUPYTER_DATA_DIR=theirs)
    assert status == 1
    assert f"one.ipynb, cell 2: SystemError: {sys.prefix}\n" in err


def test_entry_without_a_file_is_named(book):
    (book / "_toc.yml").write_text("format: jb-book\nroot: book/first\nchapters:\n- file: notebooks/seven\n")
    with pytest.raises(build_book.BookError, match=r"lists 'notebooks/seven', expected notebooks/seven.md or"):
        build_book.pages(book)
    (book / "_toc.yml").unlink()
    with pytest.raises(build_book.BookError, match="expected the table of contents"):
        build_book.pages(book)


def test_pages_are_found_in_reading_order():
    toc = {"root": "a", "parts": [{"caption": "P", "chapters": [{"file": "b", "sections": [{"file": "c"}]}]}]}
    assert build_book._entries(toc | {"more": [{"url": "https://example.org"}]}) == ["a", "b", "c"]


def test_every_page_of_the_real_book_is_there():
    assert build_book.pages(ROOT)[0] == ROOT / "book" / "introduction.md"


def make(*arguments):
    """Return what make would do."""
    env = {name: value for name, value in os.environ.items() if name not in ("TORCH", "MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env).stdout


def shell_words(line):
    """Return a command's words after the shell has put in what the command asks of requirements.txt."""
    script = f'pip() {{ printf "%s\\n" "$@"; }}; {line[line.index("pip install") :]}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()


def test_cpu_wheels_are_asked_of_their_own_index(tmp_path):
    out = make("TORCH=cpu", f"VENV={tmp_path / 'venv'}", "setup")
    (line,) = [line for line in out.splitlines() if "download.pytorch.org/whl/cpu" in line]
    words = shell_words(line.replace("test cpu = cuda || ", ""))
    assert line.startswith("test cpu = cuda || ")
    assert words[words.index("--index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    assert words[-2:] == [f"torch=={pins()['torch']}+cpu", f"torchvision=={pins()['torchvision']}+cpu"]
    assert out.index("whl/cpu") < out.index("--requirement requirements.txt")


def test_choice_of_wheels_is_remembered(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    assert f"touch {venv}/.torch-cuda" in make(f"VENV={venv}", "setup")
    (venv / ".torch-cpu").touch()
    assert f"touch {venv}/.torch-cpu" in make(f"VENV={venv}", "setup")
    back = make("TORCH=cuda", f"VENV={venv}", "setup")
    assert f"touch {venv}/.torch-cuda" in back
    assert "uninstall --yes torch torchvision" in back


def test_second_setup_installs_nothing(tmp_path):
    first = make(f"VENV={tmp_path}", "setup")
    assert "pip install" in first
    stamp = first.split(f"touch {tmp_path}/.torch-cuda ")[1].split()[0]
    Path(stamp).touch()
    assert "pip install" not in make(f"VENV={tmp_path}", "setup")
