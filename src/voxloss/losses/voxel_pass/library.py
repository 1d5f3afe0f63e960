"""The functions in C, compiled on the machine where it has a C compiler, for the CPU that it has.

The sources are compiled once, in a few seconds, and kept in the user's cache folder. The environment variable
VOXLOSS_COMPILER names the compiler; if it is empty, nothing is compiled.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VARIABLE = "VOXLOSS_COMPILER"
FOLDER = Path(__file__).with_name("c")
SOURCES = tuple(FOLDER / name for name in ("library.c", "distances.c", "order.c"))
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-shared", "-fPIC")
# By what torch found the processor to be able to do; what is compiled for it is not taken on another one.
CAPABILITIES = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": (
        *("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ),
}
PATIENCE = 600  # seconds; it takes a few, but runs of a study should not differ because a machine was busy

_NO_MEMORY = 4


def is_there() -> bool:
    """Whether the sources are compiled on this machine."""
    return load() is not None


def run(name: str, arguments: ctypes.Structure, parts: int, memory: list[Tensor]) -> int:
    """Call a function of the sources for every part, and return the faults that it found.

    `memory` has the addresses of the arguments.
    """
    function: Callable[..., int] = getattr(load(), name)
    numbers = iter(range(parts))  # the threads take their parts from here, each when it is free

    def work(_in_use: list[Tensor] = memory) -> int:  # after an interrupt the other threads still work
        faults = 0
        for number in numbers:
            faults |= function(ctypes.byref(arguments), ctypes.c_int64(number))
        return faults

    helpers = min(torch.get_num_threads(), parts) - 1
    others = [_pool().submit(work) for _ in range(helpers)]
    faults = work()
    for other in others:
        faults |= other.result()
    if faults & _NO_MEMORY:
        raise MemoryError("no memory for a block of voxels")
    return faults


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="voxloss")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process does not have the threads


@functools.cache
def load() -> Any:
    """The compiled source; None where there is no compiler, or it fails."""
    compiler = os.environ.get(VARIABLE)
    if compiler is None:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "")
    if os.name != "posix" or not compiler:
        return None
    command = [compiler, *FLAGS, *CAPABILITIES.get(torch.backends.cpu.get_cpu_capability(), ())]
    texts = [path.read_bytes() for path in sorted(FOLDER.glob("*.c"))]  # with those that are included
    key = hashlib.sha256(repr((texts, command, platform.machine(), platform.system())).encode())
    kept = _cache_folder() / f"losses-{key.hexdigest()[:20]}.so"
    try:
        return ctypes.CDLL(str(kept))
    except OSError:  # not compiled yet
        pass
    try:
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / "losses.so"
            arguments = [*command, "-o", str(fresh), *map(str, SOURCES)]
            subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=PATIENCE)
            library = ctypes.CDLL(str(fresh))
            _keep(fresh, kept)
            return library
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        reason = next((line for line in said if "error" in line), said[0] if said else type(error).__name__)
        warnings.warn(
            f"{compiler} could not compile the fast pass of the losses, so they take the slower one: {reason}. "
            f"{VARIABLE} names another compiler; if it is empty, none is tried",
            stacklevel=2,
        )
        return None


def _cache_folder() -> Path:
    """The folder of the user's cache; what is there was compiled for this user. Without a home nothing is kept."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "voxloss"
    except RuntimeError:
        return Path(os.devnull)


def _keep(fresh: Path, kept: Path) -> None:
    """Copy the compiled source to the cache, whole or not at all; without one it is compiled in every process."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(fresh.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(kept)
    except OSError:
        return
