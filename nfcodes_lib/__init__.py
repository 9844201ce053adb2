"""Read a neural network from the inside: capture a layer's codes, map them with a SOM, ask what each unit means.

The method is that of Lee and Vijayan, "Analysis of functional neural codes of deep learning models"
(arXiv:2205.10952); the settings are ours. ``python -m nfcodes_lib`` reports what works on this machine.
"""

import sys

__version__ = "0.1.0"

try:
    from . import plots, widgets
    from ._assets import AssetError
    from .adversarial import trace_attack
    from .architectures import auto_layers
    from .attacks import attack_images
    from .capture import capture
    from .codes import association, code_accuracy, code_table, hit_map, hit_maps
    from .controls import binary_patterns, code_silhouette, kmeans_units, occupancy
    from .data import CLASS_NAMES, load_images, split_indices
    from .decoder import train_decoder
    from .diagnose import Diagnosis
    from .geometry import layer_geometry
    from .image_folders import open_images
    from .layer_codes import LayerCodes
    from .models import available_models, load_model
    from .patching import patch_test
    from .reconstruct import reconstruct
    from .reconstruction import check_images, exemplars
    from .report import report
    from .som import SOM, Epoch
    from .statistics import depth_trend
    from .topography import morans_i, within_class_distance
    from .traces import transition_matrix
    from .untrained import untrained_copy
except (ImportError, OSError) as error:  # OSError: a shared library of a package does not load
    if sys.argv[0] != "-m":  # python is still looking for what follows -m: let the doctor have its say
        raise ImportError(f"{error}; `python -m nfcodes_lib` reports what is missing and how to mend it") from error


__all__ = [
    "CLASS_NAMES",
    "SOM",
    "AssetError",
    "Diagnosis",
    "Epoch",
    "LayerCodes",
    "association",
    "attack_images",
    "auto_layers",
    "available_models",
    "binary_patterns",
    "capture",
    "check_images",
    "code_accuracy",
    "code_silhouette",
    "code_table",
    "depth_trend",
    "exemplars",
    "hit_map",
    "hit_maps",
    "kmeans_units",
    "layer_geometry",
    "load_images",
    "load_model",
    "morans_i",
    "occupancy",
    "open_images",
    "patch_test",
    "plots",
    "reconstruct",
    "report",
    "split_indices",
    "trace_attack",
    "train_decoder",
    "transition_matrix",
    "untrained_copy",
    "widgets",
    "within_class_distance",
]
