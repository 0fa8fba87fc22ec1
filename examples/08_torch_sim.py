"""Multiple time stepping in torch-sim: two boxes of water in one batch, each evaluation for both at once.

Needs: pip install 'mlcalc[torchsim]'
"""

import torch_sim
from torch_sim.units import MetalUnits

import mlcalc
from mlcalc.engines.torch_sim import TorchSimModel, mts

model = TorchSimModel(mlcalc.load("water"))
boxes = [mlcalc.water_box(), mlcalc.water_box()]
init, step = mts

state = init(torch_sim.initialize_state(boxes, model.device, model.dtype), model, kT=300 * MetalUnits.temperature)
for k in range(4):
    kinetic = torch_sim.calc_kinetic_energy(momenta=state.momenta, masses=state.masses, system_idx=state.system_idx)
    energies = ", ".join(f"{energy:.4f}" for energy in state.energy + kinetic)
    print(f"{4 * k:3d} fs   conserved energies {energies} eV")
    state = step(state, model, dt=0.004 * MetalUnits.time, n_inner=8)
