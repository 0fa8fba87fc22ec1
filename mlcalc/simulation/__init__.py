"""Whole simulations: a run that can be killed and continued, its log, and what other programs read."""

from mlcalc.simulation.run import SimulationSettings, simulate

__all__ = ["SimulationSettings", "simulate"]
