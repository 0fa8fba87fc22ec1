"""The fastest safe settings of a potential on one system: which inner step, and how many of them in an outer one."""

from mlcalc.tuning.result import Trial, Tuning
from mlcalc.tuning.run import tune
from mlcalc.tuning.settings import TuneSettings

__all__ = ["Trial", "TuneSettings", "Tuning", "tune"]
