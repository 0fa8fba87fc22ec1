"""i-PI's sockets: the same run as in-process, sockets in use, clients and servers that disappear."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ipi_runs import argon, outputs, prepared, two_argons

from mlcalc.cli import main
from mlcalc.engines.ipi import IpiForces
from mlcalc.engines.ipi_run import _sockets, run_input, serve_input
from mlcalc.engines.ipi_socket import Address, serve
from mlcalc.errors import RunError, UsageError

RUN = {"steps": 4, "timestep_fs": 4.0, "n_inner": 4, "ensemble": "nvt", "temperature_K": 100.0}
DEADLINE_S = 60


@pytest.fixture(autouse=True)
def _end(monkeypatch):
    """i-PI looks once a second whether it shall end; here it looks more often, and ends when a test hangs."""
    from ipi.utils.softexit import softexit

    monkeypatch.setattr("ipi.utils.softexit.SOFTEXITLATENCY", 0.01)
    timer = threading.Timer(DEADLINE_S, setattr, (softexit, "_killed", True))
    timer.start()
    yield
    timer.cancel()


@pytest.fixture
def name():
    """Of a unix socket that no other test run has."""
    return f"mlcalc-test-{os.getpid()}"


def free_ports() -> int:
    """The first of two TCP ports in a row that nobody listens at."""
    for port in range(20000 + os.getpid() % 10000, 60000, 2):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def both(name: str) -> list[tuple[str, Address]]:
    """The components of an MTS run, and where i-PI listens for them."""
    return [(component, Address(f"{name}-{component}")) for component in ("conservative", "direct")]


def in_background(task) -> tuple[threading.Thread, list]:
    """A thread that does the task, and what came of it."""
    results: list = []

    def work() -> None:
        try:
            results.append(task())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


@pytest.mark.parametrize(("kind", "beads"), [("unix", 1), ("tcp", 1), ("unix", 3)])
def test_a_run_over_sockets_is_the_run_in_process(kind, beads, tmp_path, name):
    """One client for both components; M − 1 direct evaluations and one joint one for each bead and outer step."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder, where in (
        (inside, {}),
        (outside, {"socket": kind, "address": name if kind == "unix" else None, "port": free_ports()}),
    ):
        folder.mkdir()
        path = prepared(folder, two_argons(), argon(), **RUN, **where, beads=beads)
    run_input(inside / "input.xml", potentials={"mine": two_argons()})
    port = where["port"]
    addresses = [Address("127.0.0.1", port), Address("127.0.0.1", port + 1)]
    components = both(name) if kind == "unix" else list(zip(("conservative", "direct"), addresses, strict=True))
    forces = IpiForces(two_argons(), argon(), n_inner=4, n_beads=beads)
    thread, results = in_background(lambda: serve(forces, components, wait_s=DEADLINE_S))
    assert run_input(path).steps == 4
    thread.join(DEADLINE_S)
    assert results == [beads * (2 + 4 + 4 * 4)]  # requests: both at the start, then one and four for each outer step
    start = forces.counts - Counter(direct=4 * 3 * beads, joint=4 * beads)
    # at the start i-PI asks at both sockets at once: a direct request may come before the conservative one
    assert start["direct"] <= beads
    assert 1 <= start["joint"] <= beads
    np.testing.assert_allclose(outputs(outside), outputs(inside), rtol=1e-9, atol=1e-9)


def test_listens_on_the_loopback_unless_told_otherwise(tmp_path):
    text = prepared(tmp_path, two_argons(), argon(), socket="tcp", port=31500).read_text()
    assert text.count("<address> 127.0.0.1 </address>") == 2
    assert "<port> 31500 </port>" in text
    assert "<port> 31501 </port>" in text
    assert "0.0.0.0" in prepared(tmp_path, two_argons(), argon(), socket="tcp", address="0.0.0.0").read_text()


class Mortal(IpiForces):
    """Breaks down after some answers, as a client does that is killed: its sockets close in the middle of a step."""

    def answer(self, *request):
        if self.counts.total() >= 7:
            raise RunError("killed")
        return super().answer(*request)


