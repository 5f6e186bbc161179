"""The bundle (what goes to the device) and the adapted model (what stays there): format, readers, checks."""

from .adapted import Adapted, check_target, read_adapted, write_adapted
from .checkpoint import Checkpoint
from .manifest import Manifest, ManifestLayer, manifest_from_json
from .merge import merge
from .overlay import Overlay
from .reader import BundleFiles, read_bundle
from .streams import Streams
from .tensors import TensorFile, write_tensors

__all__ = [
    "Adapted",
    "BundleFiles",
    "Checkpoint",
    "Manifest",
    "ManifestLayer",
    "Overlay",
    "Streams",
    "TensorFile",
    "check_target",
    "manifest_from_json",
    "merge",
    "read_adapted",
    "read_bundle",
    "write_adapted",
    "write_tensors",
]
