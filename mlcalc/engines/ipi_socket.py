"""A client for i-PI's sockets that serves all force components of a run from one process.

i-PI listens at one socket for each force component, so a client that shares an evaluation between two components holds
two connections. The protocol (V. Kapil et al., Comput. Phys. Commun. 236, 214 (2019), doi:10.1016/j.cpc.2018.09.020)
has headers of 12 characters: STATUS is answered READY or HAVEDATA, POSDATA brings cell, inverse cell and positions,
GETFORCE takes the answer, EXIT ends. ASE's own client knows one socket, and lets TCP wait for full packets.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlcalc.engines.ipi import Answer, IpiForces
from mlcalc.errors import RunError, UsageError

#: What i-PI puts before the address of a unix socket
PREFIX = "/tmp/ipi_"
_HEADER = 12


@dataclass(frozen=True)
class Address:
    """Where i-PI listens: a unix socket of that name, or with a port a TCP socket on that host."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        return PREFIX + self.name if self.port is None else f"{self.name}:{self.port}"

    def connect(self) -> socket.socket:
        """A connected socket, or an OSError."""
        kind = socket.AF_UNIX if self.port is None else socket.AF_INET
        one = socket.socket(kind, socket.SOCK_STREAM)
        try:
            if self.port is None:
                one.connect(PREFIX + self.name)
            else:
                # headers are small: do not wait until a packet is full
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.connect((self.name, self.port))
        except OSError:
            one.close()
            raise
        return one


def serve(forces: IpiForces, components: Sequence[tuple[str, Address]], *, wait_s: float = 60.0) -> int:
    """Answer i-PI until it sends EXIT to all connections.

    Parameters
    ----------
    components : (name of the force component, where i-PI listens for it)
    wait_s : how long to try to connect, since i-PI may start later

    Returns
    -------
    how many requests were answered

    Raises
    ------
    UsageError
        if nobody listens there.
    RunError
        if the connection is lost, or an evaluation fails.
    """
    deadline = time.monotonic() + wait_s
    with selectors.DefaultSelector() as selector:
        connections: list[_Connection] = []
        try:
            for component, address in components:
                connections.append(_Connection(_connect(address, deadline), component, address, forces.answer))
                selector.register(connections[-1].socket, selectors.EVENT_READ, connections[-1])
            while selector.get_map():
                for key, _ in selector.select():
                    if not key.data.react():
                        selector.unregister(key.fileobj)
        finally:
            for connection in connections:
                connection.socket.close()
    return sum(connection.n_answers for connection in connections)


def _connect(address: Address, deadline: float) -> socket.socket:
    while True:
        try:
            return address.connect()
        except OSError as error:
            if time.monotonic() >= deadline:
                reason = error.strerror or str(error)
                raise UsageError(
                    f"address: nobody listens at {address} ({reason}); start i-PI first, or check its input's address"
                ) from error
            time.sleep(0.1)


class _Connection:
    """One force component's connection."""

    def __init__(
        self,
        connected: socket.socket,
        component: str,
        address: Address,
        answer: Callable[[str, np.ndarray, np.ndarray], Answer],
    ) -> None:
        self.socket, self.component, self.address, self.answer = connected, component, address, answer
        self.n_answers = 0
        self._request: tuple[np.ndarray, np.ndarray] | None = None
        self._reply: bytes | None = None

    def react(self) -> bool:
        """Take one message and do what it asks; False after EXIT."""
        header = self._receive(_HEADER).decode("ascii", "replace").strip()
        if header == "EXIT":
            return False
        if header == "STATUS":
            self._evaluate()
            self._send(b"READY" if self._reply is None else b"HAVEDATA", b"")
        elif header == "INIT":
            _, length = np.frombuffer(self._receive(8), np.int32)
            self._receive(int(length))
        elif header == "POSDATA":
            cell = np.frombuffer(self._receive(144), np.float64)[:9].reshape(3, 3)
            (n_atoms,) = np.frombuffer(self._receive(4), np.int32)
            positions = np.frombuffer(self._receive(24 * int(n_atoms)), np.float64).reshape(-1, 3)
            self._request = cell, positions
        elif header == "GETFORCE" and (self._request or self._reply):
            self._evaluate()
            self._send(b"FORCEREADY", self._reply or b"")
            self._reply = None
        else:
            raise RunError(f"i-PI: unexpected message {header!r} at {self.address}; is it i-PI that listens there?")
        return True

    def _evaluate(self) -> None:
        """Do what POSDATA asked for, once the message after it has been read.

        i-PI sends GETFORCE along with POSDATA. If this process died with GETFORCE unread, the system would reset the
        connection instead of closing it, and i-PI 3.3.1 survives only the latter: its polling thread would end, and
        the run would wait for ever.
        """
        if self._request is not None:
            self._reply = _packed(self.answer(self.component, *self._request))
            self._request = None
            self.n_answers += 1

    def _receive(self, length: int) -> bytes:
        try:
            data = self.socket.recv(length, socket.MSG_WAITALL)
        except OSError:
            data = b""
        if len(data) < length:
            raise self._lost()
        return data

    def _send(self, header: bytes, payload: bytes) -> None:
        try:
            self.socket.sendall(header.ljust(_HEADER) + payload)
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> RunError:
        return RunError(
            f"i-PI: the connection at {self.address} was lost; i-PI's output says why, its RESTART has the last state"
        )


def _packed(answer: Answer) -> bytes:
    energy, force, virial, extras = answer
    text = extras.encode()
    return b"".join(
        (
            np.float64(energy).tobytes(),
            np.int32(len(force)).tobytes(),
            np.ascontiguousarray(force).tobytes(),
            np.ascontiguousarray(virial).tobytes(),
            np.int32(len(text)).tobytes(),
            text,
        )
    )
