"""The native kernels: one C source compiled into one shared library per instruction set, all of them optional.

Everything else about the package is in pyproject.toml. Where there is no C compiler the installation still works
and the reference engine is used. The libraries are not Python modules: `edge/native/library.py` loads them with
ctypes.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("edge/native/src")
FLAGS = [
    *("-std=gnu11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-pthread"),
]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
VARIANTS = {
    "x86_64": {"avx512": AVX512, "avx2": ["-mavx2", "-mfma"], "baseline": []},
    "aarch64": {"neon": []},
}


class BuildVariants(build_ext):
    """Keeps the object files of the variants apart."""

    def build_extension(self, ext: Extension) -> None:
        """Build one variant."""
        shared = self.build_temp
        self.build_temp = str(Path(shared) / ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared


def variants() -> list[Extension]:
    """Return one extension per instruction set of this machine's architecture."""
    if not sys.platform.startswith("linux"):
        return []
    return [
        Extension(
            f"edge_adapt.edge.native._{name}",
            sources=sorted(map(str, SOURCE.glob("*.c"))),
            depends=sorted(map(str, SOURCE.glob("*.h"))),
            extra_compile_args=[*FLAGS, *flags],
            extra_link_args=["-pthread", "-lm"],
            optional=True,
        )
        for name, flags in VARIANTS.get(platform.machine(), {}).items()
    ]


setup(ext_modules=variants(), cmdclass={"build_ext": BuildVariants})
