"""Ray itself: started quietly and gone afterwards; and what is refused before it is started."""

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from pyarrow import fs

from experiments.search.config import ResourcesConfig
from mtan_core.errors import UserError

OBJECTS = 100 * 2**20  # bytes of Ray's object store: nothing but settings goes through it
PATIENCE = 15.0  # seconds for an address to answer


@contextmanager
def cluster(address: str | None, resources: ResourcesConfig) -> Iterator[None]:
    """Ray on this machine, or on the cluster at `address`; its processes are gone at the end, however that comes.

    Raises UserError for an address that does not answer and for resources that no machine has.
    """
    _quiet()
    temporary = Path(tempfile.mkdtemp(prefix="mtan-"))  # short: Ray's sockets lie within
    try:
        _start(address, temporary)
        _refuse_resources(resources)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def _quiet() -> None:
    """Only what we say is said; no usage is reported anywhere; the search's state is written at every event."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_GLOBAL_CHECKPOINT_S": "0",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)
    for logger in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)


def _start(address: str | None, temporary: Path) -> None:
    if address is None:
        ray.init(
            num_cpus=os.cpu_count(), object_store_memory=OBJECTS, include_dashboard=False, log_to_driver=False,
            logging_level=logging.CRITICAL, _temp_dir=str(temporary),
        )  # fmt: skip
        return
    _refuse_silence(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as problem:
        found = str(problem).splitlines()[0]
        raise UserError(f"--address: expected a Ray cluster at {address}, found none: {found}.") from None


def _refuse_silence(address: str) -> None:
    """Raises UserError where nobody listens; "auto" is left to Ray, which looks on this machine."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address: expected HOST:PORT, ray://HOST:PORT or auto, found {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as problem:
        raise UserError(
            f"--address: expected a Ray cluster at {address}, found that nobody answers: {problem}."
        ) from None


def _refuse_resources(resources: ResourcesConfig) -> None:
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
        largest = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in wanted}
        raise UserError(
            f"`resources`: expected at most what a machine has ({largest['CPU']:g} CPUs, {largest['GPU']:g} GPUs), "
            f"found {resources.cpus:g} CPUs and {resources.gpus:g} GPUs a trial."
        )


def refuse_storage(where: str) -> None:
    """Raises UserError for a folder or URI in which nothing can be written."""
    try:
        filesystem, path = fs.FileSystem.from_uri(where) if "://" in where else (fs.LocalFileSystem(), where)
        filesystem.create_dir(path, recursive=True)
        probe = f"{path}/.tmp-{secrets.token_hex(4)}"
        with filesystem.open_output_stream(probe) as stream:
            stream.write(b"written\n")
        filesystem.delete_file(probe)
    except (OSError, ValueError) as problem:  # Arrow's own errors are both
        found = str(problem).splitlines()[0]
        raise UserError(f"--storage: expected a place to write, found {where}: {found}.") from None
