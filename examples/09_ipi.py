"""Multiple time stepping in i-PI: an input for the bundled water potential, run in this process.

Needs i-PI: pip install 'mlcalc[ipi]'. The same from the command line is `mlcalc ipi input` and `mlcalc ipi run`.
"""

import tempfile
from pathlib import Path

from ipi import read_output

import mlcalc
from mlcalc.engines.ipi import DriverSettings
from mlcalc.engines.ipi_input import write_input
from mlcalc.engines.ipi_run import run_input
from mlcalc.engines.ipi_settings import IpiInput

# direct forces every 0.5 fs, conservative ones every 2 fs, in a bath; `beads=16` would make it path-integral dynamics
settings = IpiInput(steps=5, stride=1, timestep_fs=2.0, n_inner=4, ensemble="nvt", thermostat="svr", temperature_K=300)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "input.xml"
    write_input(path, settings, mlcalc.water_box(), mlcalc.load("water"), DriverSettings("water"))
    outcome = run_input(path)
    table, _ = read_output(str(path.with_name("simulation.out")))

# 3 direct evaluations and a joint one for each step, and a joint one at the start
print(f"{outcome.steps} steps: {dict(outcome.counts)}")
change = 1000 * (table["conserved"][-1] - table["conserved"][0]) / len(mlcalc.water_box())
print(f"the conserved energy moved by {change:.2g} meV/atom; the temperature is {table['temperature'][-1]:.0f} K")
