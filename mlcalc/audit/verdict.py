"""From measurements to verdicts: which force may be used for what. No measurement is made here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlcalc.audit import thresholds as limit
from mlcalc.audit.result import (
    CARE,
    NOT_MEASURED,
    SAFE,
    TOO_SHORT,
    UNSAFE,
    Asymmetry,
    Costs,
    Difference,
    Overall,
    Run,
    Rung,
    Verdict,
)
from mlcalc.diagnostics.finding import Finding

DYNAMICS = "molecular dynamics"
INSIDE_MTS = "inside multiple time stepping"
DIRECT_NVE = "molecular dynamics, NVE"
DIRECT_LANGEVIN = "molecular dynamics, Langevin thermostat"
GEOMETRY = "geometry optimisation"

_SEVERITY = {SAFE: 0, CARE: 1, NOT_MEASURED: 1, TOO_SHORT: 2, UNSAFE: 3}


@dataclass(frozen=True)
class Evidence:
    """Everything that verdicts are made of."""

    runs: tuple[Run, ...]
    asymmetry: Asymmetry
    difference: Difference | None
    costs: Costs
    ladder: tuple[Rung, ...]
    temperature_K: float

    def run(self, forces: str) -> Run | None:
        return next((run for run in self.runs if run.forces == forces), None)


def severity(status: str) -> int:
    """0 for safe up to 3 for unsafe."""
    return _SEVERITY[status]


def bare(finding: Finding | None) -> str:
    """A finding as value ± standard error without its unit, rounded to two digits of the error."""
    if finding is None or not math.isfinite(finding.value):
        return "unknown"
    error = finding.standard_error
    if not (math.isfinite(error) and error > 0):
        return f"{finding.value:.3g}"
    if error > 1e4 or error < 1e-4:
        return f"{finding.value:.2e} ± {error:.0e}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{finding.value:.{digits}f} ± {error:.{digits}f}"


def plus_minus(finding: Finding | None) -> str:
    """A finding as value ± standard error with its unit."""
    unit = "" if finding is None or finding.unit in ("", "1") else f" {finding.unit}"
    return bare(finding) + unit


def decisive_drift(run: Run) -> Finding | None:
    """The drift that a verdict goes by: the best estimate, but the slope alone where it is surely above the tolerance.

    So no forecast can talk away a drift that the energy itself shows.
    """
    slope = run.slope
    if slope is not None and math.isfinite(slope.standard_error):
        surely = abs(slope.value) - limit.SIGNIFICANCE.value * slope.standard_error
        if surely > limit.DRIFT_TOLERANCE.value:
            return slope
    return run.drift


def drift_status(run: Run) -> str:
    """Where a run's drift stands between tolerance and limit, with `SIGNIFICANCE` standard errors to each side."""
    if run.exploded:
        return UNSAFE
    drift = decisive_drift(run)
    if drift is None or not math.isfinite(drift.value):
        return NOT_MEASURED
    size = abs(drift.value)
    error = drift.standard_error if math.isfinite(drift.standard_error) else math.inf
    low, high = size - limit.SIGNIFICANCE.value * error, size + limit.SIGNIFICANCE.value * error
    # too few independent samples prove no safety; but a run that heats faster and faster has few of them, too
    if not run.long_enough:
        return UNSAFE if low > limit.DRIFT_LIMIT.value else TOO_SHORT
    if low <= limit.DRIFT_TOLERANCE.value and run.reached_ps < limit.SHORTEST_RUN.value - 1e-9:
        return TOO_SHORT
    if high <= limit.DRIFT_TOLERANCE.value:
        return SAFE
    if low <= limit.DRIFT_TOLERANCE.value:
        return TOO_SHORT
    return UNSAFE if size > limit.DRIFT_LIMIT.value else CARE


def longer_ps(run: Run) -> float | None:
    """How long a run should be for its drift to be judged: the standard error of a slope falls as t^(−3/2)."""
    drift = decisive_drift(run)
    if drift is None or not math.isfinite(drift.standard_error):
        return None
    room = max(limit.DRIFT_TOLERANCE.value - abs(drift.value), 0.25 * limit.DRIFT_TOLERANCE.value)
    factor = (limit.SIGNIFICANCE.value * drift.standard_error / room) ** (2 / 3)
    return max(float(f"{max(2.0, factor) * run.reached_ps:.2g}"), limit.SHORTEST_RUN.value)


def drift_sentence(run: Run) -> str:
    """What a run showed, in one sentence."""
    if run.exploded:
        speed = f", after heating by {plus_minus(run.heating)}" if run.heating is not None else ""
        return f"exploded after {run.reached_ps:.2f} of {run.wanted_ps:g} ps{speed}"
    if run.drift is None:
        return "its conserved energy could not be followed"
    sentence = f"drift {plus_minus(decisive_drift(run))} over {run.reached_ps:.3g} ps"
    if drift_status(run) == TOO_SHORT:
        longer = longer_ps(run)
        sentence += "; too short to judge" + (f", try {longer:g} ps" if longer else "")
    return sentence


