"""eSEN and UMA with random weights on our neighbour list against their own calculator and finite differences.

Through checkpoints that are written here in the package's own form: the published ones need a licence.
"""

from __future__ import annotations

import copy
import importlib.util

import ase
import foreign_potentials as foreign
import numpy as np
import pytest
import torch
from ase.build import molecule

import mlcalc
from mlcalc.errors import CheckpointError, UsageError
from mlcalc.evaluation import JOINT, Wanted
from mlcalc.potentials.fairchem import Fairchem
from mlcalc.potentials.foreign import foreign_module, undisturbed
from mlcalc.structure import Structure

NEEDS = "fairchem-core (pip install 'mlcalc[fairchem]') and what it needs is too large for CI"
CORE = "fairchem.core"
NETWORKS = f"{CORE}.models.uma.escn_md"
#: UMA: experts and two levels of theory; eSEN with both forces, of the 20 nearest neighbours; and with direct ones
TASKS = {"uma": "omat", "both": "omol", "direct": "omat"}


def network(kind: str) -> dict:
    """The configuration of a model with 8 channels; forces of some 0.1 eV/Å and more."""
    backbone = dict(
        model=f"{NETWORKS}.eSCNMDBackbone",
        **dict(sphere_channels=8, hidden_channels=8, edge_channels=8, num_distance_basis=16, num_layers=2),
        **dict(lmax=2, mmax=2, cutoff=5.0, max_neighbors=20 if kind == "both" else 300, otf_graph=True),
        **dict(direct_forces=kind == "direct", regress_forces=True, regress_stress=kind == "uma"),
        **dict(act_type="gate", ff_type="grid" if kind == "uma" else "spectral", always_use_pbc=False),
        dataset_mapping={"omat": "omat", "omol": "omol"},
    )
    inside = "MLP_Energy_Head" if kind == "direct" else "MLP_EFS_Head"
    heads: dict = {
        "energy": dict(module=f"{NETWORKS}.{inside}", wrap_property=False),
        "forces": dict(module=f"{NETWORKS}.Linear_Force_Head"),
    }
    if kind == "uma":
        backbone |= dict(model=f"{CORE}.models.uma.escn_moe.eSCNMDMoeBackbone", num_experts=3)
        backbone |= dict(use_composition_embedding=True)
        wrapper = dict(module=f"{CORE}.models.uma.escn_moe.DatasetSpecificMoEWrapper", head_cls=f"{NETWORKS}.{inside}")
        wrapper |= dict(head_kwargs={"wrap_property": False}, dataset_mapping=backbone["dataset_mapping"])
        heads = {"all": wrapper}
    return dict(
        _target_=f"{CORE}.models.base.HydraModel",
        backbone=backbone,
        heads=heads,
        pass_through_head_outputs=kind == "uma",
        model_id="UMA-S-1.2.1" if kind == "uma" else None,
    )


def task(name: str, kind: str, datasets: list[str], mean: float = 0.0) -> dict:
    """With a scale, and for the energy a constant of the system and others of the elements."""
    unit, numbers = f"{CORE}.units.mlip_unit.mlip_unit", f"{CORE}.modules.normalization"
    made = dict(_target_=f"{unit}.Task", name=name, property=kind, datasets=datasets)
    made |= dict(level="system" if kind == "energy" else "atom")
    made |= dict(out_spec=dict(_target_=f"{unit}.OutputSpec", dim=[1 if kind == "energy" else 3], dtype="float32"))
    made |= dict(normalizer=dict(_target_=f"{numbers}.normalizer.Normalizer", mean=mean, rmsd=20.0))
    if kind == "energy":
        constants = dict(_target_="torch.linspace", start=0.0, end=-900.0, steps=100)
        made |= dict(
            element_references=dict(
                _target_=f"{numbers}.element_references.ElementReferences", element_references=constants
            )
        )
    return made


def tasks(kind: str) -> list[dict]:
    if kind == "uma":  # without a constant, which the package's calculator would add to the stress as well
        return [task(f"{one}_{of}", of, [one]) for one in ("omat", "omol") for of in ("energy", "forces")]
    return [task("energy", "energy", [TASKS[kind]], mean=3.0), task("forces", "forces", [TASKS[kind]])]


@pytest.fixture(scope="module")
def interface():
    if importlib.util.find_spec("fairchem") is None:
        pytest.skip(NEEDS)
    return foreign_module(f"{CORE}.units.mlip_unit.api.inference", "fairchem")


