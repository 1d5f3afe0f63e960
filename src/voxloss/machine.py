"""What this machine has free."""

from pathlib import Path


def available_memory() -> int | None:
    """Bytes of memory that processes can take without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
