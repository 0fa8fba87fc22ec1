"""An i-PI run inside this process, and the parts of an i-PI input that concern our drivers."""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlcalc.engines.ipi import DriverSettings, offered, shared_forces
from mlcalc.engines.ipi_socket import Address, serve
from mlcalc.errors import MlcalcError, RunError, UsageError
from mlcalc.evaluation import Wanted
from mlcalc.potentials.potential import Potential

_CONSTANT_PRESSURE = ("npt", "nst", "scnpt")


@dataclass(frozen=True)
class IpiOutcome:
    """How an i-PI run ended.

    Attributes
    ----------
    steps : done, from the very start; total : asked for
    counts : evaluations made in this process, "direct", "conservative", "joint"
    """

    steps: int
    total: int
    counts: Counter[str]


def run_input(
    path: str | Path,
    *,
    potentials: Mapping[str, Potential] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> IpiOutcome:
    """Run i-PI's input, or a RESTART of it, in the folder where it lies; i-PI writes its outputs there.

    Ctrl-C, SIGTERM and a file named EXIT stop it after the step, with the state in RESTART.

    Parameters
    ----------
    potentials : objects for names of potentials in the input, instead of loading them
    prepare : called with i-PI's Simulation before the first step

    Raises
    ------
    UsageError
        if i-PI is not installed or refuses the input, a socket is in use, or NPT has no virial.
    RunError
        if an evaluation fails; the last state is in RESTART.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UsageError(f"input: no file {path}; write one with `mlcalc ipi input`")
    try:
        from ipi.engine.simulation import Simulation
        from ipi.utils.softexit import softexit
    except ImportError as error:
        raise UsageError(f"i-PI is not installed ({error}); pip install 'mlcalc[ipi]'") from error
    with contextlib.chdir(path.parent), offered(potentials or {}) as shared:
        try:
            simulation = _load(Simulation, path)
            if any(system.motion.enstype in _CONSTANT_PRESSURE for system in _moving(simulation)):
                for forces in shared.values():
                    forces.potential.check_wanted(Wanted.VIRIAL)
            if prepare is not None:
                prepare(simulation)
            _advance(simulation)
        finally:
            # threads end, sockets close, RESTART is written; what i-PI prints about it would only frighten
            with contextlib.redirect_stdout(io.StringIO()):
                softexit.cleanup("restartable")
            softexit.reset()
        counts = sum((forces.counts for forces in shared.values()), Counter[str]())
        return IpiOutcome(simulation.chk.status.step.fetch(), simulation.tsteps, counts)


def _load(simulation: Any, path: Path) -> Any:
    """i-PI's Simulation of the input; what i-PI refuses becomes one line."""
    try:
        with path.open(encoding="utf-8") as file:
            return simulation.load_from_xml(file)
    except MlcalcError:
        raise
    except (Exception, SystemExit) as error:  # i-PI raises whatever its parsers meet
        addresses = [address for address, _ in _sockets(path)]
        busy = [address for address in addresses if _in_use(address)]
        if busy:
            raise UsageError(
                f"address: i-PI cannot listen at {busy[0]}, another run does; choose another address in {path.name}, "
                "or end that run"
            ) from error
        left = [str(address) for address in addresses if address.port is None and Path(str(address)).exists()]
        if left:
            raise UsageError(
                f"address: i-PI cannot listen at {left[0]}: a run that was killed has left this file; remove it"
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"input: i-PI refuses {path.name} ({reason}); mend it there") from error


def _in_use(address: Address) -> bool:
    try:
        address.connect().close()
    except OSError:
        return False
    return True


def _sockets(path: Path) -> list[tuple[Address, dict[str, str]]]:
    """Where the input's <ffsocket>s listen, and their <parameters>."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UsageError(f"input: {path.name} is no XML ({error}); mend it there") from error
    found = []
    for one in root.iter("ffsocket"):
        name, port = (
            one.findtext(key, default).strip() for key, default in (("address", "localhost"), ("port", "65535"))
        )
        address = Address(name, int(port) if one.get("mode", "inet").strip() == "inet" else None)
        pairs = (
            pair.partition(":") for pair in one.findtext("parameters", "").strip(" \n\t{}").split(",") if pair.strip()
        )
        found.append((address, {key.strip(): value.strip() for key, _, value in pairs}))
    return found


def _moving(simulation: Any) -> list[Any]:
    """The systems that do dynamics."""
    from ipi.engine.motion import Dynamics

    return [system for system in simulation.syslist if isinstance(system.motion, Dynamics)]


def _advance(simulation: Any) -> None:
    try:
        simulation.run()
    except MlcalcError as error:
        raise RunError(
            f"{error}; i-PI stopped in step {simulation.step + 1}, the state before it is in RESTART"
        ) from error
    except SystemExit:  # i-PI's way out of a step that it was told to stop in
        pass


def serve_input(path: str | Path, *, host: str | None = None, wait_s: float = 60.0) -> tuple[int, Counter[str]]:
    """Be the driver of all sockets of an i-PI input that `mlcalc ipi input` wrote, until i-PI ends.

    Parameters
    ----------
    host : where i-PI runs, instead of the address in the input; TCP only
    wait_s : how long to wait for i-PI to listen

    Returns
    -------
    requests answered, evaluations made

    Raises
    ------
    UsageError
        if the input has no sockets or they are not for mlcalc, or nobody listens.
    RunError
        if the connection is lost or an evaluation fails.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UsageError(f"input: no file {path}; give the input that i-PI runs")
    sockets = _sockets(path)
    if not sockets:
        raise UsageError(f"input: {path.name} has no <ffsocket>; run it by `mlcalc ipi run`, or write it with --socket")
    with contextlib.chdir(path.parent):
        components, settings = [], []
        for address, parameters in sockets:
            name = parameters.pop("forces", "conservative")
            components.append((name, replace(address, name=host) if host and address.port else address))
            settings.append(DriverSettings.from_parameters(parameters))
        if len(set(settings)) > 1:
            raise UsageError(
                f"input: the sockets of {path.name} have different <parameters>; give all the same, but for forces"
            )
        forces = shared_forces(settings[0])
        return serve(forces, components, wait_s=wait_s), forces.counts