@pytest.fixture(scope="module")
def checkpoints(interface, tmp_path_factory):
    """kind → path"""
    import hydra

    folder, paths = tmp_path_factory.mktemp("fairchem"), {}
    for kind in TASKS:
        with undisturbed():
            torch.manual_seed(0)
            model = hydra.utils.instantiate(network(kind))
            average = torch.optim.swa_utils.AveragedModel(model)
        whole = interface.MLIPInferenceCheckpoint(network(kind), model.state_dict(), average.state_dict(), tasks(kind))
        paths[kind] = folder / f"{kind}.pt"
        torch.save(whole, paths[kind])
    return paths


@pytest.fixture(scope="module")
def potentials(checkpoints):
    return {kind: mlcalc.load(f"fairchem:{path}?task={TASKS[kind]}") for kind, path in checkpoints.items()}


@pytest.fixture(scope="module")
def doubles(checkpoints):
    """Built in float64, as the package does for its `base_precision_dtype`: tables that it does not store, too."""
    utilities = foreign_module(f"{CORE}.units.mlip_unit.utils", "fairchem")
    made = {}
    for kind, path in checkpoints.items():
        with undisturbed():
            torch.set_default_dtype(torch.float64)
            average, checkpoint = utilities.load_inference_model(str(path), use_ema=True)
            average.module.setup_tasks(checkpoint.tasks_config)
        made[kind] = Fairchem(kind, average.module.double(), TASKS[kind])
    return made


@undisturbed()
def calculator(interface, path, kind, dtype):
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import load_predict_unit

    settings = interface.InferenceSettings(
        base_precision_dtype=dtype, activation_checkpointing=False, auto_add_default_untrained_tasks=kind == "uma"
    )
    return FAIRChemCalculator(load_predict_unit(path, settings, device="cpu"), task_name=TASKS[kind])


