"""The audit as one HTML file that opens offline: verdict on top, charts, tables, thresholds, provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from mlcalc.audit import thresholds as limit
from mlcalc.audit.chart import Axis, Curve, Mark, Rule, chart, forest, linear_axis, log_axis
from mlcalc.audit.result import CARE, NOT_MEASURED, SAFE, TOO_SHORT, UNSAFE, AuditResult, Costs, Run, Rung, Verdict
from mlcalc.audit.verdict import bare, drift_status, plus_minus
from mlcalc.errors import UsageError

_CLASS = {SAFE: "safe", CARE: "care", TOO_SHORT: "short", UNSAFE: "unsafe", NOT_MEASURED: "none"}
_NAMES = {"conservative": "conservative", "direct": "direct", "mts": "multiple time stepping"}


def write_report(result: AuditResult, path: str | Path) -> None:
    """Write the report.

    Raises
    ------
    UsageError
        if the file cannot be written.
    """
    try:
        Path(path).write_text(render_report(result), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"report: cannot write {path} ({error.strerror or error}); give a writable path") from error


def render_report(result: AuditResult) -> str:
    """The whole page; it asks nothing of the network."""
    css = resources.files("mlcalc.audit").joinpath("report.css").read_text(encoding="utf-8")
    subject = result.subject
    sections = (
        _header(result),
        _uses(result.verdicts),
        _energy(result),
        _drift(result),
        _asymmetry(result),
        _ladder(result.ladder),
        _costs(result.costs),
        _thresholds(result),
        _provenance(result),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(subject.potential)} on {escape(subject.structure)}: {escape(result.overall.status)}</title>\n"
        # an inline icon, or browsers would ask the file's folder for one
        f'<link rel="icon" href="data:,">\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n'
        + "\n".join(section for section in sections if section)
        + "\n<footer>Written by mlcalc. Everything in this page is in result.json too.</footer>"
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escaped, with true minus signs and powers of ten."""
    text = re.sub(r"(\d)e([+-]?)0*(\d+)", r"\1·10<sup>\2\3</sup>", escape(text))
    return re.sub(r"(^|[\s>(=])-(?=\d)", r"\1−", text).replace("<sup>+", "<sup>").replace("<sup>-", "<sup>−")


def _formula(formula: str) -> str:
    return re.sub(r"(\d+)", r"<sub>\1</sub>", escape(formula))


def _sentence(text: str) -> str:
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return _text(first + text[1:])


def _chip(status: str, word: str = "") -> str:
    return f'<span class="chip {_CLASS[status]}">{escape(word or status)}</span>'


def _force(forces: str) -> str:
    return f'<span class="force {forces}">{_NAMES[forces]}</span>'


def _short(forces: str) -> str:
    return f'<span class="force {forces}">{"MTS" if forces == "mts" else forces}</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; a heading that starts with '#' makes a right-aligned column of numbers."""
    numeric = [name.startswith("#") for name in head]

    def cells(tag: str, entries: Sequence[str]) -> str:
        marks = [' class="num"' if right else "" for right in numeric]
        return "".join(f"<{tag}{mark}>{entry}</{tag}>" for entry, mark in zip(entries, marks, strict=True))

    titles = cells("th", [name.lstrip("#") for name in head])
    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _header(result: AuditResult) -> str:
    subject, settings, overall = result.subject, result.settings, result.overall
    facts = (
        f"{_formula(subject.formula)}, {subject.n_atoms} atoms, {settings.temperature_K:g} K. "
        f"Three runs of {settings.duration_ps:g} ps from the same start, inner step {settings.inner_timestep_fs:g} fs."
        if len(result.runs) == 3
        else f"{_formula(subject.formula)}, {subject.n_atoms} atoms, {settings.temperature_K:g} K. "
        f"One run of {settings.duration_ps:g} ps, step {settings.inner_timestep_fs:g} fs."
    )
    return f"""<header>
<p class="brand">mlcalc audit: does it conserve energy?</p>
<h1>{escape(subject.potential)} <span class="thin">on</span> {escape(subject.structure)}</h1>
<p class="facts">{facts}</p>
<div class="banner {_CLASS[overall.status]}">{_chip(overall.status)}
<p class="headline">{_text(overall.headline)}</p>
<p class="advice">{_text(overall.advice)}</p></div>
</header>"""


