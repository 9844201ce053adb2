"""Files that travel inside the package: found by name, checked by checksum, read once.

``assets/MANIFEST.json`` names every embedded file with its size and SHA-256. Whoever opens an asset goes through
:func:`asset_path`, so a truncated download or a damaged checkout is named as such instead of surfacing as an odd
number three chapters later. Only the scripts that make assets (``embed`` and ``train``) call :func:`register`.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"
REMEDY = "restore it with `git checkout -- nfcodes_lib/assets`, or reinstall the package"


class AssetError(RuntimeError):
    """An embedded file is missing, truncated or altered; the message names the file and the remedy."""


def manifest(root: Path = ASSETS) -> dict[str, dict]:
    """Read the manifest: asset name -> ``{"bytes": int, "sha256": str, "source": str, "license": str}``.

    Raises
    ------
    AssetError
        If the manifest itself is missing or is not JSON.
    """
    path = Path(root) / "MANIFEST.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AssetError(f"expected the asset manifest at {path}, found no file; {REMEDY}") from None
    except ValueError as error:
        raise AssetError(f"expected JSON in the asset manifest {path}, got {error}; {REMEDY}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_asset(name: str, root: Path = ASSETS) -> Path:
    """Return the path of the asset `name` below `root` after comparing its size and checksum with the manifest.

    Raises
    ------
    AssetError
        If the manifest does not list `name`, or the file is missing, has another length or another checksum.
    """
    entries = manifest(root)
    if name not in entries:
        raise AssetError(f"asset must be one of {sorted(entries)}, got {name!r}")
    path, entry = Path(root) / name, entries[name]
    if not path.is_file():
        raise AssetError(f"expected the embedded file {path}, found nothing there; {REMEDY}")
    if path.stat().st_size != entry["bytes"]:
        raise AssetError(
            f"expected {entry['bytes']:,} bytes in {path}, got {path.stat().st_size:,} (truncated?); {REMEDY}"
        )
    digest = sha256(path)
    if digest != entry["sha256"]:
        raise AssetError(f"expected SHA-256 {entry['sha256'][:12]}… for {path}, got {digest[:12]}…; {REMEDY}")
    return path


@cache
def asset_path(name: str) -> Path:
    """Like :func:`check_asset` for the package's own assets, checked once per process."""
    return check_asset(name)


def register(name: str, *, source: str, license: str, root: Path = ASSETS) -> None:
    """Write the size and checksum of the file `name` below `root` into the manifest, sorted so that diffs are small."""
    path = Path(root) / name
    entries = manifest(root) if (Path(root) / "MANIFEST.json").exists() else {}
    entries[name] = {"bytes": path.stat().st_size, "sha256": sha256(path), "source": source, "license": license}
    text = json.dumps(dict(sorted(entries.items())), indent=2) + "\n"
    (Path(root) / "MANIFEST.json").write_text(text, encoding="utf-8")
