"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Generator

import ase
import numpy as np
import pytest
import torch

from mlcalc.potentials.network import Network
from mlcalc.potentials.painn import PaiNN
from mlcalc.potentials.pet import PET


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _fail_if_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A test that skips because something is not installed proves nothing: in CI that is a failure."""
    if _in_ci() and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("missing:"):
            report.outcome = "failed"
            report.longrepr = f"{report.longrepr[0]}: skipped in CI, where nothing may be missing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_missing(report)
    return report


def small_network(architecture: str = "painn", form: str = "M", dtype: torch.dtype = torch.float64) -> Network:
    """An untrained network, a few milliseconds an evaluation; the same weights at every call."""
    torch.manual_seed(0)
    network: Network
    if architecture == "painn":
        network = PaiNN(
            ["H", "O"], 3.0, form, channels=8, n_layers=2, n_radial=6, hidden=16, pair_channels=8
        )  # fmt: skip
    else:
        network = PET(["H", "O"], 3.0, form, width=16, n_layers=2, n_heads=2, n_radial=6, hidden=16)
    n_radial = network.pair_baseline.radial.n_radial
    pairs = 0.1 * torch.randn(2, 2, n_radial) / torch.arange(1, n_radial + 1) ** 2
    network.pair_baseline.coefficients.copy_((pairs + pairs.transpose(0, 1)).flatten(0, 1))
    triples = 0.02 * torch.randn(network.three_body_baseline.coefficients.shape).unflatten(2, (5, 5))
    network.three_body_baseline.coefficients.copy_((triples + triples.transpose(2, 3)).flatten(2))
    if architecture == "painn" and form != "C":  # born as zero
        torch.nn.init.normal_(network.direct_head_short.give.weight, std=0.3)
    if dtype != network.dtype:
        network = network.to(dtype)
    return network.requires_grad_(False)


def water_like(n_molecules: int = 4, seed: int = 0) -> ase.Atoms:
    """Water molecules on a grid in a triclinic cell smaller than twice the small networks' cutoff, well apart."""
    rng = np.random.default_rng(seed)
    cell = np.array([[5.8, 0.0, 0.0], [1.1, 5.5, 0.0], [-0.7, 0.9, 3.1 * max(1, n_molecules // 4)]])
    places = np.stack(np.meshgrid([0, 0.5], [0, 0.5], np.arange(max(1, n_molecules // 4)), indexing="ij"), -1)
    places = places.reshape(-1, 3)[:n_molecules] / [1, 1, max(1, n_molecules // 4)]
    molecule = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = (places @ cell)[:, None] + molecule + rng.normal(scale=0.05, size=(n_molecules, 3, 3))
    return ase.Atoms("OHH" * n_molecules, positions.reshape(-1, 3), cell=cell, pbc=True)


@pytest.fixture
def make_network():
    """`small_network(architecture, form, dtype)`"""
    return small_network


@pytest.fixture
def make_water():
    """`water_like(n_molecules, seed)`"""
    return water_like