def test_the_server_waits_for_another_client(tmp_path, name):
    path = prepared(tmp_path, two_argons(), argon(), **RUN, socket="unix", address=name)

    def clients() -> int:
        first = Mortal(two_argons(), argon(), n_inner=4)
        with pytest.raises(RunError, match="killed"):
            serve(first, both(name), wait_s=DEADLINE_S)
        return serve(IpiForces(two_argons(), argon(), n_inner=4), both(name), wait_s=DEADLINE_S)

    thread, results = in_background(clients)
    assert run_input(path).steps == 4
    thread.join(DEADLINE_S)
    assert isinstance(results[0], int), results
    inside = tmp_path / "inside"
    inside.mkdir()
    run_input(prepared(inside, two_argons(), argon(), **RUN), potentials={"mine": two_argons()})
    np.testing.assert_allclose(outputs(tmp_path), outputs(inside), rtol=1e-9, atol=1e-9)


def started(path: Path) -> subprocess.Popen:
    """`mlcalc ipi run` of this input in another process, once it listens."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "mlcalc", "ipi", "run", str(path)], env=environment, text=True, stdout=subprocess.PIPE
    )


def test_a_server_without_clients_stops_cleanly(tmp_path, name):
    """A client disappears, none comes back, the run is told to end: the state is saved, and another run goes on."""
    path = prepared(tmp_path, two_argons(), argon(), **RUN, socket="unix", address=name)
    process = started(path)
    try:
        with pytest.raises(RunError, match="killed"):
            serve(Mortal(two_argons(), argon(), n_inner=4), both(name), wait_s=DEADLINE_S)
        # the same sockets are refused to others as long as it lives
        with pytest.raises(UsageError, match=f"cannot listen at /tmp/ipi_{name}-conservative, another run does"):
            run_input(path)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "1 of 4 steps" in output
    assert "go on with: mlcalc ipi run" in output
    assert _sockets(tmp_path / "RESTART") == _sockets(path)  # the driver command reads the one as well as the other
    thread, _ = in_background(lambda: serve(IpiForces(two_argons(), argon(), n_inner=4), both(name), wait_s=DEADLINE_S))
    assert run_input(tmp_path / "RESTART").steps == 4
    thread.join(DEADLINE_S)
    assert outputs(tmp_path)[-1, 0] == 4


def test_the_file_of_a_killed_run_is_named(tmp_path, name):
    path = prepared(
        tmp_path, two_argons(), argon(), steps=1, forces="conservative", n_inner=1, socket="unix", address=name
    )
    left = Path(f"/tmp/ipi_{name}-conservative")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(left))
    try:
        with pytest.raises(UsageError, match="was killed has left this file; remove it"):
            run_input(path)
    finally:
        left.unlink()


def test_a_port_in_use_is_named(tmp_path):
    port = free_ports()
    path = prepared(tmp_path, two_argons(), argon(), steps=1, socket="tcp", port=port)
    with socket.socket() as one:
        one.bind(("127.0.0.1", port))
        one.listen()
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1:{port}, another run does"):
            run_input(path)


def test_a_driver_without_a_server(tmp_path, name, capsys):
    path = prepared(tmp_path, two_argons(), argon(), steps=1, socket="unix", address=name)
    path.write_text(path.read_text().replace("potential:mine", "potential:lennard_jones, fast:lennard_jones"))
    assert main(["ipi", "driver", str(path), "--wait-s", "0.2"]) == 2
    assert f"nobody listens at /tmp/ipi_{name}-conservative" in capsys.readouterr().err
    with pytest.raises(UsageError, match="has no <ffsocket>"):
        serve_input(prepared(tmp_path, two_argons(), argon(), steps=1))


@pytest.mark.parametrize(
    ("message", "words"), [(b"", "was lost"), (b"POSDATA     ", "was lost"), (b"GET / HTTP/1", "is it i-PI")]
)
def test_a_server_that_disappears_or_is_another(message, words, name, tmp_path):
    address = Address(f"{name}-strange")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        thread, results = in_background(
            lambda: serve(IpiForces(two_argons(), argon()), [("conservative", address)], wait_s=DEADLINE_S)
        )
        connection, _ = server.accept()
        connection.sendall(message)
        connection.close()
        thread.join(DEADLINE_S)
    Path(str(address)).unlink()
    assert isinstance(results[0], RunError)
    assert words in str(results[0])


def test_driver_command(tmp_path, name, capsys):
    """The two commands that the documentation shows, as two processes would give them."""
    path = prepared(tmp_path, two_argons(), argon(), **RUN, socket="unix", address=name)
    path.write_text(path.read_text().replace("potential:mine", "potential:lennard_jones, fast:lennard_jones"))
    process = started(path)
    try:
        assert main(["ipi", "driver", str(path)]) == 0
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert "4 of 4 steps; evaluations: none" in output
    assert "22 requests answered; evaluations: " in capsys.readouterr().out
