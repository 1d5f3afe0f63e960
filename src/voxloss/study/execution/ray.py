"""Workers as actors of a Ray cluster, which starts them again elsewhere when their machine dies.

An actor keeps one worker alive and ends with it. It outlives the command that started it, unless the cluster does not.
The names of actors are in STUDY/.execution/ray-ID.json.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.local import LocalExecutor
from voxloss.study.execution.queue import Queue
from voxloss.study.execution.request import Request
from voxloss.study.folder import StudyFolder
from voxloss.study.preparation import execution_of
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_text
from voxloss.utilities.install import install_command
from voxloss.utilities.text import count_of

NAMESPACE = "voxloss"
CONNECT_SECONDS = 5.0
LOOK_SECONDS = 5.0  # between two questions to Ray
WAIT_SECONDS = 120.0  # for workers that were told to leave


class RayExecutor:
    """Starts workers on a Ray cluster."""

    elsewhere = True

    def __init__(self) -> None:
        self._next, self._alive = 0.0, 0

    def check(self, settings: ExecutionConfig, *, detached: bool) -> None:
        """Raise InputError if Ray is not installed, or no cluster answers at `execution.address`."""
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"execution.executor ray needs Ray, which is not installed: {install_command('ray')}."
            ) from error
        if settings.address is not None:
            _require_reachable(settings.address)
        elif detached:
            raise InputError(
                "--detach: a Ray cluster that voxloss starts ends with its command; start one (ray start --head) and "
                "name it by --execution.address."
            )

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: Request) -> str:
        """Start actors (`Executor.start`); without an address, on a cluster that ends with this process."""
        self.check(settings, detached=request.detached)
        ray = _connect(settings.address)
        study = study.resolve()
        count = min(workers, settings.jobs or workers)
        request = replace(request, executor="ray", detached=False, wait=False)
        resources = resources_of(settings, ray.cluster_resources())
        _say_if_no_machine_fits(resources, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        options: dict[str, Any] = {
            "num_cpus": resources.pop("CPU"),
            "num_gpus": resources.pop("GPU"),
            "memory": resources.pop("memory", None),
            "resources": resources,
            "lifetime": "detached",
            "namespace": NAMESPACE,
            "max_restarts": settings.max_retries,
            "scheduling_strategy": "SPREAD",
        }
        group = uuid.uuid4().hex[:8]
        names = [f"{study.name}-{group}-{number}" for number in range(count)]
        note = {"address": ray.get_runtime_context().gcs_address, "actors": names, "request": request.text()}
        if settings.address is not None and "://" in settings.address:
            note["address"] = settings.address
        write_text(_folder(study) / f"ray-{group}.json", json.dumps(note) + "\n")
        threads = int(settings.threads or max(1, options["num_cpus"]))
        actor = ray.remote(WorkerActor)
        for name in names:
            actor.options(name=name, **options).remote(str(study), request.text(), threads, str(Path.cwd()))
        self._next, self._alive = 0.0, count
        return f"{count_of(count, 'worker')} submitted to Ray"

    def alive(self, study: Path) -> int:
        """Return how many actors wait or work (`Executor.alive`); Ray starts those again whose machine has died."""
        if time.monotonic() < self._next:
            return self._alive
        self._next = time.monotonic() + LOOK_SECONDS
        notes = _notes(study)
        self._alive = sum(len(_living(note)) for note in notes.values())
        if not self._alive:
            opened = Study.open(study)
            if not any(Request.parse(note["request"]).is_left(opened) for note in notes.values()):
                for path in notes:
                    path.unlink(missing_ok=True)
        return self._alive

    def why_left(self, study: Path) -> str:
        """Return what the last actor that failed has said (`Executor.why_left`)."""
        return _last_words(study) or "All workers have left Ray with runs to do."

    def queue(self, study: Path) -> Queue | None:
        """Return how many actors were started (`Executor.queue`); to ask the cluster, one would have to join it."""
        submitted = sum(len(note["actors"]) for note in _notes(study).values())
        return Queue("Ray", submitted, None) if submitted else None

    def stop(self, study: Path) -> None:
        """Tell the actors' workers to leave, and remove actors that wait (`Executor.stop`)."""
        notes = _notes(study)
        for path in notes:
            path.unlink(missing_ok=True)
        for note in notes.values():
            with suppress(InputError):  # a cluster that is gone has no workers
                _stop(note)