@pytest.mark.parametrize("frame", ["silicon", "water", "salt", "molecule"])
@pytest.mark.parametrize("kind", TASKS)
def test_it_agrees_with_the_packages_calculator(interface, checkpoints, doubles, kind, frame):
    """In float64: nothing but round-off, though its edges are turned at random. Of two forces it gives direct ones."""
    atoms = molecule("CH3CH2OH") if frame == "molecule" else foreign.frames()[frame]
    wanted = doubles[kind].provides & (~Wanted.VIRIAL if frame == "molecule" else ~Wanted(0))
    found = foreign.evaluate(doubles[kind], atoms, wanted)
    own = calculator(interface, str(checkpoints[kind]), kind, torch.float64)
    own.calculate(atoms, ["energy"], [])
    assert float(found.energy) == pytest.approx(own.results["energy"], abs=1e-8)
    force = found.conservative_force if found.direct_force is None else found.direct_force
    np.testing.assert_allclose(force, own.results["forces"], atol=1e-9, rtol=0)
    assert frame == "silicon" or float(force.abs().max()) > 0.01
    if kind == "uma" and frame != "molecule":
        stress = -found.virial[0].numpy() / atoms.get_volume()
        voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        np.testing.assert_allclose(voigt, own.results["stress"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", TASKS)
def test_single_precision(potentials, doubles, kind):
    """As loaded: within some ten units in the last place of what depends on positions."""
    atoms, one = foreign.few_waters(), potentials[kind]
    assert one.dtype == torch.float32
    rough, fine = (foreign.evaluate(this, atoms, one.provides) for this in (one, doubles[kind]))
    constant = float((one.offsets.double() - doubles[kind].offsets)[atoms.numbers].sum())
    assert float(rough.energy - fine.energy) - constant == pytest.approx(0, abs=1e-5 * len(atoms))
    for name in ("conservative_force", "direct_force"):
        if getattr(fine, name) is not None:
            scale = float(getattr(fine, name).abs().max())
            torch.testing.assert_close(getattr(rough, name), getattr(fine, name), rtol=0, atol=1e-5 * max(1.0, scale))


def test_what_each_kind_provides(potentials):
    derived = Wanted.CONSERVATIVE | Wanted.VIRIAL
    assert potentials["both"].provides == JOINT | Wanted.VIRIAL
    assert potentials["uma"].provides == Wanted.ENERGY | derived
    assert potentials["direct"].provides == Wanted.ENERGY | Wanted.DIRECT
    with pytest.raises(UsageError, match=r"potential 'direct' has no conservative forces, virial \(stress\)"):
        foreign.evaluate(potentials["direct"], foreign.salt(), derived)


def test_force_and_virial_are_derivatives(doubles):
    """Of eSEN with all neighbours: with some, its energy jumps."""
    foreign.check_derivatives(doubles["uma"], foreign.salt())
    smooth = copy.deepcopy(doubles["both"])
    smooth.n_nearest = 300
    foreign.check_derivatives(smooth, foreign.salt())


def test_jacobian_by_both_routes(doubles):
    foreign.check_jacobian(doubles["uma"], foreign.silicon())


def test_product_with_the_jacobian_of_the_direct_force(doubles):
    foreign.check_direct_product(doubles["direct"], foreign.few_waters())


def test_neighbours_and_batches(doubles):
    """Experts are weighed system by system; both forces at once are those asked for one by one."""
    foreign.check_neighbours_and_batches(doubles["uma"], foreign.salt(), molecule("H2O"))
    pair = [foreign.few_waters(), molecule("H2O")]
    both, alone = (foreign.evaluate(doubles["both"], pair, which).direct_force for which in (JOINT, Wanted.DIRECT))
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(alone[24:], foreign.evaluate(doubles["both"], pair[1], Wanted.DIRECT).direct_force)


def test_random_numbers_are_left_alone(potentials):
    """Which the package draws for every edge; so the same structure has the same forces, to the bits."""
    before = torch.random.get_rng_state()
    first, again = (foreign.evaluate(potentials["uma"], foreign.salt()).conservative_force for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(first, again)


def test_what_it_does_not_know_is_said(potentials):
    one = potentials["uma"]
    with pytest.raises(UsageError, match="it holds Og, but potential 'uma' knows only H, He"):
        one.check_species(Structure.from_ase(ase.Atoms("OgH", [[0, 0, 0], [0, 0, 2]])))
    with pytest.raises(UsageError, match="an isolated atom, of which 'uma' knows nothing"):
        one.check_species(Structure.from_ase([molecule("H2O"), ase.Atoms("O")]))
    one.check_species(Structure.from_ase([molecule("H2O"), foreign.salt()]))


def test_other_networks_are_refused(potentials):
    other = copy.deepcopy(potentials["direct"].model)
    other.backbone = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"x is a Linear, which .*FAIRChemCalculator.from_model_checkpoint"):
        Fairchem("x", other, "omat")


def test_files_and_names(checkpoints, potentials, monkeypatch, tmp_path):
    """Torch stays as it was; levels of theory differ; what is wrong is said in one line."""
    with foreign.torch_untouched():
        found = mlcalc.load(f"fairchem:{checkpoints['direct']}")
    assert (found.name, found.task, found.fingerprint) == ("direct", "omat", potentials["direct"].fingerprint)
    molecular = mlcalc.load(f"fairchem:{checkpoints['uma']}?task=omol")
    assert molecular.fingerprint != potentials["uma"].fingerprint
    water = foreign.few_waters()
    energies = [float(foreign.evaluate(one, water, Wanted.ENERGY).energy) for one in (molecular, potentials["uma"])]
    assert abs(energies[0] - energies[1]) > 1e-3

    pretrained = foreign_module(f"{CORE}.calculate.pretrained_mlip", "fairchem")

    def no_network(**options):
        raise ConnectionError("no route")

    monkeypatch.setattr(pretrained, "hf_hub_download", no_network)
    (tmp_path / "other.pt").write_bytes(b"no checkpoint")
    for wish, error, says in (
        (checkpoints["uma"], UsageError, r"levels of theory omat, omol, and none of them .*uma.pt\?task=omat"),
        (f"{checkpoints['uma']}?task=oc20", UsageError, "and oc20 was asked for"),
        (tmp_path / "other.pt", CheckpointError, "no checkpoint that fairchem can read"),
        (tmp_path / "none.pt", CheckpointError, "no file .*uma-s-1p1"),
        ("uma-s-1p1", CheckpointError, r"cannot download uma-s-1p1 \(no route\).*fairchem:FILE"),
    ):
        with pytest.raises(error, match=says) as caught:
            mlcalc.load(f"fairchem:{wish}")
        assert "\n" not in str(caught.value)


def test_a_missing_package(monkeypatch):
    foreign.check_missing_package(monkeypatch, "fairchem", "fairchem", "fairchem:uma-s-1p1")