def symmetric(finding: Finding | None) -> bool | None:
    """Whether a force is a gradient as far as round-off can tell; None if not known."""
    if finding is None or finding.noise_floor is None or not math.isfinite(finding.noise_floor):
        return None
    low = finding.value - limit.SIGNIFICANCE.value * finding.standard_error
    return not low > limit.ASYMMETRY_OVER_FLOOR.value * finding.noise_floor


def _lambda_sentence(finding: Finding) -> str:
    return f"λ = {finding.value:.2g}{finding.floor_in_words}"


def judge_conservative(evidence: Evidence) -> list[Verdict]:
    """Conservative forces: dynamics and relaxation."""
    run, finding = evidence.run("conservative"), evidence.asymmetry.conservative
    if run is None:
        return []
    status, because = drift_status(run), drift_sentence(run)
    gradient = symmetric(finding)
    if gradient is False and finding is not None:
        status = max(status, CARE, key=severity)
        because += f"; its Jacobian is not symmetric, {_lambda_sentence(finding)}: the gradient is wrong somewhere"
    elif finding is not None:
        because += f"; {_lambda_sentence(finding)}"
    geometry = UNSAFE if gradient is False else SAFE if gradient else NOT_MEASURED
    reason = "not tested" if finding is None else _lambda_sentence(finding)
    reason += ": minus the gradient of the energy" if gradient else ""
    return [Verdict(DYNAMICS, "conservative", status, because), Verdict(GEOMETRY, "conservative", geometry, reason)]


def judge_mts(evidence: Evidence) -> list[Verdict]:
    """Direct forces inside, conservative corrections outside."""
    run = evidence.run("mts")
    if run is None:
        return []
    because = f"M = {run.n_inner}: {drift_sentence(run)}"
    reference = evidence.run("conservative")
    if reference is not None and reference.drift is not None and run.drift is not None and not run.exploded:
        error = math.hypot(run.drift.standard_error, reference.drift.standard_error)
        apart = abs(run.drift.value - reference.drift.value) / error if error > 0 else math.inf
        if math.isfinite(apart):
            because += f", {apart:.1f} standard errors from the conservative run's"
    if evidence.costs.overhead is not None:
        because += f"; a step costs {evidence.costs.overhead:.2f} direct steps"
    return [Verdict(f"{INSIDE_MTS}, M = {run.n_inner}", "mts", drift_status(run), because)]


def judge_direct(evidence: Evidence) -> list[Verdict]:
    """Direct forces alone: NVE, Langevin, relaxation."""
    run = evidence.run("direct")
    if run is None:
        return []
    verdicts = [Verdict(DIRECT_NVE, "direct", drift_status(run), drift_sentence(run)), _langevin(run, evidence)]
    verdicts.append(_direct_geometry(evidence))
    return verdicts


def _langevin(run: Run, evidence: Evidence) -> Verdict:
    if run.drift is None or drift_status(run) in (TOO_SHORT, NOT_MEASURED):
        return Verdict(DIRECT_LANGEVIN, "direct", drift_status(run), "the heating rate is not known well enough")
    heating = abs(run.drift.value) + limit.SIGNIFICANCE.value * run.drift.standard_error
    longest = limit.thermostat_time_ps(heating, evidence.temperature_K)
    if not longest >= limit.SHORTEST_THERMOSTAT_TIME.value:
        because = (
            f"to hold the temperature within {100 * limit.TEMPERATURE_ERROR.value:g} %, the thermostat would need "
            f"a time of {1000 * longest:.2g} fs: overdamped"
        )
        return Verdict(DIRECT_LANGEVIN, "direct", UNSAFE, because)
    because = (
        f"a thermostat with a time of {longest:.2g} ps or shorter holds the temperature within "
        f"{100 * limit.TEMPERATURE_ERROR.value:g} %; what is sampled is still not the canonical ensemble"
    )
    return Verdict(DIRECT_LANGEVIN, "direct", CARE, because)


def _direct_geometry(evidence: Evidence) -> Verdict:
    difference, finding = evidence.difference, evidence.asymmetry.direct
    if difference is None:
        gradient = symmetric(finding)
        because = "not tested" if finding is None else _lambda_sentence(finding)
        because += "" if gradient else "; no energy goes with it: use no line search"
        return Verdict(GEOMETRY, "direct", SAFE if gradient else CARE, because)
    largest, relaxed = difference.largest / 1000, limit.RELAXED_FORCE.value
    because = (
        f"the forces differ by {difference.largest:.3g} meV/Å on a frame's worst atom; "
        f"relaxed usually means below {1000 * relaxed:g} meV/Å"
    )
    fine = largest <= limit.RELAXED_FORCE_FRACTION.value * relaxed
    status = SAFE if fine else CARE if largest <= relaxed else UNSAFE
    return Verdict(GEOMETRY, "direct", status, because)


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """A verdict for each use of each force that the potential has, the recommended ways first."""
    conservative = judge_conservative(evidence)
    return (*conservative[:1], *judge_mts(evidence), *judge_direct(evidence), *conservative[1:])


