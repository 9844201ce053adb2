"""Read a neural network from the inside: capture a layer's codes, map them with a SOM, ask what each unit means.

The method is that of Lee and Vijayan, "Analysis of functional neural codes of deep learning models"
(arXiv:2205.10952); the settings are ours. ``python -m nfcodes_lib`` reports what works on this machine.
"""

from ._assets import AssetError
from .capture import capture
from .data import CLASS_NAMES, load_images, split_indices
from .layer_codes import LayerCodes
from .models import available_models, load_model

__version__ = "0.1.0"

__all__ = [
    "CLASS_NAMES",
    "AssetError",
    "LayerCodes",
    "available_models",
    "capture",
    "load_images",
    "load_model",
    "split_indices",
]
