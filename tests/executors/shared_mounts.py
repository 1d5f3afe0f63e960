"""One folder as two machines see it on a network file system: mounted twice, each mount with caches of its own.

No lock reaches from one mount to the other, and each shows names and times as they were some seconds ago.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SERVERS = [Path("/usr/lib/openssh/sftp-server"), Path("/usr/libexec/openssh/sftp-server")]
SFTP = next((path for path in SERVERS if path.is_file()), None)
MEMORY = 3  # seconds for which a mount shows what it knew


@contextmanager
def two_mounts(kind: str, parent: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Yield the folder on the server and its two mounts, by `sshfs` or `bindfs`; skip the test where one is missing."""
    if not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None or shutil.which(kind) is None:
        pytest.skip(f"two mounts of one folder need /dev/fuse and Debian's package {kind}")
    if kind == "sshfs" and SFTP is None:
        pytest.skip("sshfs needs Debian's package openssh-sftp-server")
    server = parent / "server"
    server.mkdir()
    with ExitStack() as stack:
        mounts = [stack.enter_context(_mounted(kind, server, parent / name)) for name in ("one", "two")]
        yield server, mounts[0], mounts[1]


@contextmanager
def _mounted(kind: str, server: Path, mount: Path) -> Iterator[Path]:
    mount.mkdir()
    if kind == "sshfs":
        # Its server is a process at the other end of a pipe: no connection over a network is needed.
        client = mount.with_suffix(".sh")
        client.write_text(f"#!/bin/sh\nexec {SFTP}\n")
        client.chmod(0o755)
        # By default it remembers for 20 seconds, for which the tests would have to wait.
        words = ["sshfs", "-o", f"ssh_command={client},dcache_timeout={MEMORY}", f"localhost:{server}", mount]
    else:
        words = ["bindfs", "-o", f"attr_timeout={MEMORY},entry_timeout={MEMORY}", server, mount]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip(f"{kind} cannot mount here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["fusermount3", "-u", "-z", mount], check=True)
