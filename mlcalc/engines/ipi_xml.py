"""The text of i-PI inputs.

Of i-PI's barostats, `isotropic` (Bussi, Zykova-Timan, Parrinello, doi:10.1063/1.3073889) and `flexible` (Martyna,
Hughes, Tuckerman, doi:10.1063/1.478193) kick with the slow forces in the outer step only, and are offered here.
`stochastic-rescaling` asks for the conservative force at every inner step, which would make the inner steps pointless.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from mlcalc import __version__
from mlcalc.engines.ipi import DriverSettings
from mlcalc.engines.ipi_settings import IpiInput

_TAU_FS = {"langevin": 1000.0, "svr": 100.0}


def simulation_xml(settings: IpiInput, driver: DriverSettings, path: Path) -> str:
    """The whole input, to be written to `path`."""
    return f"""<!-- written by mlcalc {__version__}; i-PI 3.3 or newer.
     {_how_to_run(settings, path)} -->
<simulation verbosity='low' threading='False' floatformat='%24.16e' safe_stride='{settings.stride}'>
{_output(settings)}
  <total_steps> {settings.steps} </total_steps>
  <prng><seed> {settings.seed} </seed></prng>

{"".join(_forcefield(settings, driver, component) for component in settings.components)}
  <system>
    <initialize nbeads='{settings.beads}'>
      <file mode='ase' units='angstrom' cell_units='angstrom'> {driver.structure} </file>
      <velocities mode='thermal' units='kelvin'> {settings.temperature_K:.12g} </velocities>
    </initialize>
{_forces(settings)}
    <ensemble>
      <temperature units='kelvin'> {settings.temperature_K:.12g} </temperature>{_pressure(settings)}
    </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='{settings.ensemble}' splitting='baoab'>
        <!-- {"the OUTER step" if settings.forces == "mts" else "the step"} -->
        <timestep units='femtosecond'> {settings.timestep_fs:.12g} </timestep>
{_levels(settings)}{_thermostat(settings)}{_barostat(settings)}      </dynamics>
    </motion>
  </system>
</simulation>
"""


def _how_to_run(settings: IpiInput, path: Path) -> str:
    if settings.socket == "none":
        return f"Run it by: mlcalc ipi run {path.name}   and go on, after any end, by: mlcalc ipi run RESTART"
    return f"Run it by: i-pi {path.name} & mlcalc ipi driver {path.name}   and go on with RESTART in its place"


def _output(settings: IpiInput) -> str:
    more = ", pressure_md{megapascal}, volume{angstrom3}" if settings.ensemble == "npt" else ""
    extra = ""
    if settings.direct_force_extra:
        where = f"filename='direct' stride='{settings.stride}' extra_type='direct_force'"
        extra = f"\n    <!-- direct forces, Hartree/Bohr -->\n    <trajectory {where}> extras </trajectory>"
    return f"""  <output prefix='simulation'>
    <!-- conserved must not drift; with several beads the potential is their mean -->
    <properties filename='out' stride='{settings.stride}'> [ step, time{{picosecond}}, conserved{{electronvolt}},
      temperature{{kelvin}}, kinetic_md{{electronvolt}}, potential{{electronvolt}}{more} ] </properties>
    <trajectory filename='pos' stride='{settings.stride}' format='ase'> positions{{ase}} </trajectory>
    <trajectory filename='vel' stride='{settings.stride}' format='ase'> velocities{{ase}} </trajectory>{extra}
    <checkpoint filename='checkpoint' stride='{10 * settings.stride}' overwrite='True'/>
  </output>"""


def _forcefield(settings: IpiInput, driver: DriverSettings, component: str) -> str:
    values = {"forces": component, **driver.as_parameters()}
    parameters = ", ".join(f"{key}:{escape(value)}" for key, value in values.items())
    if settings.socket == "none":
        kind = "ffdirect"
        head = f"<ffdirect name='{component}' pbc='False'>"
        body = f"<pes> custom </pes>\n    <pes_path> {Path(__file__).with_name('ipi_driver.py')} </pes_path>"
    else:
        kind = "ffsocket"
        mode = "unix" if settings.socket == "unix" else "inet"
        head = f"<ffsocket name='{component}' mode='{mode}' pbc='False'>"
        body = _socket(settings, component)
    return f"""  {head}
    {body}
    <parameters> {{ {parameters} }} </parameters>
  </{kind}>
"""


def _socket(settings: IpiInput, component: str) -> str:
    if settings.socket == "unix":
        return f"<address> {settings.address or 'mlcalc'}-{component} </address>"
    port = settings.port + settings.components.index(component)
    # the loopback unless told otherwise: whoever reaches the port could feed the run any forces
    return f"<address> {settings.address or '127.0.0.1'} </address>\n    <port> {port} </port>"


def _forces(settings: IpiInput) -> str:
    weights = {"conservative": "[ 1, 0 ]", "direct": "[ -1, 1 ]"}
    lines = [
        f"      <force forcefield='{component}'>"
        + (f" <mts_weights> {weights[component]} </mts_weights> " if settings.forces == "mts" else "")
        + "</force>"
        for component in settings.components
    ]
    comment = "      <!-- level 0, every outer step: conservative - direct; level 1, every inner step: direct -->\n"
    body = (comment if settings.forces == "mts" else "") + "\n".join(lines)
    return f"    <forces>\n{body}\n    </forces>"


def _pressure(settings: IpiInput) -> str:
    if settings.ensemble != "npt":
        return ""
    return f"\n      <pressure units='gigapascal'> {settings.pressure_GPa:.12g} </pressure>"


def _levels(settings: IpiInput) -> str:
    if settings.forces != "mts":
        return ""
    inner = settings.timestep_fs / settings.n_inner
    return f"        <!-- inner steps of {inner:g} fs -->\n        <nmts> [ 1, {settings.n_inner} ] </nmts>\n"


def _thermostat(settings: IpiInput) -> str:
    if settings.ensemble == "nve":
        return ""
    if settings.thermostat == "gle":
        assert settings.gle_A is not None
        matrices = _matrix("A", "terahertz*rad", settings.gle_A)
        if settings.gle_C is not None:
            matrices += _matrix("C", "kelvin", settings.gle_C)
        return f"        <thermostat mode='gle'>\n{matrices}        </thermostat>\n"
    modes = {"langevin": "langevin", "svr": "svr"} if settings.beads == 1 else {"langevin": "pile_l", "svr": "pile_g"}
    tau = settings.tau_fs or _TAU_FS[settings.thermostat]
    return f"""        <thermostat mode='{modes[settings.thermostat]}'>
          <tau units='femtosecond'> {tau:.12g} </tau>
        </thermostat>
"""


def _matrix(name: str, units: str, values: np.ndarray) -> str:
    numbers = ", ".join(f"{value:.17g}" for value in values.ravel())
    return f"          <{name} units='{units}' shape='({len(values)}, {len(values)})'> [ {numbers} ] </{name}>\n"


def _barostat(settings: IpiInput) -> str:
    if settings.ensemble != "npt":
        return ""
    tau = f"<tau units='femtosecond'> {settings.barostat_tau_fs:.12g} </tau>"
    return f"""        <!-- stochastic-rescaling would ask for the conservative force at every inner step;
             flexible cells conserve energy less well in i-PI 3.3 -->
        <barostat mode='{settings.barostat}'>
          {tau}
          <thermostat mode='langevin'> {tau} </thermostat>
        </barostat>
"""
