import json
import shutil

import pytest

from nfcodes_lib import AssetError, _assets

NAME = "weights/resnet-seed0.safetensors"


@pytest.fixture
def root(tmp_path):
    """A copy of the manifest and of one asset, free to be damaged."""
    (tmp_path / "weights").mkdir()
    shutil.copy(_assets.ASSETS / "MANIFEST.json", tmp_path)
    shutil.copy(_assets.ASSETS / NAME, tmp_path / NAME)
    return tmp_path


def test_every_asset_is_what_the_manifest_says():
    for name in _assets.manifest():
        assert _assets.check_asset(name).is_file()


def test_no_asset_is_unlisted():
    known = {_assets.ASSETS / name for name in _assets.manifest()}
    files = {path for path in _assets.ASSETS.rglob("*") if path.suffix in {".gz", ".safetensors"}}
    assert files == known


def test_embedded_sizes():
    sizes = {name: entry["bytes"] for name, entry in _assets.manifest().items()}
    assert sum(size for name, size in sizes.items() if name.startswith("fashion_mnist/")) <= 10_000_000
    assert all(size <= 1_000_000 for name, size in sizes.items() if name.startswith("weights/"))


def test_truncated_file_is_named(root):
    content = (root / NAME).read_bytes()
    (root / NAME).write_bytes(content[:-10])
    with pytest.raises(AssetError, match=r"resnet-seed0\.safetensors, got .* \(truncated\?\); restore it with"):
        _assets.check_asset(NAME, root)


def test_altered_file_is_named(root):
    content = bytearray((root / NAME).read_bytes())
    content[-1] ^= 1
    (root / NAME).write_bytes(content)
    with pytest.raises(AssetError, match=r"expected SHA-256 .* resnet-seed0\.safetensors|resnet-seed0\.safetensors"):
        _assets.check_asset(NAME, root)


def test_missing_file_is_named(root):
    (root / NAME).unlink()
    with pytest.raises(AssetError, match=r"resnet-seed0\.safetensors, found nothing there; restore it with"):
        _assets.check_asset(NAME, root)


def test_unknown_asset(root):
    with pytest.raises(AssetError, match="asset must be one of"):
        _assets.check_asset("weights/nonesuch", root)


def test_missing_and_broken_manifest(root):
    (root / "MANIFEST.json").write_text("{")
    with pytest.raises(AssetError, match="expected JSON"):
        _assets.manifest(root)
    (root / "MANIFEST.json").unlink()
    with pytest.raises(AssetError, match="found no file"):
        _assets.manifest(root)


def test_register_writes_sorted_entries(tmp_path):
    for name in ("b.bin", "a.bin"):
        (tmp_path / name).write_bytes(b"123")
        _assets.register(name, source="a test", license="none", root=tmp_path)
    entries = json.loads((tmp_path / "MANIFEST.json").read_text())
    assert list(entries) == ["a.bin", "b.bin"]
    assert entries["a.bin"]["bytes"] == 3
    assert _assets.check_asset("a.bin", tmp_path) == tmp_path / "a.bin"
