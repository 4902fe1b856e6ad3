"""Ray itself: started quietly and gone afterwards; and what is refused before it is started."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

import ray
from ray.exceptions import RayError

from experiments.cluster import watchdog
from experiments.cluster.resources import ResourcesConfig
from experiments.cluster.stopping import interruptible
from mtan_core.errors import UserError

OBJECTS = 100 * 2**20  # bytes of Ray's object store: nothing but settings goes through it
PATIENCE = 15.0  # seconds for an address to answer
# A worker trains one trial after the other, each in a new thread. glibc gives threads memory of their own, none of which would
# ever shrink again (`keep_memory`); by this variable, which it reads when a process starts, they have that of the first.
WORKERS = {"env_vars": {"MALLOC_ARENA_MAX": "1"}}


@contextmanager
def cluster(address: str | None, resources: ResourcesConfig) -> Iterator[Path | None]:
    """Ray on this machine, or on the cluster at `address`; what was started is gone at the end, however that comes.

    Yields the folder that what was started can be told by. Raises
    UserError for an address that does not answer and for resources that no machine has.
    """
    _quiet()
    with ExitStack() as stack:
        # Ray prints what befalls its workers; standard output is for results.
        stack.enter_context(redirect_stdout(sys.stderr))
        folder = None
        if address is None:
            folder = stack.enter_context(_watched_folder())
            stack.callback(ray.shutdown)
            _start(folder)
        else:
            stack.callback(ray.shutdown)
            _connect(address)
        stack.enter_context(interruptible())
        _refuse_resources(resources)
        yield folder


@contextmanager
def _watched_folder() -> Iterator[Path]:
    """A folder for Ray, removed at the end with all processes that use it, also where this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="mtan-"))  # short: Ray's sockets lie within
    # In a session of its own, Ctrl-C in a terminal does not reach it.
    words = [sys.executable, "-I", "-S", watchdog.__file__, str(folder)]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             cwd="/", start_new_session=True)  # fmt: skip
    try:
        yield folder
    finally:
        guard.communicate()  # the end of its input is the sign


def _quiet() -> None:
    """Only what we say is said; no usage is reported anywhere; a search's state is written every second, if not sooner."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_GLOBAL_CHECKPOINT_S": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)
    for logger in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)


def _start(folder: Path) -> None:
    try:
        ray.init(
            num_cpus=os.cpu_count(), object_store_memory=OBJECTS, include_dashboard=False, log_to_driver=False,
            logging_level=logging.CRITICAL, _temp_dir=str(folder), runtime_env=WORKERS,
        )  # fmt: skip
    except Exception as problem:
        if "timed out during startup" not in str(problem):  # Ray has no name for it
            raise
        raise UserError(
            "Expected Ray to start on this machine, found that it did not in time: begin again when the machine is less busy."
        ) from None


def _connect(address: str) -> None:
    _refuse_silence(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=WORKERS)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as problem:
        found = str(problem).splitlines()[0]
        raise UserError(f"--address: expected a Ray cluster at {address}, found none: {found}.") from None


def _refuse_silence(address: str) -> None:
    """Raises UserError where no cluster listens; "auto" is left to Ray, which looks on this machine."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise UserError(f"--address: expected HOST:PORT or auto, found {address!r}.")
    silence = f"no answer within {PATIENCE:g} s"
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE):
            found = None
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            found = _unlike_ray(address, silence)
    except TimeoutError:
        found = silence
    except (OSError, OverflowError) as problem:
        found = f"that nobody answers: {problem}"
    if found:
        raise UserError(f"--address: expected a Ray cluster at {address}, found {found}.")


def _unlike_ray(address: str, silence: str) -> str | None:
    """What is found instead of Ray. Ray itself would wait for minutes, so it is asked before, as Kubernetes does: by gRPC's own
    service of health, which its servers have."""
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE)
        except grpc.RpcError as problem:
            return (
                silence if problem.code() is grpc.StatusCode.DEADLINE_EXCEEDED else "that what answers there is no Ray"
            )
    return None


def _refuse_resources(resources: ResourcesConfig) -> None:
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
        largest = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in wanted}
        raise UserError(
            f"`resources`: expected at most what a machine has ({largest['CPU']:g} CPUs, {largest['GPU']:g} GPUs), "
            f"found {resources.cpus:g} CPUs and {resources.gpus:g} GPUs a trial."
        )
