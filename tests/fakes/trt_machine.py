"""What makes a program believe that this machine has TensorRT and a GPU: a folder of Python, a folder of libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FAKE = "from tests.fakes.trt import fake_tensorrt\nglobals().update(vars(fake_tensorrt({version!r})))\n"
_CUDART = r"""
#include <stdlib.h>
#include <string.h>
int cudaStreamCreate(void **s) { *s = malloc(1); return 0; }
int cudaStreamDestroy(void *s) { free(s); return 0; }
int cudaStreamSynchronize(void *s) { return s ? 0 : 400; }
int cudaDeviceGetAttribute(int *v, int number, int device) { *v = number == 75 ? 8 : 7; return device; }
int cudaMalloc(void **p, size_t n) { *p = malloc(n); return *p ? 0 : 2; }
int cudaMallocHost(void **p, size_t n) { return cudaMalloc(p, n); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *s) {
  memcpy(to, from, n);
  return s && (kind == 1 || kind == 2) ? 0 : 400;
}
"""


def python_with(folder: Path, code: str = "", version: str = "10.3.0") -> tuple[str, ...]:
    """Return a command that runs Python with a `tensorrt` of a version, after some code; made in a folder."""
    (folder / "tensorrt.py").write_text(code + "\n" + _FAKE.format(version=version), encoding="utf-8")
    return ("env", f"PYTHONPATH={folder}:{ROOT}", sys.executable)


def environment_with(folder: Path) -> dict[str, str]:
    """Return an environment with `tensorrt`, and a CUDA runtime that a C compiler makes of `malloc`."""
    _, path, _ = python_with(folder)
    (folder / "cudart.c").write_text(_CUDART, encoding="ascii")
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(folder / "cudart.c")]
    subprocess.run(command, check=True, timeout=60)
    found = {"LD_LIBRARY_PATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
    return {**os.environ, **found, "PYTHONPATH": path.partition("=")[2]}
