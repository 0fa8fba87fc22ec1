"""Verdicts on made-up evidence, where it is known what must come out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_up import good_evidence, made_up_evidence, made_up_run

from mlcalc.audit import thresholds
from mlcalc.audit.result import CARE, SAFE, TOO_SHORT, UNSAFE
from mlcalc.audit.verdict import bare, drift_sentence, drift_status, judge, longer_ps, overall, symmetric
from mlcalc.diagnostics.finding import Finding


@pytest.mark.parametrize(
    ("drift", "error", "long_enough", "expected"),
    [
        (0.01, 0.005, True, SAFE),
        (-0.01, 0.005, True, SAFE),
        (0.01, 0.1, True, TOO_SHORT),
        (0.01, 0.001, False, TOO_SHORT),
        (0.3, 0.01, True, CARE),
        (-0.3, 0.01, True, CARE),
        (5.0, 0.1, True, UNSAFE),
        (-5.0, 0.1, True, UNSAFE),
        (500.0, 1.0, False, UNSAFE),
    ],
)
def test_drift_between_tolerance_and_limit(drift, error, long_enough, expected):
    assert drift_status(made_up_run("conservative", drift, error, long_enough=long_enough)) == expected


@pytest.mark.parametrize(("slope", "expected"), [(-0.10, SAFE), (0.15, CARE), (-0.15, CARE), (5.0, UNSAFE)])
def test_no_forecast_talks_away_a_slope_that_is_surely_above_the_tolerance(slope, expected):
    """0.10 ± 0.03 may be 0.04, 0.15 ± 0.03 is more than the tolerance of 0.05 by two standard errors."""
    run = made_up_run("mts", 0.001, 0.003)
    run = replace(run, slope=Finding("nve_drift", slope, 0.03, "meV/atom/ps"))
    assert drift_status(run) == expected
    assert (f"{slope:.3f}" in drift_sentence(run)) is (expected != SAFE)


def test_an_explosion_is_unsafe_whatever_its_slope():
    assert drift_status(made_up_run("direct", 0.0, 0.001, exploded="temperature 1e4 K")) == UNSAFE


def test_hybrid_is_safe_although_direct_forces_explode():
    verdicts = {(v.use.split(",")[0], v.forces): v.status for v in judge(good_evidence())}
    assert verdicts["molecular dynamics", "conservative"] == SAFE
    assert verdicts["inside multiple time stepping", "mts"] == SAFE
    assert verdicts["molecular dynamics", "direct"] == UNSAFE
    assert verdicts["geometry optimisation", "direct"] == CARE
    nutshell = overall(good_evidence())
    assert nutshell.status == SAFE
    assert "2.6 times faster" in nutshell.headline
    assert "Never run direct forces alone" in nutshell.advice


def test_unsafe_mts_sends_to_the_conservative_forces_and_a_lower_rung():
    evidence = made_up_evidence(
        made_up_run("conservative", 0.006, 0.011), made_up_run("mts", 4.6, 0.2), made_up_run("direct", 38.0, 1.5)
    )
    nutshell = overall(evidence)
    assert nutshell.status == UNSAFE
    assert nutshell.headline.startswith("Use the conservative forces;")
    assert "--n-inner 4" in nutshell.advice


def test_a_wrong_gradient_is_flagged_although_the_run_is_flat():
    evidence = made_up_evidence(made_up_run("conservative", 0.006, 0.011), conservative_lambda=1e-4)
    dynamics, geometry = judge(evidence)
    assert dynamics.status == CARE
    assert geometry.status == UNSAFE
    assert "not symmetric" in dynamics.because


def test_a_direct_force_alone_counts_for_itself():
    assert overall(made_up_evidence(made_up_run("direct", 38.0, 1.5))).status == UNSAFE


def test_too_short_asks_for_a_run_long_enough():
    run = made_up_run("conservative", 0.01, 0.1)
    longer = longer_ps(run)
    assert longer is not None
    # the slope's standard error falls as t^(-3/2)
    error = 0.1 * longer**-1.5
    assert 0.01 + 2 * error <= 1.1 * thresholds.DRIFT_TOLERANCE.value
    assert f"{longer:g} ps" in judge(made_up_evidence(run))[0].because


def test_a_short_run_that_the_ladder_found_unstable_is_sent_to_a_lower_rung():
    evidence = made_up_evidence(
        made_up_run("conservative", 0.006, 0.011), made_up_run("mts", 0.3, 0.3), made_up_run("direct", 38.0, 1.5)
    )
    assert overall(evidence).status == TOO_SHORT
    assert "unstable" not in overall(evidence).advice
    ladder = tuple(replace(rung, stable=rung.stable and rung.n_inner < 8) for rung in evidence.ladder)
    advice = overall(replace(evidence, ladder=ladder)).advice
    assert "M = 8 was unstable" in advice
    assert "--n-inner 4" in advice


def test_langevin_time_balances_the_heating():
    # P = 2 (K − K₀)/τ with K − K₀ = (3/2) k_B ΔT and ΔT = 1 % of 300 K; k_B = 0.0861733 meV/K
    tau = thresholds.thermostat_time_ps(1.0, 300.0)
    assert 2 * 1.5 * 0.0861733 * 3.0 / tau == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(("value", "floor", "expected"), [(2e-6, 2e-6, True), (1e-4, 2e-6, False), (1e-4, None, None)])
def test_symmetric_against_the_floor(value, floor, expected):
    assert symmetric(Finding("jacobian_asymmetry", value, 1e-7, "1", "", floor)) is expected


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.00612, 0.0113, "0.006 ± 0.011"),
        (38.04, 1.52, "38.0 ± 1.5"),
        (1234.5, 67.0, "1234 ± 67"),
        (1.0, math.inf, "1"),
    ],
)
def test_rounding_follows_the_error(value, error, text):
    assert bare(Finding("x", value, error, "")) == text


def test_every_threshold_has_a_reason():
    for threshold in thresholds.THRESHOLDS:
        assert threshold.value > 0
        assert len(threshold.reason) > 40
