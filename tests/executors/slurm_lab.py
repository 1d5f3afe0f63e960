"""A real Slurm of several nodes on this machine, in a folder of its own, from Debian's packages."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")

CONFIGURATION = """\
ClusterName=lab
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=5
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace_s}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None if it can."""
    missing = [program for program in PROGRAMS if _program(program) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge"
    return None


@dataclass
class SlurmLab:
    """A running Slurm; its commands find it by `environment`.

    Args:
        folder: Its files.
        environment: The variables of a process that uses it.
        nodes: The daemon of each node, by its name.
    """

    folder: Path
    environment: dict[str, str]
    nodes: dict[str, subprocess.Popen]

    def call(self, *words: object, cwd: Path | None = None) -> str:
        """Return what one of Slurm's commands prints."""
        done = subprocess.run(
            list(map(str, words)),
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and node of every job that waits or works, by its id; of an array by id_index."""
        lines = self.call("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%N").splitlines()
        rows = [line.split("|") for line in lines]
        ended = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")
        return {job: (state, node) for job, state, node in rows if state not in ended}

    def start_now(self) -> None:
        """Spare the two minutes that Slurm lets a requeued job wait."""
        for job, (state, _) in self.jobs().items():
            if state == "PENDING":
                subprocess.run(
                    ["scontrol", "update", f"JobId={job}", "StartTime=now"],
                    env=self.environment, capture_output=True, check=False,
                )  # fmt: skip

    def kill_node(self, name: str) -> None:
        """A node dies, and all processes of its jobs with it."""
        self.nodes.pop(name).kill()
        for process in _processes(self.environment["SLURM_CONF"], name):
            _kill(process)

    def close(self) -> None:
        """Kill the jobs and the daemons of the nodes."""
        for name in list(self.nodes):
            self.kill_node(name)


@contextmanager
def slurm_lab(folder: Path, nodes: int = 3, grace_s: int = 0) -> Iterator[SlurmLab]:
    """Start a Slurm of `nodes` nodes, with the partitions `main` and `urgent`, which preempts main's jobs.

    Args:
        folder: For its files; its path must be short, as that of a socket.
        nodes: How many nodes, each with all cores of this machine.
        grace_s: How long a preempted job may go on after it was told.
    """
    folder.mkdir(parents=True)
    folder.chmod(0o711)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / "state").mkdir()
    names = [f"n{number}" for number in range(1, nodes + 1)]
    ports = _free_ports(nodes + 1)
    lines = [
        f"NodeName={name} NodeHostname=localhost Port={port} CPUs={os.cpu_count()} RealMemory=8000 Gres=gpu:1 "
        "Features=fast State=UNKNOWN"
        for name, port in zip(names, ports[1:], strict=True)
    ]
    (folder / "gres.conf").write_text(f"NodeName={','.join(names)} Name=gpu File=/dev/null\n")
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            ports=ports, user=getpass.getuser(), folder=folder, nodes="\n".join(lines), grace_s=grace_s
        )
    )
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    with ExitStack() as started:

        def start(program: str, *arguments: object) -> subprocess.Popen:
            process = subprocess.Popen(
                [_program(program) or program, *map(str, arguments)],
                env=environment,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=(folder / f"{program}.stderr").open("ab"),
                start_new_session=True,
            )
            started.callback(_end, process)
            return process

        socket_file = folder / "munge.socket"
        start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        _await(socket_file.exists)
        start("slurmctld", "-D")
        lab = SlurmLab(folder, environment, {})
        for name in names:
            (folder / f"spool-{name}").mkdir()
            lab.nodes[name] = start("slurmd", "-D", "-N", name)
        started.callback(lab.close)

        def ready() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-p", "main", "-o", "%T"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.split() == ["idle"] * nodes

        _await(ready)
        yield lab


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _await(done: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "Slurm does not start"
        time.sleep(0.1)


def _processes(configuration: str, node: str) -> list[int]:
    """The processes of jobs on a node, and the stepds that hold them."""
    found = set()
    wanted = {f"SLURM_CONF={configuration}".encode(), f"SLURMD_NODENAME={node}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                found.add(int(folder.name))
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if (Path("/proc") / str(parent) / "comm").read_text().startswith("slurmstepd"):
                    found.add(parent)
        except (OSError, ValueError):  # it has ended
            continue
    return sorted(found)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