def _uses(verdicts: Sequence[Verdict]) -> str:
    rows = [(_sentence(v.use), _force(v.forces), _chip(v.status), _sentence(v.because)) for v in verdicts]
    body = "\n".join(
        f'<tr><td>{use}</td><td>{force}</td><td>{chip}</td><td class="why">{why}</td></tr>'
        for use, force, chip, why in rows
    )
    return f"""<section><h2>Which forces may be used for what</h2>
<table class="stack uses"><thead><tr><th>Use</th><th>Forces</th><th>Verdict</th><th>Evidence</th></tr></thead>
<tbody>
{body}
</tbody></table></section>"""


def _legend(forces: Iterable[str]) -> str:
    return (
        '<div class="legend">'
        + "".join(
            f'<span class="key {name}"><span>{_NAMES[name]}{" (MTS)" if name == "mts" else ""}</span></span>'
            for name in forces
        )
        + "</div>"
    )


def _energy_chart(title: str, runs: Sequence[Run], settings_ps: float) -> str:
    energies = [value for run in runs for value in run.series.energy]
    y = linear_axis("conserved energy, meV/atom", energies, least=1e-6)
    curves = [Curve(run.forces, run.series.time_ps, run.series.energy) for run in runs]
    return chart(title, Axis("time, ps", 0.0, settings_ps), y, curves)


def _energy(result: AuditResult) -> str:
    runs = result.runs
    if not runs:
        return ""
    end = max(run.wanted_ps for run in runs)
    order = [run for name in ("direct", "mts", "conservative") for run in runs if run.forces == name]
    quiet = [run for run in order if drift_status(run) != UNSAFE]
    title = "All runs" if len(runs) > 1 else "The run"
    cards = [
        f'<div class="card"><h3>{title}</h3>'
        f"{_energy_chart('Conserved energy against time', order, end)}{_stopped(runs)}</div>"
    ]
    if 0 < len(quiet) < len(runs):
        names = " and ".join("MTS" if run.forces == "mts" else run.forces for run in reversed(quiet))
        title = f"{_sentence(names)}, enlarged"
        cards.append(f'<div class="card"><h3>{title}</h3>{_energy_chart(title, quiet, end)}</div>')
    return f"""<section><h2>Energy against time</h2>
<p class="lead">At constant energy this line should be flat. It counts conservative and kinetic energy.</p>
{_legend(run.forces for run in runs)}
<div class="grid">{"".join(cards)}</div></section>"""


def _stopped(runs: Sequence[Run]) -> str:
    return "".join(
        f"<p>The {_NAMES[run.forces]} run was stopped at {run.reached_ps:.2f} ps: {_text(run.exploded)}.</p>"
        for run in runs
        if run.exploded
    )


def _drift(result: AuditResult) -> str:
    found = [(run, run.drift) for run in result.runs if run.drift is not None and math.isfinite(run.drift.value)]
    if not found:
        return ""
    tolerance, most = limit.DRIFT_TOLERANCE.value, limit.DRIFT_LIMIT.value
    sizes = [max(abs(drift.value), 1e-4) for _, drift in found]
    axis = log_axis("size of the drift, meV/atom/ps", [tolerance / 20, 20 * most, *sizes])
    marks = [
        Mark(
            run.forces,
            _NAMES[run.forces],
            abs(drift.value),
            drift.standard_error if math.isfinite(drift.standard_error) else 0.0,
        )
        for run, drift in found
    ]
    rows = [
        (_short(run.forces), *(_text(bare(one)) for one in (run.slope, run.foretold, drift, run.heating)))
        for run, drift in found
    ]
    table = _table(("Forces", "#Slope", "#Foretold", "#Best", "#K/ps"), rows, "small")
    power = (
        '<div class="card"><h3>Power</h3><p>Along the direct run, f_direct − f_conservative does work at a rate of '
        f"{_text(plus_minus(result.power))}. It is what the difference of the two forces adds to the energy, measured "
        "without looking at the energy.</p></div>"
        if result.power is not None
        else ""
    )
    return f"""<section><h2>Energy drift</h2>
<p class="lead">The slope of the conserved energy, and what its random walk foretells: an energy that walks up and down
with the diffusion constant D also rises, by D/2kT. Both in meV/atom/ps; the best estimate is their weighted mean where
they agree, otherwise the slope. Green up to the tolerance of {tolerance:g}, red above {most:g}.</p>
<div class="grid"><div class="card wide">{table}</div>
<div class="card">{forest("Energy drift of the runs", axis, marks, (tolerance, most))}</div>{power}</div></section>"""


