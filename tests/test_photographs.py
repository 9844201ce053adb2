"""The photographs that packages bring: what is loaded, how it is cut, and what is said where they lack."""

import pytest
import torch

from nfcodes_lib.photographs import PHOTOGRAPHS, load_photographs


def test_all_are_there_as_squares_in_colour():
    images, labels = load_photographs(size=32)
    assert images.shape == (14, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < 0.05
    assert 0.95 < images.max() <= 1
    assert labels.tolist() == list(range(14))
    assert len({image.mean().item() for image in images}) == 14
    grey = [name for name, image in zip(PHOTOGRAPHS, images, strict=True) if torch.equal(image[0], image[2])]
    assert grey == ["cameraman", "coins", "clock", "brick", "grass", "gravel"]


def test_quarters_are_the_whole_at_twice_the_scale():
    quarters, labels = load_photographs("quarters", size=40, names=["flower", "cat"])
    whole, _ = load_photographs(size=80, names=["flower", "cat"])
    assert labels.tolist() == [0] * 4 + [1] * 4
    for i in range(2):
        top = torch.cat([quarters[4 * i], quarters[4 * i + 1]], dim=2)
        bottom = torch.cat([quarters[4 * i + 2], quarters[4 * i + 3]], dim=2)
        assert torch.equal(torch.cat([top, bottom], dim=1), whole[i])


def test_everyone_is_credited():
    assert all(by and "," in by for _, _, by in PHOTOGRAPHS.values())


def test_errors_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'coffee'"):
        load_photographs(names=["cofee"])
    with pytest.raises(ValueError, match="crop must be one of"):
        load_photographs("halves")
    monkeypatch.setitem(PHOTOGRAPHS, "cat", ("no_such_package", "cat.png", "nobody, CC0"))
    monkeypatch.setattr("nfcodes_lib.photographs.PACKAGES", {"no_such_package": "no-such"})
    with pytest.raises(FileNotFoundError, match="pip install no-such"):
        load_photographs(names=["cat"])
