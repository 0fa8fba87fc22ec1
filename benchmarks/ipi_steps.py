"""What a step takes beside the potential in i-PI, in-process and over a unix socket, with our drivers and without.

Every round runs i-PI four times on 192 atoms in wells of their own: with a driver that costs nothing and with ours,
each in-process and over a socket (by i-PI's own client, and by ours), so that a slow machine slows all of it.
Evaluations of our potential are timed and taken off. The ratio is what counts: the targets of 0.6 and 1 ms are for a
machine on which i-PI alone takes 0.3 and 0.5. It asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mlcalc
from mlcalc.engines.ipi import DriverSettings, IpiForces
from mlcalc.engines.ipi_input import write_input
from mlcalc.engines.ipi_run import run_input
from mlcalc.engines.ipi_settings import IpiInput
from mlcalc.engines.ipi_socket import Address, serve
from mlcalc.evaluation import Evaluation, Wanted
from mlcalc.neighbours import Neighbours
from mlcalc.potentials.harmonic import Harmonic
from mlcalc.structure import Structure

#: ms for ours, and what i-PI alone takes on the same machine
_TARGETS = {"in-process": (0.6, 0.3), "unix socket": (1.0, 0.5)}
_NAME = f"mlcalc-bench-{os.getpid()}"
_REPORTS = "ms-a-request:"
_FREE = """
import numpy as np
from ipi.pes.dummy import Dummy_driver
__DRIVER_NAME__, __DRIVER_CLASS__ = "free", "Free"
class Free(Dummy_driver):
    def __init__(self, *args, **kwargs):
        super().__init__()
    def compute_structure(self, cell, pos):
        return 0.0, -0.01 * (pos - 10.0), np.zeros((3, 3)), ""
"""


class Timed(Harmonic):
    """Wells around the water box's atoms; knows how long it was at work, ms."""

    def __init__(self) -> None:
        super().__init__(mlcalc.water_box().positions, spring=1.0)
        self.spent = 0.0

    def evaluate(self, structure: Structure, neighbours: Neighbours, wanted: Wanted) -> Evaluation:
        start = time.perf_counter()
        answer = super().evaluate(structure, neighbours, wanted)
        self.spent += 1000 * (time.perf_counter() - start)
        return answer


def prepared(folder: Path, steps: int, socket: str) -> Path:
    """An input that writes nothing on the way."""
    folder.mkdir()
    settings = IpiInput(
        steps=steps, stride=10 * steps, timestep_fs=0.5, forces="conservative", n_inner=1, socket=socket, address=_NAME
    )
    write_input(folder / "input.xml", settings, mlcalc.water_box(), Timed(), DriverSettings("mine"))
    return folder / "input.xml"


def free(path: Path) -> Path:
    """A driver that costs nothing, beside the input, which is made to use it."""
    driver = path.with_name("free.py")
    driver.write_text(_FREE, encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    if "<ffdirect" in text:
        start, end = text.index("<pes_path>"), text.index("</parameters>") + len("</parameters>")
        path.write_text(f"{text[:start]}<pes_path> {driver} </pes_path>{text[end:]}", encoding="utf-8")
    return driver


def milliseconds(path: Path, potential: Timed, client: list[str]) -> float:
    """A step of an i-PI run in this process, less the potential's work, ms; the first steps and the end left out."""
    marks: list[tuple[float, float]] = []
    processes: list[subprocess.Popen[str]] = []

    def prepare(simulation: Any) -> None:
        if client:  # the socket is open by now
            processes.append(subprocess.Popen(client, stdout=subprocess.PIPE, text=True))
        step = simulation.run_step

        def run_step(k: int) -> None:
            if k in (10, simulation.tsteps - 1):
                marks.append((1000 * time.perf_counter(), potential.spent))
            step(k)

        simulation.run_step = run_step

    with contextlib.redirect_stdout(io.StringIO()):
        outcome = run_input(path, potentials={"mine": potential}, prepare=prepare)
    whole, inside = (end - start for start, end in zip(*marks, strict=True))
    spent = inside / (outcome.steps - 11)
    for process in processes:
        words = process.communicate(timeout=60)[0].split()
        spent += float(words[-1]) if _REPORTS in words else 0.0
    return whole / (outcome.steps - 11) - spent


def be_client() -> None:
    """Serve the run of the parent process and print the potential's ms a request."""
    potential = Timed()
    forces = IpiForces(potential, mlcalc.water_box())
    n_requests = serve(forces, [("conservative", Address(f"{sys.argv[2]}-conservative"))])
    print(_REPORTS, potential.spent / n_requests)


def timers(steps: int) -> dict[str, Callable[[Path], float]]:
    """Folder → ms a step, for each of the four ways."""
    theirs = [
        str(Path(sys.executable).with_name("i-pi-driver-py")),
        "-u",
        "-a",
        f"{_NAME}-conservative",
        "-m",
        "custom",
    ]
    ours = [sys.executable, __file__, "--client", _NAME]

    def alone(folder: Path) -> float:
        path = prepared(folder, steps, "none")
        free(path)
        return milliseconds(path, Timed(), [])

    def alone_socket(folder: Path) -> float:
        path = prepared(folder, steps, "unix")
        driver = free(path)
        return milliseconds(path, Timed(), [*theirs, "-P", str(driver)])

    return {
        "i-PI alone, in-process": alone,
        "mlcalc, in-process": lambda folder: milliseconds(prepared(folder, steps, "none"), Timed(), []),
        "i-PI alone, unix socket": alone_socket,
        "mlcalc, unix socket": lambda folder: milliseconds(prepared(folder, steps, "unix"), Timed(), ours),
    }


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = timers(options.steps)
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(options.rounds):
            for name, timer in ways.items():
                times[name].append(timer(Path(folder) / f"{k} {name}"))
    print(f"mlcalc {mlcalc.__version__}, torch {torch.__version__}, 192 atoms, medians of {options.rounds} rounds\n")
    print("| a step beside the potential | ms | over i-PI alone | target |\n|---|---|---|---|")
    for name, values in times.items():
        who, where = name.split(", ")
        # medians of ratios within a round are steadier than ratios of medians when the machine's speed drifts
        ratio = float(np.median(np.array(values) / np.array(times[f"i-PI alone, {where}"])))
        ours, theirs = _TARGETS[where]
        target = f"{ours:g} ms, {ours / theirs:.2g} times" if who == "mlcalc" else f"({theirs:g} ms)"
        print(f"| {name} | {np.median(values):.3f} | {ratio:.2f} | {target} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        be_client()
    else:
        main()