def _asymmetry(result: AuditResult) -> str:
    rows = []
    for name, finding in (("direct", result.asymmetry.direct), ("conservative", result.asymmetry.conservative)):
        if finding is not None:
            floor = "" if finding.noise_floor is None else _text(f"{finding.noise_floor:.1e}")
            rows.append((f"λ of the {_force(name)} forces", _text(plus_minus(finding)), floor))
    if result.difference is not None:
        d = result.difference
        rows.append(("f_conservative − f_direct, root mean square", f"{d.rms:.3g} meV/Å", ""))
        rows.append(("the same on a frame’s worst atom", f"{d.largest:.3g} meV/Å", ""))
        rows.append(("conservative force, root mean square", f"{d.force_rms:.3g} meV/Å", ""))
    cards = []
    for profile in result.asymmetry.profiles:
        kept = [value for value in profile.asymmetry if math.isfinite(value)]
        if len(kept) > 1:
            x = Axis("distance of the atoms, Å", 0.0, max(profile.distance) * 1.05)
            y = log_axis("λ of a pair", [*kept, *profile.noise_floor])
            curves = [
                Curve("noise", profile.distance, profile.noise_floor),
                Curve(profile.forces, profile.distance, profile.asymmetry, profile.standard_error),
            ]
            title = f"Asymmetry between pairs of atoms, {profile.forces} forces"
            drawn = chart(title, x, y, curves)
            cards.append(f'<div class="card"><h3>{title}</h3>{drawn}<p>Dashed: noise floor.</p></div>')
    table = _table(("Quantity", "#Value", "#Noise floor"), rows, "small")
    cards.append(f'<div class="card"><h3>In numbers</h3>{table}</div>')
    return f"""<section><h2>Are the forces a gradient?</h2>
<p class="lead">λ is the antisymmetric share of the Jacobian ∂F/∂x: 0 for the gradient of an energy, 1 for a pure
rotation. Between pairs of atoms it shows at which distance the fault sits.</p>
<div class="grid">{"".join(cards)}</div></section>"""


