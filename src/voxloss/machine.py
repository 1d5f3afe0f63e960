"""What this machine has free, and what this process has taken of it."""

from contextlib import suppress
from pathlib import Path


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
