"""What an i-PI input says.

With multiple time stepping, i-PI's `timestep` is the OUTER step, and `nmts` and `mts_weights` have one number for each
level: level 0 feels conservative − direct once, level 1 feels direct M times (V. Kapil, J. VandeVondele, M. Ceriotti,
J. Chem. Phys. 144, 054111 (2016), doi:10.1063/1.4941091).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlcalc.errors import UsageError

ENSEMBLES = ("nve", "nvt", "npt")
THERMOSTATS = ("langevin", "svr", "gle")
BAROSTATS = ("isotropic", "flexible")
FORCES = ("mts", "conservative", "direct")
SOCKETS = ("none", "unix", "tcp")


@dataclass(frozen=True)
class IpiInput:
    """What an i-PI input says; see `write_input`.

    Attributes
    ----------
    steps : outer steps; stride : from output to output
    forces : "mts", "conservative" or "direct"
    timestep_fs : the OUTER step; n_inner : inner steps in it, with "mts"
    beads : of the ring polymer; 1 is classical
    ensemble : "nve" (with beads: ring-polymer dynamics), "nvt", "npt"
    thermostat : "langevin", "svr" (with beads: on the normal modes, PILE-L and PILE-G) or "gle"
    temperature_K : of the momenta at the start and of the bath
    tau_fs : time constant of the thermostat; 1000 for langevin, 100 for svr if not given
    gle_A, gle_C : drift matrix, 1/ps, and covariance, K, of the GLE, (n + 1, n + 1); without C it keeps the temperature
    barostat : "isotropic" or "flexible" (the whole cell)
    pressure_GPa, barostat_tau_fs : external pressure; time constant
    seed : of all randomness
    socket : "none" (in-process), "unix" or "tcp"
    address : name of the unix socket, or the host that i-PI listens on; port : TCP; MTS takes the next one as well
    direct_force_extra : give i-PI the direct force as an extra, and write it

    Raises
    ------
    UsageError
        for values that cannot be used.
    """

    steps: int = 1000
    stride: int = 10
    forces: str = "mts"
    timestep_fs: float = 4.0
    n_inner: int = 8
    beads: int = 1
    ensemble: str = "nve"
    thermostat: str = "langevin"
    temperature_K: float = 300.0
    tau_fs: float | None = None
    gle_A: np.ndarray | None = None
    gle_C: np.ndarray | None = None
    barostat: str = "isotropic"
    pressure_GPa: float = 1e-4
    barostat_tau_fs: float = 1000.0
    seed: int = 0
    socket: str = "none"
    address: str | None = None
    port: int = 31415
    direct_force_extra: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (
            ("forces", FORCES), ("ensemble", ENSEMBLES), ("thermostat", THERMOSTATS), ("barostat", BAROSTATS),
            ("socket", SOCKETS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name}: got {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        for name in ("steps", "stride", "n_inner", "beads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}: got {value!r}; give a whole number, 1 or more")
        for name in ("timestep_fs", "temperature_K", "tau_fs", "barostat_tau_fs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name}: got {value}; give a finite number above 0")
        if not math.isfinite(self.pressure_GPa):
            raise UsageError(f"pressure_GPa: got {self.pressure_GPa}; give a finite number")
        if self.forces != "mts" and self.n_inner != 1:
            raise UsageError(f"n_inner: got {self.n_inner} with {self.forces} forces; it goes with forces 'mts' only")
        if self.ensemble == "npt" and self.forces == "direct":
            raise UsageError("forces: got 'direct' with ensemble 'npt'; direct forces have no virial: use 'mts'")
        if not 1024 < self.port < 65535:
            raise UsageError(f"port: got {self.port}; give a number from 1025 to 65534")
        if self.thermostat == "gle" and self.ensemble != "nve":
            self._check_gle()

    def _check_gle(self) -> None:
        drift, covariance = self.gle_A, self.gle_C
        if drift is None:
            raise UsageError("gle_A: thermostat 'gle' needs its drift matrix in 1/ps; gle4md.org makes them")
        if drift.ndim != 2 or drift.shape[0] != drift.shape[1] or not np.isfinite(drift).all():
            raise UsageError(f"gle_A: got shape {drift.shape}; give a square matrix of finite numbers, in 1/ps")
        if not (np.linalg.eigvals(drift).real > 0).all():
            raise UsageError("gle_A: an eigenvalue has no positive real part; the drift matrix must damp all its modes")
        if covariance is not None and covariance.shape != drift.shape:
            raise UsageError(f"gle_C: got shape {covariance.shape}, gle_A has {drift.shape}; give both the same shape")

    @property
    def components(self) -> tuple[str, ...]:
        """i-PI's force components; the conservative one first, since it is asked in the order of the input."""
        return ("conservative", "direct") if self.forces == "mts" else (self.forces,)


def inner_steps(timestep_fs: float, inner_timestep_fs: float) -> int:
    """How many inner steps make an outer one.

    Raises
    ------
    UsageError
        if that is not a whole number.
    """
    ratio = timestep_fs / inner_timestep_fs
    if abs(ratio - round(ratio)) > 1e-6 or ratio < 0.5:
        raise UsageError(
            f"inner_timestep_fs: got {inner_timestep_fs:g} in a timestep of {timestep_fs:g} fs, which is {ratio:.6g} "
            "inner steps; give a timestep that is a whole multiple"
        )
    return round(ratio)


def read_matrix(name: str, path: str | None) -> np.ndarray | None:
    """A matrix from a text file with one row a line; None without a path.

    Raises
    ------
    UsageError
        naming the argument, if the file is not there or holds something else.
    """
    if path is None:
        return None
    try:
        return np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name}: cannot read {path} ({error}); give a text file with one row of numbers a line"
        ) from error