class WorkerActor:
    """What runs on the cluster: it keeps a worker alive until nothing is left for it, and ends with it.

    Ray makes it anew, on another machine if need be, when its process dies; so all begins in `__init__`.
    """

    def __init__(self, study: str, request: str, threads: int, place: str) -> None:
        import ray

        with suppress(OSError):  # modules of the user's own are there
            os.chdir(place)
        self._study, self._leaving = Path(study), threading.Event()
        settings = replace(execution_of(self._study), parallel=1, threads=threads)
        self._executor = LocalExecutor()
        self._executor.start(self._study, settings, sys.maxsize, Request.parse(request))  # one for each GPU
        self._thread = threading.Thread(target=self._keep, args=(ray.get_runtime_context().current_actor,), daemon=True)
        self._thread.start()

    def _keep(self, me: Any) -> None:
        import ray

        try:
            while self._executor.alive(self._study) and not self._leaving.wait(0.5):
                pass
            self._executor.stop(self._study)
        except InputError as error:
            write_text(_folder(self._study) / "ray-error.txt", f"{error}\n")
        finally:
            ray.kill(me, no_restart=True)  # its place is free for the next one

    def is_there(self) -> bool:
        """Answer, once the cluster has room for it."""
        return True

    def leave(self) -> None:
        """Let the worker release its run."""
        self._leaving.set()
        self._thread.join()


def _stop(note: dict[str, Any]) -> None:
    ray = _connect(note["address"])
    actors = [ray.get_actor(name, NAMESPACE) for name in _living(note)]
    there = {actor.is_there.remote(): actor for actor in actors}
    answered, silent = ray.wait(list(there), num_returns=len(there), timeout=2 * CONNECT_SECONDS) if there else ([], [])
    for reference in silent:  # they wait for room
        ray.kill(there[reference], no_restart=True)
    leaving = [there[reference].leave.remote() for reference in answered]
    if leaving:
        ray.wait(leaving, num_returns=len(leaving), timeout=WAIT_SECONDS)


def _connect(address: str | None) -> Any:
    """Return the module `ray`, connected to a cluster; one of this machine alone is started where none is named."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return ray
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100_000_000}  # it stays empty
    if address != "local":
        _require_reachable(address)
        options = {}
    with _handlers_kept():
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
            _silence()
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise InputError(
                f"execution.address {address}: {reason}. Run voxloss on a machine of the cluster, with the same "
                "versions of Ray and Python."
            ) from error
    return ray


def _silence() -> None:
    """Keep Ray from printing pages about machines that die into the display of the runs.

    There is no setting for it; where Ray calls the function otherwise, it prints.
    """
    with suppress(ImportError):
        from ray._private import worker

        worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray replaces the handlers of signals by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_reachable(address: str) -> None:
    """Raise InputError if nothing answers at an address; Ray itself would try for two minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition("//")[2].partition(":")
    if not host or not port.isdigit():
        raise InputError(f"execution.address {address!r} is not HOST:PORT such as head:6379, ray://HOST:PORT or auto.")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"execution.address {address}: no Ray cluster answers there ({error.strerror or error}); start one with "
            f"`ray start --head --port {port}` on {host}, or leave execution.address out for a cluster of this machine "
            "alone."
        ) from error


def resources_of(settings: ExecutionConfig, cluster: dict[str, float]) -> dict[str, float]:
    """Return what a worker takes of its machine: as many cores as threads, and a run's GPUs if there are any."""
    gpu = settings.device.startswith("cuda") or (settings.device == "auto" and cluster.get("GPU", 0) >= 1)
    return {"CPU": settings.threads or 1, "GPU": settings.devices_per_run if gpu else 0, **settings.resources}


def _say_if_no_machine_fits(wanted: dict[str, float], machines: list[dict[str, float]]) -> None:
    if any(all(machine.get(name, 0) >= amount for name, amount in wanted.items()) for machine in machines):
        return
    text = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)
    print(f"note: no machine of the Ray cluster has {text} yet (execution.resources); workers wait.", file=sys.stderr)


def _living(note: dict[str, Any]) -> list[str]:
    """The actors of a note that wait or work."""
    ray = _connect(note["address"])
    there = {
        actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE
    }
    return [name for name in note["actors"] if name in there]


def _last_words(study: Path) -> str | None:
    with suppress(OSError):
        return (_folder(study) / "ray-error.txt").read_text(encoding="utf-8").strip()
    return None


def _folder(study: Path) -> Path:
    return StudyFolder(study).execution


def _notes(study: Path) -> dict[Path, dict[str, Any]]:
    """What was started and not stopped."""
    notes = {}
    for path in sorted(_folder(study).glob("ray-*.json")):
        with suppress(FileNotFoundError):
            notes[path] = json.loads(path.read_text(encoding="utf-8"))
    return notes
