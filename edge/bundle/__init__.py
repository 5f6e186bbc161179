"""The bundle (what goes to the device) and the adapted model (what stays there): format, readers, checks."""

from .manifest import Manifest, ManifestLayer, manifest_from_json
from .reader import BundleFiles, read_bundle
from .tensors import TensorFile, write_tensors

__all__ = [
    "BundleFiles",
    "Manifest",
    "ManifestLayer",
    "TensorFile",
    "manifest_from_json",
    "read_bundle",
    "write_tensors",
]
