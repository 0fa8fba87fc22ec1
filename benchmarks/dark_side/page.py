"""The page docs/conservation.md and its figures, from what is kept of the runs and of the potentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from dark_side import analysis, figures, frequencies, models, published, series
from dark_side.analysis import Number
from dark_side.runs import BUSSI
from dark_side.series import Kept
from mlcalc.units import BOLTZMANN

TEMPLATE = Path(__file__).parent / "conservation.md"
_KINDS = ("conservative", "mts8", "direct")
#: Run in a bath → what tables and figures call it
_BATHS = {
    "bussi-conservative": "rescaling, conservative",
    "bussi-mts8": "rescaling, MTS, M = 8",
    "bussi-direct": "rescaling, direct",
    "langevin10-direct": "Langevin 10 fs, direct",
    "langevin100-direct": "Langevin 100 fs, direct",
    "gle-strength1": "GLE, direct",
    "bussi-strength10": "rescaling, direct × 10",
    "gle-strength10": "GLE, direct × 10",
    "bussi-forces": "rescaling, forces alone",
    "gle-forces": "GLE, forces alone",
}


def make(results: Path, docs: Path) -> None:
    """Write the page and its figures into `docs`."""
    runs = read_runs(results)
    asymmetries = json.loads((results / models.ASYMMETRIES).read_text())
    bands = frequencies.bands(models.read_modes(results))
    docs.mkdir(parents=True, exist_ok=True)
    figures.asymmetry(asymmetries, docs / "conservation-asymmetry.png")
    figures.heating(runs, rates(runs, asymmetries), docs / "conservation-heating.png")
    figures.thermostats(temperatures(runs), docs / "conservation-elements.png")
    figures.diffusion(runs, docs / "conservation-diffusion.png")
    figures.distributions(runs, docs / "conservation-mts.png")
    figures.errors_by_frequency(bands, docs / "conservation-frequencies.png")
    words = {**_potentials(asymmetries), **_heating(runs), **_baths(runs), **_cure(runs), **_bands(bands)}
    words |= {"lengths": table_of_runs(runs), "whole_length": f"{analysis.lengths(runs):.0f}"}
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(words)
    (docs / "conservation.md").write_text(text, encoding="utf-8")


def read_runs(results: Path) -> dict[str, Kept]:
    """Every run that is kept, by name."""
    paths = sorted(path for path in results.glob("*.npz") if path.name != models.MODES)
    return {path.stem: series.read(path) for path in paths}


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _asymmetry(asymmetries: Mapping[str, Any], name: str) -> Number:
    found = asymmetries[name]["asymmetry"]
    return Number(found["value"], found["standard_error"])


def _potentials(asymmetries: Mapping[str, Any]) -> dict[str, str]:
    rows = []
    for name, one in asymmetries.items():
        if not name.startswith("strength"):
            words = {"water": "`water`", "water-pet": "`water-pet`"}
            label = words.get(name, f"forces alone, {name.rpartition('-')[2].lstrip('0')} steps")
            far = one["profile"]
            ends = f"{far['asymmetry'][0]:.2g} → {far['asymmetry'][-1]:.2f}" if far else "–"
            rows.append((label, f"{one['force_error']:.0f}", _asymmetry(asymmetries, name), ends))
    learnt = [name for name in asymmetries if name.startswith("forces-")]
    early, late = asymmetries[learnt[0]], asymmetries[learnt[-1]]
    return {
        "asymmetry_table": table(("direct head", "error of the force, meV/Å", "λ", "λ_ij at 1 Å → 9 Å"), rows),
        "lambda_water": str(_asymmetry(asymmetries, "water")),
        "lambda_pet": str(_asymmetry(asymmetries, "water-pet")),
        "lambda_early": str(_asymmetry(asymmetries, learnt[0])),
        "lambda_late": str(_asymmetry(asymmetries, learnt[-1])),
        "lambda_ten": str(_asymmetry(asymmetries, "strength-10")),
        "error_early": f"{early['force_error']:.0f}",
        "error_late": f"{late['force_error']:.0f}",
        "far_early": f"{max(early['profile']['asymmetry'][-4:]):.1f}",
        "far_water": f"{asymmetries['water']['profile']['asymmetry'][-1]:.2f}",
    }


def rates(runs: Mapping[str, Kept], asymmetries: Mapping[str, Any]) -> list[tuple[str, float, Number]]:
    """(name, λ, K/ps) of direct runs at constant energy, the bundled potential first.

    Energy over 3 k_B where there is an energy to go by, else the rise of the temperature.
    """
    own, found = _asymmetry(asymmetries, "water").value, []
    for name, run, value in (
        ("water", "nve-direct", own),
        ("× 3", "nve-strength3", 3 * own),
        ("× 10", "nve-strength10", _asymmetry(asymmetries, "strength-10").value),
    ):
        found.append((name, value, _in_kelvin(analysis.power(runs[run]))))
    late = [name for name in asymmetries if name.startswith("forces-")][-1]
    found.append(("forces alone", _asymmetry(asymmetries, late).value, analysis.heating(runs["nve-forces"])))
    return found


def _in_kelvin(rate: Number) -> Number:
    scale = 1 / (1000 * 3 * BOLTZMANN)
    return Number(rate.value * scale, rate.error * scale)


def _heating(runs: Mapping[str, Kept]) -> dict[str, str]:
    names = {
        "nve-conservative": "conservative",
        "nve-mts8": "MTS, M = 8",
        "nve-mts16": "MTS, M = 16",
        "nve-direct": "direct",
        "nve-strength3": "direct, difference × 3",
        "nve-strength10": "direct, difference × 10",
    }
    rows = []
    for name, label in names.items():
        run = runs[name]
        by_power = analysis.power(run, 1.0) if run.about["forces"] == "direct" else "–"
        rows.append((label, f"{run.length_ps:.2g}", analysis.drift(run), analysis.foretold_drift(run), by_power))
    rose, should = analysis.gained(runs["nve-direct"])
    hot = runs["nve-forces"]
    return {
        "drift_table": table(
            ("forces", "ps", "slope", "from the energy's random walk", "mean power of the first ps"), rows
        ),
        "power_kelvin": str(_in_kelvin(analysis.power(runs["nve-direct"], 1.0))),
        "slope_kelvin": str(_in_kelvin(analysis.drift(runs["nve-direct"]))),
        "power_kelvin_10": str(_in_kelvin(analysis.power(runs["nve-strength10"]))),
        "power_3": str(analysis.power(runs["nve-strength3"])),
        "power_10": str(analysis.power(runs["nve-strength10"])),
        "rose": f"{rose:.3f}",
        "should_rise": f"{should:.3f}",
        "forces_heating": str(analysis.heating(hot)),
        "forces_length": f"{hot.length_ps:.2g}",
    }


def temperatures(runs: Mapping[str, Kept]) -> list[tuple[str, Number, Number]]:
    """(name, K of hydrogen, K of oxygen) of the runs in a bath, with what is published."""
    rows = [
        (label, analysis.temperature(runs[name], "H"), analysis.temperature(runs[name], "O"))
        for name, label in _BATHS.items()
    ]
    for name, (hydrogen, oxygen) in published.TEMPERATURES.items():
        rows.append((f"rescaling, {name} (published)", Number(hydrogen, 0.0), Number(oxygen, 0.0)))
    return rows


def _baths(runs: Mapping[str, Kept]) -> dict[str, str]:
    lengths = [f"{runs[name].length_ps:.2g}" for name in _BATHS] + ["–"] * len(published.TEMPERATURES)
    rows = [(name, length, *kelvin) for length, (name, *kelvin) in zip(lengths, temperatures(runs), strict=True)]
    differences = {f"apart_{kind}": str(analysis.temperature_difference(runs[f"bussi-{kind}"])) for kind in _KINDS}
    diffusion, slow = _diffusion(runs)
    each = {
        f"{short}_{element}": str(analysis.temperature(runs[name], element))
        for short, name in (
            ("direct", "bussi-direct"),
            ("forces", "bussi-forces"),
            ("gle10", "gle-strength10"),
            ("langevin10", "langevin10-direct"),
            ("langevin100", "langevin100-direct"),
        )
        for element in "HO"
    }
    ends = {f"end_{kind}": f"{runs[f'{kind}-strength30'].length_ps:.2g}" for kind in ("nve", "bussi", "gle")}
    return {
        "temperature_table": table(("bath and forces", "ps", "H, K", "O, K"), rows),
        "diffusion_table": diffusion,
        **differences,
        **slow,
        "apart_forces": str(analysis.temperature_difference(runs["bussi-forces"])),
        "bussi_length": f"{min(runs[f'bussi-{kind}'].length_ps for kind in _KINDS):.2g}",
        "apart_ten": str(analysis.temperature_difference(runs["bussi-strength10"])),
        **{f"ten_end_{e}": f"{analysis.last_temperature(runs['bussi-strength10'], e):.0f}" for e in "HO"},
        "ten_length": f"{runs['bussi-strength10'].length_ps:.2g}",
        "apart_gle10": str(analysis.temperature_difference(runs["gle-strength10"])),
        "expected_hot_water": f"{analysis.expected_excess(runs['bussi-direct']):.1f}",
        "expected_hot_forces": f"{2 * analysis.heating(runs['nve-forces']).value * BUSSI.time_ps:.0f}",
        "expected_hot_ten": f"{analysis.expected_excess(runs['bussi-strength10']):.0f}",
        **each,
        **ends,
    }


def _diffusion(runs: Mapping[str, Kept]) -> tuple[str, dict[str, str]]:
    """The table, and numbers for the text."""
    names = {
        "bussi-conservative": "conservative, velocity rescaling",
        "bussi-mts8": "MTS, M = 8, velocity rescaling",
        "bussi-direct": "direct, velocity rescaling",
        "langevin100-direct": "direct, Langevin τ = 100 fs",
        "langevin10-direct": "direct, Langevin τ = 10 fs",
    }
    labels = {"early": "early diffusion of O", "late": "diffusion of O"}
    free = {when: analysis.finding(runs["bussi-conservative"], label) for when, label in labels.items()}
    rows, words = [], {}
    for name, run in names.items():
        row: list[Any] = [run]
        for when, label in labels.items():
            here = analysis.finding(runs[name], label)
            row += [here, "1" if name == "bussi-conservative" else free[when].over(here)]
            words[f"{when}_{name.replace('-', '_')}"] = str(free[when].over(here))
        rows.append(tuple(row))
    for when, label in labels.items():
        words[f"{when}_note"] = runs["bussi-conservative"].findings[label].note
    words |= {f"expected_{t}": f"{analysis.expected_slowdown(free['late'].value, t):.1f}" for t in (10, 100)}
    words["free_diffusion"] = str(free["late"])
    return table(("run", "early slope, Å²/ps", "slower by", "D, Å²/ps", "slower by"), rows), words


def _cure(runs: Mapping[str, Kept]) -> dict[str, str]:
    reference, rows = runs["bussi-conservative"], []
    curves = {
        ("radial distribution", "O-O"): "g_OO(r)",
        ("radial distribution", "O-H"): "g_OH(r)",
        ("velocity spectrum", "H"): "spectrum of H",
        ("velocity spectrum", "O"): "spectrum of O",
    }
    for key, words in curves.items():
        squares = [analysis.apart(runs[f"bussi-{k}"].curves[key], reference.curves[key])[0] for k in _KINDS[1:]]
        rows.append((f"{words}: mean of (difference/σ)²", "–", *(f"{value:.2f}" for value in squares)))
    for label, words in (("g(r) of O-O, first peak", "first peak of g_OO, Å"), ("its height", "its height")):
        rows.append((words, *(analysis.finding(runs[f"bussi-{kind}"], label) for kind in _KINDS)))
    rows.append(("D of oxygen, Å²/ps", *(analysis.finding(runs[f"bussi-{k}"], "diffusion of O") for k in _KINDS)))
    rows.append(("T of hydrogen − T of oxygen, K", *(analysis.temperature_difference(runs[f"bussi-{k}"]) for k in _KINDS)))  # fmt: skip # noqa: E501
    rows.append(("energy less heat, slope, meV/atom/ps", *(analysis.drift(runs[f"bussi-{k}"]) for k in _KINDS)))
    rows.append(("  from its random walk", *(analysis.foretold_drift(runs[f"bussi-{k}"]) for k in _KINDS)))
    return {
        "cure_table": table(("rescaling at 300 K", "conservative", "MTS, M = 8", "direct"), rows),
        "mts16_slope": str(analysis.drift(runs["nve-mts16"])),
        "mts16_length": f"{runs['nve-mts16'].length_ps:.2g}",
        "mts8_slope": str(analysis.drift(runs["nve-mts8"])),
        "mts8_walk": str(analysis.foretold_drift(runs["nve-mts8"])),
        "mts8_length": f"{runs['nve-mts8'].length_ps:.2g}",
        "mts8_drift": str(analysis.foretold_drift(runs["bussi-mts8"])),
    }


def _bands(bands: list[dict[str, Any]]) -> dict[str, str]:
    rows = []
    for name, band in zip(figures.band_names(), bands, strict=True):
        errors = [Number(100 * band[m][0], 100 * band[m][1]) for m in ("direct", "conservative", "forces")]
        rows.append((name, f"{100 * band['modes']:.0f}", f"{100 * band['force']:.1f}", *errors))
    head = ("band, cm⁻¹", "% of modes", "% of squared force", "direct", "conservative", "forces alone")
    top, soft = bands[-1], bands[1]
    return {
        "band_table": table(head, rows),
        "stretch_modes": f"{100 * top['modes']:.0f}",
        "stretch_force": f"{100 * top['force']:.0f}",
        **{f"soft_over_stiff_{m}": f"{soft[m][0] / top[m][0]:.1f}" for m in ("direct", "conservative", "forces")},
    }


def table_of_runs(runs: Mapping[str, Kept]) -> str:
    """What was run, for how long."""
    rows = []
    for name, run in runs.items():
        inner = run.about["timestep_fs"] / run.about["n_inner"]
        rows.append((f"`{name}`", run.about["integrator"], run.about["forces"], f"{inner:g}", f"{run.length_ps:.2g}"))
    return table(("run", "integrator", "forces", "inner step, fs", "ps"), rows)
