"""The connection to Ray: to the cluster that is there, or to one on this machine alone."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator

import ray
from ray._private import ray_constants

from hvp.errors import InputError, shown

LOOPBACK = "127.0.0.1"
# Where Ray finds the cluster that a submitted job belongs to.
ADDRESS = "RAY_ADDRESS"
CONNECT_SECONDS = 10.0


_LOCK = threading.Lock()


class Connection:
    """The process is connected to Ray until all connections are closed.

    Args:
        address: of a cluster. None takes the one that the process is connected to or that
            ``RAY_ADDRESS`` names, and starts a local one otherwise, which listens on the loopback
            only.
        num_cpus: that the cluster is to have.
        object_store_memory: bytes of the object store of a local cluster, None for Ray's choice.
    """

    _users = 0
    _is_ours = False

    def __init__(
        self, address: str | None, num_cpus: int, *, object_store_memory: int | None = None
    ):
        with _LOCK:
            if not ray.is_initialized():
                _connect(address, num_cpus, object_store_memory)
                Connection._is_ours = True
            elif address is not None and address != ray.get_runtime_context().gcs_address:
                raise InputError(
                    "one cluster for a process",
                    f"{shown(address)} in one that is connected to another",
                    "leave address= out, or call ray.shutdown() first",
                )
            Connection._users += 1
        self._is_open = True
        found = int(ray.cluster_resources().get("CPU", 0))
        if found < num_cpus:
            self.close()
            raise InputError(
                f"a cluster with {num_cpus} CPUs", f"one with {found}", "ask for fewer workers"
            )

    def close(self) -> None:
        """Stop the cluster, or leave it, if this process connected to it here and is the last."""
        with _LOCK:
            if not self._is_open:
                return
            self._is_open = False
            Connection._users -= 1
            if Connection._users == 0 and Connection._is_ours:
                Connection._is_ours = False
                ray.shutdown()


def _connect(address: str | None, num_cpus: int, object_store_memory: int | None) -> None:
    if address is None and ADDRESS not in os.environ:
        _start(num_cpus, object_store_memory)
        return
    given = address or os.environ[ADDRESS]
    try:
        _require_listener(given)
        ray.init(address=given, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            "the address of a Ray cluster that runs",
            f"{shown(given)}: {str(error).strip().splitlines()[0]}",
            "start it by ray start --head, or leave the address out",
        ) from error


def _require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray would wait for it for a minute."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _start(num_cpus: int, object_store_memory: int | None) -> None:
    """Start a cluster on this machine that listens on the loopback only."""
    with _loopback_only():
        ray.init(
            address="local",
            num_cpus=max(num_cpus, os.cpu_count() or 1),
            object_store_memory=object_store_memory,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=LOOPBACK,
        )
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if found != {LOOPBACK}:
        ray.shutdown()
        raise InputError(
            "a version of Ray that listens on the loopback only",
            f"{ray.__version__}, which listens on {', '.join(sorted(found))}",
            "install one that the extra 'ray' allows, or start a cluster and give its address",
        )


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """A block in which Ray takes the loopback as the address of this machine.

    It replaces the loopback by an address that other machines reach, unless clusters of several
    machines are switched off, as they are on other systems than Linux. It reports its use to its
    makers unless it is told not to.
    """
    enabled = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
