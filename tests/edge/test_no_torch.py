"""The device part works where torch, onnx and everything else it does not need cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .bundles import support_arrays, write_bundle, write_npz

BLOCK = """
import sys
at_start = set(sys.modules)

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxruntime", "onnxscript", "matplotlib", "tensorboard"}:
            raise ImportError(f"{name} is blocked by this test")

sys.meta_path.insert(0, Blocker())
"""

USE = """
import json, pkgutil, importlib
from pathlib import Path
import numpy as np
import edge_adapt.edge
from edge_adapt.edge import Bundle
from edge_adapt.edge.cli import main

bundle, support, home = sys.argv[1:]
for module in pkgutil.walk_packages(edge_adapt.edge.__path__, "edge_adapt.edge."):
    native_library = ".native._" in module.name  # a plain shared library, loaded with ctypes
    if not (module.name.endswith("__main__") or native_library):
        importlib.import_module(module.name)
data = np.load(support)
model = Bundle.open(bundle).adapt(data["images"], data["labels"])
assert model.report["loss"] < model.report["losses"][0]
for words in (
    ["plan", bundle],
    ["run", bundle, "--support", support, "-o", home + "/adapted"],
    ["predict", home + "/adapted", "--bundle", bundle, "--input", support],
    ["inspect", bundle],
    ["verify", bundle],
    ["doctor"],
):
    assert main(words) == 0, words
assert main(["plan", bundle, "--plot", home + "/x.png"]) == 2
new = set(sys.modules) - at_start
loaded = {name.split(".")[0] for name in new if getattr(sys.modules[name], "__file__", None)}
known = set(sys.stdlib_module_names) | {"numpy", "click", "PIL", "tqdm", "edge_adapt"}
print(sorted(loaded - known))
"""

LATE = """
import edge_adapt.edge
import edge_adapt.edge.cli
assert "numpy" not in sys.modules, "the number of threads could not be set any more"
from edge_adapt.edge.cli import main
assert main(["plan", sys.argv[1], "--json"]) == 0
import os
import numpy as np
one = np.ones((512, 512), np.float32)
one @ one
assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
print(len(os.listdir("/proc/self/task")), file=sys.stderr)
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_everything_but_pictures_works_without_torch_onnx_and_matplotlib(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    done = python(BLOCK + USE, bundle, support, tmp_path)
    assert "matplotlib, which is not installed: pip install matplotlib" in done.stderr
    unknown = done.stdout.splitlines()[-1]
    assert unknown == "[]", f"imported beyond the four packages: {unknown}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_numpy_is_loaded_after_the_number_of_threads_is_set(tmp_path: Path) -> None:
    done = python(BLOCK + LATE, write_bundle(tmp_path / "bundle"))
    assert done.stderr.split() == ["1"]
