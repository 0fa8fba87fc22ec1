"""The driver that i-PI executes: in-process as `<pes>custom</pes>` with this file as `<pes_path>`, or by its own client

    i-pi-driver-py -m custom -P ipi_driver.py -o potential=water,structure=start.xyz -u -a NAME

i-PI executes this file anew for every force component, so it holds nothing; what is shared lives in `engines.ipi`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver

from mlcalc.engines.ipi import Answer, DriverSettings, shared_forces

__DRIVER_NAME__ = "mlcalc"
__DRIVER_CLASS__ = "MLDriver"


class MLDriver(Dummy_driver):
    """One force component; `forces` is "conservative" or "direct", the rest are the fields of `DriverSettings`."""

    def __init__(
        self, forces: str = "conservative", *, verbose: bool = False, verbosity: Any = None, **parameters: Any
    ) -> None:
        super().__init__(verbose)
        self.component = forces
        self.shared = shared_forces(DriverSettings.from_parameters(parameters))

    def compute_structure(self, cell: np.ndarray, pos: np.ndarray) -> Answer:
        return self.shared.answer(self.component, cell, pos)
