"""A small fast force for a large potential: distilled from it on one system, for the inner steps of its dynamics."""

from mlcalc.distillation.run import Distilled, distill
from mlcalc.distillation.settings import DistillSettings

__all__ = ["DistillSettings", "Distilled", "distill"]
