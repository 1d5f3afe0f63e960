"""Free memory of this machine, and memory that this process uses."""

import os
import platform
import shutil
import sys
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any


def available_memory() -> int | None:
    """Return the bytes that processes can use without swapping; None if the system does not say."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def busy_seconds() -> float | None:
    """Return the seconds that the machine's cores have worked for any process; None if the system does not say."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting for disks
    except (OSError, ValueError, IndexError):
        return None


def forget_peak_memory() -> None:
    """Reset `peak_memory`, if the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the most bytes that this process used since `forget_peak_memory`; None if the system does not say."""
    return _kilobytes("/proc/self/status", "VmHWM")


def shared_memory_room() -> int | None:
    """Return the bytes left where processes share tensors; None if the system sets no limit of its own to them."""
    if sys.platform != "linux":
        return None
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:  # there is none
        return 0


def most_open_files() -> int:
    """Return how many files this process may have open at once (`ulimit -n`), as far as it makes sense to use them."""
    try:
        import resource
    except ImportError:  # Windows
        return 512
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 8192 if most == resource.RLIM_INFINITY else min(most, 8192)


def process_identity(pid: int | None = None) -> str | None:
    """Return what identifies a process, this one by default, among all that this machine has had.

    It is made of the machine's boot, the group of processes that see each other, and the time when the process began.
    None where the system does not tell, or the process is gone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *values = Path(f"/proc/{pid or 'self'}/stat").read_text().rsplit(")", 1)[1].split()
        group = Path("/proc/self/ns/pid").readlink()
    except (OSError, IndexError):
        return None
    return None if state in "ZX" else f"{boot} {group} {values[18]}"


def is_gone(pid: int, identity: str | None) -> bool:
    """Whether a process of this machine has ended; False where that cannot be known.

    Args:
        pid: Its number.
        identity: Its `process_identity`.
    """
    own = process_identity()
    if own is None or identity is None or own.split()[:2] != identity.split()[:2]:
        return False
    return process_identity(pid) != identity


def _kilobytes(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None


class PeakMemory:
    """The peak memory of a run in bytes: of the device on CUDA, else of the process."""

    def __init__(self, device: str, before: int) -> None:
        import torch  # takes seconds, and commands that train nothing import this module

        self.before, self.device = before, torch.device(device)
        if self.device.type == "cuda":
            if torch.cuda.is_initialized():  # if the device is not available, the run fails with a message
                torch.cuda.reset_peak_memory_stats(self.device)
        else:
            forget_peak_memory()

    def read(self) -> int | None:
        """Return the peak in bytes; None where it is unknown."""
        import torch  # as above

        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_memory()
        return max(self.before, now or 0) or None


def environment() -> dict[str, Any]:
    """Return versions and machine, for the record of a study."""
    import torch  # as above

    packages = ("voxloss", "torch", "monai", "batchgeneratorsv2", "nibabel", "numpy", "scipy")
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


def end_with(parent: int) -> None:
    """End this process when its parent is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
