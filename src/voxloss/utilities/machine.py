"""What this machine has free, and what this process has taken of it."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any


def available_memory() -> int | None:
    """Bytes of memory that processes can take without swapping; None where the system does not tell."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def forget_peak_memory() -> None:
    """Let `peak_memory` begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Bytes of memory that this process held at most since `forget_peak_memory`; None where nothing tells."""
    return _kilobytes("/proc/self/status", "VmHWM")


def _kilobytes(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None


class PeakMemory:
    """The most memory that a run took, in bytes: on CUDA of the device, else of the process; None where unknown."""

    def __init__(self, device: str, before: int) -> None:
        import torch  # takes seconds, and commands that train nothing import this module

        self.before, self.device = before, torch.device(device)
        if self.device.type == "cuda":
            if torch.cuda.is_initialized():  # a device that cannot be had is the run's failure, and found there
                torch.cuda.reset_peak_memory_stats(self.device)
        else:
            forget_peak_memory()

    def read(self) -> int | None:
        """Return the peak in bytes; None where it is unknown."""
        import torch  # as above

        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_memory()
        return max(self.before, now or 0) or None


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    import torch  # as above

    packages = ("voxloss", "torch", "monai", "batchgeneratorsv2", "nibabel", "numpy", "scipy", "statsmodels")
    details: dict[str, Any] = {"python": platform.python_version()}
    details |= {name: metadata.version(name) for name in packages}
    details |= {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_available():
        details["gpu"] = torch.cuda.get_device_name()
    return details


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown"
