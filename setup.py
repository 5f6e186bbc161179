"""The native kernels: one C source compiled into one shared library per instruction set, all of them optional.

Everything else about the package is in pyproject.toml. Where there is no C compiler the installation still works
and the reference engine is used. The libraries are not Python modules: `edge/native/library.py` loads them with
ctypes.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

SOURCE = Path("edge/native/src")
FLAGS = [
    *("-std=gnu11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
VARIANTS = {
    "x86_64": {"avx512": AVX512, "avx2": ["-mavx2", "-mfma"], "baseline": []},
    "aarch64": {"neon": []},
}


class BuildVariants(build_ext):
    """Keeps the object files of the variants apart and uses OpenMP where the compiler has it."""

    def build_extension(self, ext: Extension) -> None:
        """Build one variant."""
        shared = self.build_temp
        self.build_temp = str(Path(shared) / ext.name)
        openmp = ["-fopenmp"] if self._links("-fopenmp") else []
        ext.extra_compile_args = [*ext.extra_compile_args, *openmp]
        ext.extra_link_args = [*ext.extra_link_args, *openmp]
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared

    def _links(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory, "probe.c")
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], directory, extra_postargs=[flag])
                self.compiler.link_executable(objects, "probe", directory, extra_postargs=[flag])
            except (CompileError, LinkError):
                return False
        return True


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
            libraries=["m"],
            optional=True,
        )
        for name, flags in VARIANTS.get(platform.machine(), {}).items()
    ]


setup(ext_modules=variants(), cmdclass={"build_ext": BuildVariants})
