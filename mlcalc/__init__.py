"""mlcalc makes trained interatomic potentials safe to run.

    structure → neighbours → potential → evaluation → engine → trajectory → diagnostics → audit

Names are imported when first used, so that `import mlcalc` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name → the module that has it
_HOMES = {
    "AseCalculator": "mlcalc.potentials.ase_calculator",
    "AsymmetryResult": "mlcalc.asymmetry.result",
    "AsymmetrySettings": "mlcalc.asymmetry.settings",
    "AuditResult": "mlcalc.audit.result",
    "AuditSettings": "mlcalc.audit.settings",
    "Barostat": "mlcalc.integrators.barostat",
    "BatchEngine": "mlcalc.engines.batch",
    "Bussi": "mlcalc.integrators.bussi",
    "DistillSettings": "mlcalc.distillation.settings",
    "Ensemble": "mlcalc.integrators.ensemble",
    "Evaluation": "mlcalc.evaluation",
    "GLE": "mlcalc.integrators.gle",
    "Langevin": "mlcalc.integrators.langevin",
    "MLCalculator": "mlcalc.engines.ase",
    "MTSBussi": "mlcalc.engines.ase_dynamics",
    "MTSDynamics": "mlcalc.engines.ase_dynamics",
    "MTSLangevin": "mlcalc.engines.ase_dynamics",
    "MTSNPT": "mlcalc.engines.ase_dynamics",
    "MTSVelocityVerlet": "mlcalc.engines.ase_dynamics",
    "NativeEngine": "mlcalc.engines.native",
    "NoseHoover": "mlcalc.integrators.nose_hoover",
    "SimulationSettings": "mlcalc.simulation.run",
    "SINR": "mlcalc.integrators.sin_r",
    "Structure": "mlcalc.structure",
    "TuneSettings": "mlcalc.tuning.settings",
    "TwoPotentials": "mlcalc.potentials.two_potentials",
    "Wanted": "mlcalc.evaluation",
    "diagnose": "mlcalc.diagnosis.run",
    "distill": "mlcalc.distillation.run",
    "load": "mlcalc.potentials",
    "maxwell_boltzmann": "mlcalc.engines.momenta",
    "measure_asymmetry": "mlcalc.asymmetry.run",
    "neighbour_list": "mlcalc.neighbours",
    "read_record": "mlcalc.diagnosis.read",
    "read_trajectory": "mlcalc.trajectory",
    "repartition_hydrogen_mass": "mlcalc.masses",
    "simulate": "mlcalc.simulation.run",
    "tune": "mlcalc.tuning.run",
    "water_box": "mlcalc.potentials.pretrained",
}

__all__ = ["__version__", "audit", *sorted(_HOMES)]

if TYPE_CHECKING:
    from mlcalc.asymmetry.result import AsymmetryResult as AsymmetryResult
    from mlcalc.asymmetry.run import measure_asymmetry as measure_asymmetry
    from mlcalc.asymmetry.settings import AsymmetrySettings as AsymmetrySettings
    from mlcalc.audit.result import AuditResult as AuditResult
    from mlcalc.audit.settings import AuditSettings as AuditSettings
    from mlcalc.diagnosis.read import read_record as read_record
    from mlcalc.diagnosis.run import diagnose as diagnose
    from mlcalc.distillation.run import distill as distill
    from mlcalc.distillation.settings import DistillSettings as DistillSettings
    from mlcalc.engines.ase import MLCalculator as MLCalculator
    from mlcalc.engines.ase_dynamics import MTSNPT as MTSNPT
    from mlcalc.engines.ase_dynamics import MTSBussi as MTSBussi
    from mlcalc.engines.ase_dynamics import MTSDynamics as MTSDynamics
    from mlcalc.engines.ase_dynamics import MTSLangevin as MTSLangevin
    from mlcalc.engines.ase_dynamics import MTSVelocityVerlet as MTSVelocityVerlet
    from mlcalc.engines.batch import BatchEngine as BatchEngine
    from mlcalc.engines.momenta import maxwell_boltzmann as maxwell_boltzmann
    from mlcalc.engines.native import NativeEngine as NativeEngine
    from mlcalc.evaluation import Evaluation as Evaluation
    from mlcalc.evaluation import Wanted as Wanted
    from mlcalc.integrators.barostat import Barostat as Barostat
    from mlcalc.integrators.bussi import Bussi as Bussi
    from mlcalc.integrators.ensemble import Ensemble as Ensemble
    from mlcalc.integrators.gle import GLE as GLE
    from mlcalc.integrators.langevin import Langevin as Langevin
    from mlcalc.integrators.nose_hoover import NoseHoover as NoseHoover
    from mlcalc.integrators.sin_r import SINR as SINR
    from mlcalc.masses import repartition_hydrogen_mass as repartition_hydrogen_mass
    from mlcalc.neighbours import neighbour_list as neighbour_list
    from mlcalc.potentials import load as load
    from mlcalc.potentials.ase_calculator import AseCalculator as AseCalculator
    from mlcalc.potentials.pretrained import water_box as water_box
    from mlcalc.potentials.two_potentials import TwoPotentials as TwoPotentials
    from mlcalc.simulation.run import SimulationSettings as SimulationSettings
    from mlcalc.simulation.run import simulate as simulate
    from mlcalc.structure import Structure as Structure
    from mlcalc.trajectory import read_trajectory as read_trajectory
    from mlcalc.tuning.run import tune as tune
    from mlcalc.tuning.settings import TuneSettings as TuneSettings


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name == "audit":  # a package that can be called, see mlcalc/audit/__init__.py
        return importlib.import_module("mlcalc.audit")
    raise AttributeError(f"module 'mlcalc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
