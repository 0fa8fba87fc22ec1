"""Audit results made up by hand: what verdicts, JSON, text and report are tested on."""

from __future__ import annotations

import numpy as np

from mlcalc.audit.result import (
    Asymmetry,
    AuditResult,
    Costs,
    Difference,
    Profile,
    Provenance,
    Run,
    Rung,
    Series,
    Subject,
)
from mlcalc.audit.settings import AuditSettings
from mlcalc.audit.thresholds import THRESHOLDS
from mlcalc.audit.verdict import Evidence, judge, overall
from mlcalc.diagnostics.finding import Finding

COSTS = Costs(14.8, 49.2, 50.3, 50.1, 15.0, 19.6, 1.31, 1.29, 8, 7)


def made_up_run(forces, drift, error, *, exploded=None, long_enough=True):
    time = np.linspace(0, 1, 51)
    noise = np.random.default_rng(len(forces)).normal(size=51)
    energy = drift * time + error * (noise - noise[0])
    return Run(
        forces=forces,
        timestep_fs=4.0 if forces == "mts" else 0.5,
        n_inner=8 if forces == "mts" else 1,
        wanted_ps=1.0,
        reached_ps=1.0,
        exploded=exploded,
        drift=Finding("nve_drift", drift, error, "meV/atom/ps"),
        heating=Finding("nve_drift", 3.87 * drift, 3.87 * error, "K/ps"),
        slope=Finding("nve_drift", drift + 0.5 * error, 1.5 * error, "meV/atom/ps"),
        foretold=Finding("foretold_drift", abs(drift), 1.3 * error, "meV/atom/ps"),
        long_enough=long_enough,
        series=Series(tuple(time), tuple(energy), tuple(300 + 0 * time)),
    )


def made_up_evidence(*runs, conservative_lambda=2e-6, largest=28.0):
    profile = Profile(
        "direct", (1.0, 3.0, 6.0), (0.008, 0.02, 0.1), (0.001, 0.003, 0.02), (1e-6, 1e-5, 1e-4), (9, 30, 40)
    )
    hybrid = len(runs) == 3
    ladder = tuple(
        Rung(m, 0.5 * m, 0.24, Finding("nve_drift", 0.1, 0.05, "meV/atom/ps"), m < 16, "" if m < 16 else "exploded")
        for m in (1, 2, 4, 8, 16)
    )
    return Evidence(
        runs=runs,
        asymmetry=Asymmetry(
            Finding("jacobian_asymmetry", 0.0107, 0.0004, "1", "", 3e-6),
            Finding("jacobian_asymmetry", conservative_lambda, 3e-7, "1", "", 2e-6),
            (profile,),
        ),
        difference=Difference(9.4, largest, 812.0, 8) if hybrid else None,
        costs=COSTS,
        ladder=ladder if hybrid else (),
        temperature_K=300.0,
    )


def made_up_result(evidence, name="made up"):
    subject = Subject(
        potential=name,
        fingerprint="9f86d081884c7d65",
        forces=("conservative", "direct"),
        cutoff=4.5,
        dtype="float32",
        device="cpu",
        structure="a box",
        formula="H128O64",
        n_atoms=192,
        cell=((12.4, 0.0, 0.0), (0.0, 12.4, 0.0), (0.0, 0.0, 12.4)),
        periodic=(True, True, True),
    )
    return AuditResult(
        subject=subject,
        settings=AuditSettings(),
        overall=overall(evidence),
        verdicts=judge(evidence),
        runs=evidence.runs,
        asymmetry=evidence.asymmetry,
        power=Finding("nonconservative_power", 36.0, 4.0, "meV/atom/ps"),
        difference=evidence.difference,
        costs=evidence.costs,
        ladder=evidence.ladder,
        thresholds=THRESHOLDS,
        provenance=Provenance("2026-01-01T00:00:00+00:00", {"python": "3.11", "torch": "2.13"}, "x86_64", 2, 271.0),
    )


def good_evidence():
    return made_up_evidence(
        made_up_run("conservative", 0.006, 0.011),
        made_up_run("mts", -0.009, 0.012),
        made_up_run("direct", 38.0, 1.5, exploded="temperature 1.5e+03 K"),
    )