def _advice_on_mts(evidence: Evidence) -> str:
    """Which M, going by the ladder, if the audited one will not do."""
    mts = evidence.run("mts")
    stable = [rung.n_inner for rung in evidence.ladder if rung.stable and (mts is None or rung.n_inner < mts.n_inner)]
    if stable and max(stable) > 1:
        return f"The step ladder saw no instability up to M = {max(stable)}: audit that next (--n-inner {max(stable)})."
    return "Align the direct head with the conservative forces (last stage of `mlcalc train`) or shorten the step."


def _direct_words(run: Run | None) -> str:
    if run is None:
        return ""
    if run.exploded:
        return f" Never run direct forces alone: they exploded within {max(run.reached_ps, 0.01):.2g} ps."
    if drift_status(run) in (UNSAFE, CARE) and run.heating is not None:
        return f" Do not run direct forces alone in NVE: they change the temperature by {plus_minus(run.heating)}."
    return ""


def overall(evidence: Evidence) -> Overall:
    """The verdict in a nutshell; its status is that of the best way of running dynamics that there is.

    For a potential with both forces, that is the worse of conservative dynamics and multiple time stepping: direct
    forces alone are expected to fail and do not count. Otherwise it is the one force's own constant-energy run.
    """
    conservative, mts, direct = (evidence.run(forces) for forces in ("conservative", "mts", "direct"))
    if mts is not None and conservative is not None:
        return _overall_hybrid(conservative, mts, direct, evidence)
    only = conservative or direct
    assert only is not None
    status = judge(evidence)[0].status
    name = only.forces
    headline = {
        SAFE: f"Energy is conserved: use the {name} forces for dynamics.",
        CARE: f"The {name} forces leak energy, slowly: use them with care.",
        UNSAFE: f"The {name} forces do not conserve energy: do not run dynamics with them alone.",
        TOO_SHORT: f"Too short to tell whether the {name} forces conserve energy.",
        NOT_MEASURED: f"The {name} forces have no energy to follow: nothing can be said about its conservation.",
    }[status]
    advice = f"The constant-energy run: {drift_sentence(only)}."
    if only is direct and status in (CARE, UNSAFE):
        advice += " Train an energy head on the same trunk and use multiple time stepping."
    return Overall(status, headline, advice)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _overall_hybrid(conservative: Run, mts: Run, direct: Run | None, evidence: Evidence) -> Overall:
    base = judge_conservative(evidence)[0].status
    split = drift_status(mts)
    status = max(base, split, key=severity)
    name = f"multiple time stepping (M = {mts.n_inner})"
    costs = evidence.costs
    saving = ""
    if costs.step_mts is not None and costs.step_conservative is not None:
        saving = f", {costs.step_conservative / costs.step_mts:.1f} times faster than conservative dynamics"
    if status == SAFE:
        return Overall(
            status, f"Safe with {name}{saving}.", f"It conserves energy: {drift_sentence(mts)}." + _direct_words(direct)
        )
    if base == UNSAFE:
        headline = "Not safe: even the conservative forces do not conserve energy."
        advice = f"Conservative run: {drift_sentence(conservative)}. "
        advice += "Shorten the timestep, or look for kinks in the potential."
        return Overall(status, headline, advice)
    if split == UNSAFE:
        good = "Use the conservative forces" if base == SAFE else "Use the conservative forces, with care"
        advice = f"With {name}: {drift_sentence(mts)}. {_advice_on_mts(evidence)}{_direct_words(direct)}"
        return Overall(status, f"{good}; {name} is not safe.", advice)
    if status == TOO_SHORT:
        longest = max(
            (longer_ps(run) or 0.0 for run in (conservative, mts) if drift_status(run) == TOO_SHORT), default=0
        )
        longer = f" Run it longer: --duration-ps {longest:g}." if longest else ""
        advice = f"Conservative: {drift_sentence(conservative)}. {_capital(name)}: {drift_sentence(mts)}.{longer}"
        if any(rung.n_inner == mts.n_inner and not rung.stable for rung in evidence.ladder):
            advice += f" But M = {mts.n_inner} was unstable on the step ladder. {_advice_on_mts(evidence)}"
        return Overall(status, "Too short to tell: the drifts are not known well enough.", advice)
    advice = f"Conservative: {drift_sentence(conservative)}. {_capital(name)}: {drift_sentence(mts)}."
    return Overall(status, f"Usable with care: {name} leaks energy, slowly{saving}.", advice + _direct_words(direct))