def _ladder(ladder: Sequence[Rung]) -> str:
    if not ladder:
        return ""
    rows = [
        (
            str(rung.n_inner),
            f"{rung.timestep_fs:g}",
            _text(bare(rung.drift)),
            _chip(SAFE, "stable") if rung.stable else _chip(UNSAFE, "unstable"),
        )
        for rung in ladder
    ]
    table = _table(("#M", "#Outer step, fs", "#Drift, meV/atom/ps", "Seen"), rows)
    known = [(rung, rung.drift) for rung in ladder if rung.drift is not None and math.isfinite(rung.drift.value)]
    cards = []
    if known:
        y = log_axis(
            "size of the drift, meV/atom/ps", [0.01, 1.0, *(max(abs(drift.value), 1e-3) for _, drift in known)]
        )
        curves = [
            Curve(
                "mts" if stable else "direct",
                [rung.timestep_fs for rung, _ in known if rung.stable is stable],
                [abs(drift.value) for rung, drift in known if rung.stable is stable],
                [drift.standard_error for rung, drift in known if rung.stable is stable],
            )
            for stable in (True, False)
        ]
        x = Axis("outer step, fs", 0.0, 1.08 * max(rung.timestep_fs for rung in ladder))
        picture = chart("Drift against the outer step", x, y, curves, [Rule(limit.DRIFT_TOLERANCE.value, "tolerance")])
        cards.append(f'<div class="card">{picture}</div>')
    cards.append(f'<div class="card">{table}</div>')
    return f"""<section><h2>Step ladder</h2>
<p class="lead">Runs of {max(rung.reached_ps for rung in ladder):.2g} ps with more and more inner steps M between two
conservative corrections. Long outer steps resonate with the fastest vibrations, first of all those of hydrogen.</p>
<div class="grid">{"".join(cards)}</div></section>"""


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _costs(costs: Costs) -> str:
    entries = [
        ("One evaluation, direct", "direct", costs.direct),
        ("One evaluation, conservative", "conservative", costs.conservative),
        ("One evaluation, both", "mts", costs.joint),
        ("A step of direct dynamics", "direct", costs.step_direct),
        ("A step of conservative dynamics", "conservative", costs.step_conservative),
        (f"An inner step, M = {costs.n_inner}", "mts", costs.step_mts),
    ]
    known = [(name, style, value) for name, style, value in entries if value is not None]
    if not known:
        return ""
    longest = max(value for _, _, value in known)
    body = "\n".join(
        f'<tr><td>{name}</td><td class="num">{_milliseconds(value)}</td><td class="barcell force {style}">'
        f'<span class="bar" style="width:{100 * max(value, 0) / longest:.1f}%"></span></td></tr>'
        for name, style, value in known
    )
    ratio = ""
    if costs.overhead is not None and costs.bound is not None:
        ratio = (
            f"<p>An inner step of multiple time stepping costs <strong>{costs.overhead:.2f}</strong> direct steps. "
            f"1 + (c − 1)/M gives {costs.bound:.2f}, where c is the cost of a conservative over a direct evaluation."
            "</p>"
        )
    return f"""<section><h2>Cost</h2>
<p class="lead">Medians of {costs.rounds} rounds, measured side by side on this machine.</p>
<table><tbody>
{body}
</tbody></table>
{ratio}</section>"""


def _thresholds(result: AuditResult) -> str:
    rows = [
        (escape(t.name.replace("_", " ")), f"{t.value:g} {escape(t.unit)}", escape(t.reason)) for t in result.thresholds
    ]
    return f"""<section><h2>Thresholds</h2>
{_table(("Limit", "Value", "Reason"), rows, "small stack")}</section>"""


def _provenance(result: AuditResult) -> str:
    subject, provenance, settings = result.subject, result.provenance, result.settings
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    cell = "; ".join(" ".join(f"{entry:.4g}" for entry in vector) for vector in subject.cell)
    chosen = ", ".join(f"{name} {_setting(value)}" for name, value in vars(settings).items())
    reach = f", cutoff {subject.cutoff:g} Å" if subject.cutoff else ""
    rows = [
        ("Date", escape(provenance.date)),
        (
            "Potential",
            f"{escape(subject.potential)}, {escape(', '.join(subject.forces))} forces{reach}",
        ),
        ("Fingerprint", f"<code>{escape(subject.fingerprint)}</code>"),
        (
            "Structure",
            f"{escape(subject.structure)}: {_formula(subject.formula)}, cell {escape(cell)} Å, periodic "
            f"{', '.join('yes' if p else 'no' for p in subject.periodic)}",
        ),
        (
            "Computed with",
            f"{escape(subject.dtype)} on {escape(subject.device)}, {provenance.threads} threads, "
            f"{escape(provenance.machine)}, {provenance.seconds:.0f} s",
        ),
        ("Versions", escape(versions)),
        ("Settings", escape(chosen)),
    ]
    return f"<section><h2>Provenance</h2>\n{_table(('', ''), rows, 'small stack plain')}</section>"


def _setting(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
