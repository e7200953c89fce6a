"""Builds the native engine; the rest of the package is described in pyproject.toml.

Two extensions: _core, the engine for chains of Linear layers, and _conv, bfloat16 kernels for the torch engine. Both
are optional: where one cannot be compiled, the package installs without it, and the reason is kept in
native/build-failure.txt or native/conv-build-failure.txt for `lth` to show.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("src/lth/native")
FAILURES = {"_core": "build-failure.txt", "_conv": "conv-build-failure.txt"}
FOLDERS = {"_core": "linear", "_conv": "conv"}  # an extension's sources; both include what is in shared/
SOURCES = {
    "_core": ["bindings.cpp", "network.cpp", "layer.cpp", "layout.cpp", "dispatch.cpp"],
    "_conv": ["bindings.cpp", "bind_convolutions.cpp", "bind_matrices.cpp", "bind_sparse.cpp"],
}
KERNELS = {  # what is compiled with the flags of an instruction set, into a folder of its name
    "_core": {name: ["kernels.cpp"] for name in ("kernels_avx512", "kernels_avx2", "kernels_plain")},
    "_conv": {
        "conv_avx512_bf16": [
            "winograd.cpp",
            "thin.cpp",
            "pooling.cpp",
            "small_images.cpp",
            "matrix_conv.cpp",
            "sparse_conv.cpp",
            "sparse_linear.cpp",
            "update.cpp",
        ],
    },
}
MATH = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]  # NaN and infinity stay what they are
# LTH_SANITIZE=1 builds slow extensions that end at the first error of memory, for benchmarks/sanitize.py.
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if os.environ.get("LTH_SANITIZE") else []
SANITIZED = [*SANITIZERS, "-O1", "-g1", "-fno-omit-frame-pointer", "-DLTH_SANITIZED"]
FLAGS = ["-std=c++17", *(SANITIZED if SANITIZERS else ["-O3", "-g0"]), "-fvisibility=hidden", *MATH]
AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
THREADS = {"_core": [[]], "_conv": [["-fopenmp"], []]}  # tried in turn: without OpenMP a training has one thread
X86 = {
    "kernels_avx512": AVX512,
    "kernels_avx2": ["-mavx2", "-mfma"],
    "kernels_plain": [],
    "conv_avx512_bf16": [*AVX512, "-mavx512bf16"],
}


def kernel_flags(name: str) -> list[str]:
    """Flags for one instruction set; a universal binary on macOS applies them to its x86 half only."""
    if sys.platform == "darwin":
        return [word for flag in X86[name] for word in ("-Xarch_x86_64", flag)]
    return X86[name] if platform.machine().lower() in ("x86_64", "amd64") else []


def run(command: list[str], **_: object) -> None:
    """Run a compiler; CompileError carries the first line that says what is wrong."""
    try:
        done = subprocess.run([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise CompileError(f"no C++ compiler found: {command[0]}: {error.strerror}") from error
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CompileError(next((line for line in lines if "error" in line), f"{command[0]} gave {done.returncode}"))


class BuildNative(build_ext):
    """Compiles kernels once per instruction set, links all of an extension into one module, and survives failure."""

    def run(self) -> None:
        super().run()
        for ext in self.extensions if self.inplace else []:
            built = Path(self.build_lib, self.get_ext_filename(self.get_ext_fullname(ext.name)))
            for name in (built.name, failure(ext)):
                mirror(built.with_name(name), NATIVE / name)

    def build_extension(self, ext: Extension) -> None:
        module = Path(self.get_ext_fullpath(ext.name))
        (module.parent / failure(ext)).unlink(missing_ok=True)
        for threads in THREADS[ext.name.rpartition(".")[2]]:
            try:
                self.compile_and_link(ext, threads)
                return
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the package works without the engine
                why = error
        fall_back(module, module.parent / failure(ext), why)

    def compile_and_link(self, ext: Extension, threads: list[str]) -> None:
        import pybind11

        self.compiler.spawn = self.compiler.call = run  # setuptools renamed the one to the other
        ext.include_dirs = [str(NATIVE), pybind11.get_include()]
        ext.extra_compile_args, ext.extra_objects = [*FLAGS, *threads], []
        ext.extra_link_args = [*threads, *SANITIZERS]
        extension = ext.name.rpartition(".")[2]
        for name, sources in KERNELS[extension].items():
            ext.extra_objects += self.compiler.compile(
                paths(extension, sources),
                output_dir=str(Path(self.build_temp) / name),
                macros=[("LTH_KERNELS", name)],
                include_dirs=[str(NATIVE)],
                extra_postargs=[*FLAGS, *kernel_flags(name)],
                depends=ext.depends,
            )
        super().build_extension(ext)


def paths(extension: str, sources: list[str]) -> list[str]:
    """Where the sources of an extension are."""
    return [str(NATIVE / FOLDERS[extension] / source) for source in sources]


def failure(ext: Extension) -> str:
    """Where the reason is kept why an extension was not built."""
    return FAILURES[ext.name.rpartition(".")[2]]


def mirror(built: Path, source: Path) -> None:
    """In-place builds: what was built stands beside the sources, what was not does not."""
    if built.exists():
        shutil.copyfile(built, source)
    else:
        source.unlink(missing_ok=True)


def fall_back(module: Path, place: Path, error: Exception) -> None:
    """No module, also no old one, and the reason in its place."""
    reason = str(error) or type(error).__name__
    print(f"lth: the native extension {module.name} is not built: {reason}", file=sys.stderr)
    module.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(reason + "\n")


setup(
    cmdclass={"build_ext": BuildNative},
    ext_modules=[
        Extension(
            f"lth.native.{name}",
            paths(name, sources),
            depends=[str(path) for path in NATIVE.rglob("*.[ch]pp")],
            language="c++",
            optional=True,
        )
        for name, sources in SOURCES.items()
    ],
)
