"""pair_style mlcalc without Python: its index work against the network's own, and every refusal.

That it finds the same numbers as Python is tested where a package is made: tests/potentials/test_compiled.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_network, water_like
from lammps_runs import ROOT, driven, launched, set_up
from small_waters import few_waters

from mlcalc.neighbours import neighbour_list
from mlcalc.potentials.compiled import DESCRIPTION, Description, inputs_of, tensors_in
from mlcalc.potentials.painn import PaiNN
from mlcalc.structure import Structure

#: Reads a package's description and a graph, numbers alone, and writes the tensors of a program by name
DRIVER = r"""
#include "program_inputs.h"
#include <iostream>
template <class T> std::vector<T> read()
{
  size_t n;
  std::cin >> n;
  std::vector<T> values(n);
  for (auto &value : values) std::cin >> value;
  return values;
}
int main()
{
  mlcalc::Package package;
  std::cin >> package.cutoff >> package.three_body_cutoff >> package.density_cutoff >> package.short_cutoff;
  package.species = read<int64_t>(), package.tensors = read<std::string>();
  mlcalc::Graph graph;
  graph.numbers = read<int64_t>(), graph.centre = read<int64_t>(), graph.neighbour = read<int64_t>();
  graph.shift = read<int64_t>();
  mlcalc::Box box;
  const auto cell = read<double>(), positions = read<double>();
  std::copy(cell.begin(), cell.end(), box.cell);
  mlcalc::ProgramInputs inputs(package);
  inputs.set_graph(graph);
  for (int twice = 0; twice < 2; twice++) inputs.update(graph, box, positions); // nothing is left of the first time
  std::cout.precision(17);
  for (const auto &name : package.tensors) {
    std::cout << name;
    if (name == "vectors") for (const double x : inputs.vectors) std::cout << ' ' << x;
    else for (const int64_t k : inputs.index.at(name)) std::cout << ' ' << k;
    std::cout << '\n';
  }
}
"""


def network_with_all_parts() -> PaiNN:
    """Four cutoffs that differ, so that none passes for another; float64, as LAMMPS has positions."""
    sizes = dict(channels=8, n_layers=1, n_radial=6, hidden=16, pair_channels=8)
    return PaiNN(["H", "O"], 3.0, three_body_cutoff=2.5, density_cutoff=2.2, short_cutoff=1.9, **sizes).double()


def test_index_work_is_that_of_the_network(tmp_path):
    """Every tensor of (Graph, Places), in a triclinic box smaller than the cutoff: edges, pairs, triples, densities."""
    network, structure = network_with_all_parts(), Structure.from_ase(water_like())
    neighbours = neighbour_list(structure, network.cutoff, skin=0.5)
    graph = network.graph(structure, neighbours, attached=False)
    places = network.places(graph)
    inputs, expected = inputs_of(network, graph, places), tensors_in((graph, places))
    words = [inputs[name] for name in ("cutoff", "three_body_cutoff", "density_cutoff", "short_cutoff")]
    arrays = (structure.numbers, neighbours.centre, neighbours.neighbour, neighbours.shift)
    listed = [inputs["species"], inputs["tensors"]]
    listed += [tensor.flatten().tolist() for tensor in (*arrays, structure.cell, structure.positions)]
    for values in listed:
        words += [len(values), *values]
    sources = ROOT / "lammps_plugin" / "src"
    (tmp_path / "driver.cpp").write_text(DRIVER)
    files = [tmp_path / "driver.cpp", sources / "program_inputs.cpp"]
    subprocess.run(["g++", "-std=c++17", "-I", sources, *files, "-o", tmp_path / "driver"], check=True)
    text = " ".join(map(str, words))
    said = subprocess.run([tmp_path / "driver"], input=text, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in said.splitlines()]
    assert [line[0] for line in lines] == inputs["tensors"]
    assert {"triples.second", "density.place", "own.once", "own.short"} < set(inputs["tensors"])
    for (name, *values), tensor in zip(lines, expected, strict=True):
        assert len(values) == tensor.numel() > 1, name
        np.testing.assert_allclose(np.array(values, float), tensor.flatten().numpy(), rtol=0, atol=1e-14, err_msg=name)


# ---------------------------------------------------------------------------------------------- refusals


def package_of(network: torch.nn.Module, path: Path, **changes: object) -> Path:
    """A package with a description and no code."""
    structure = Structure.from_ase(few_waters())
    graph = network.graph(structure, neighbour_list(structure, network.cutoff), attached=False)
    inputs = inputs_of(network, graph, network.places(graph))
    described = json.loads(Description.here("small", ("joint",), torch.float32, inputs).to_json())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/.data/version", "6\n")
        archive.writestr(f"small/extra/{DESCRIPTION}", json.dumps(described | changes))
    return path


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """(folder with packages that cannot run, commands that read atoms)"""
    folder = tmp_path_factory.mktemp("native")
    for name, changes in {
        "whole": {},
        "torch": {"torch_version": "2.1.0"},
        "machine": {"machine": "abacus"},
        "instructions": {"instructions": ["avx4096"]},
        "format": {"format": "mlcalc-compiled-0"},
        "old": {"inputs": {}},
        "damaged": {"kinds": 3},
        "gpu": {"device": "cuda"},
    }.items():
        package_of(network_with_all_parts(), folder / f"{name}.pt2", **changes)
    package_of(small_network("pet"), folder / "pet.pt2")
    (folder / "text.pt2").write_text("not a zip file")
    (folder / "cut.pt2").write_bytes((folder / "whole.pt2").read_bytes()[:300])
    with zipfile.ZipFile(folder / "foreign.pt2", "w") as archive:
        archive.writestr("archive/.data/version", "6\n")
    return folder, set_up(few_waters(), folder / "data", ("H", "O"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("water backend native", "compiled packages .*got water; make one with mlcalc export"),
        ("water backend rust", r"got backend rust; .*backend python\|native"),
        ("{}/absent.pt2 backend native", "no file .*mlcalc export"),
        ("{}/text.pt2 backend native", "no whole package .*export it again"),
        ("{}/cut.pt2 backend native", "no whole package .*export it again"),
        ("{}/foreign.pt2 backend native", "no package that this version reads; make one with mlcalc export"),
        ("{}/format.pt2 backend native", "no package that this version reads; make one with mlcalc export"),
        ("{}/old.pt2 backend native", "export it again"),
        ("{}/damaged.pt2 backend native", "not whole .*export it again"),
        ("{}/torch.pt2 backend native", "compiled for torch 2.1.0, here is .*export it again here"),
        ("{}/machine.pt2 backend native", "compiled for processor abacus, here is .*export it again here"),
        ("{}/instructions.pt2 backend native", "a processor with avx4096, here is one without; export it again"),
        ("{}/gpu.pt2 backend native", "compiled for cuda, and backend native runs on a CPU; export it again"),
        ("{}/pet.pt2 backend native", "leave out backend native"),
        ("{}/whole.pt2 backend native dtype float64", "compiled for float32: leave it out"),
        ("{}/whole.pt2 backend native device cuda", "compiled packages run on the cpu"),
        ("{}/whole.pt2 backend native fast water", "leave out fast"),
        ("{}/whole.pt2 backend native", "code in .* cannot be loaded .*export it again"),
    ],
)
def test_refusals_say_what_to_do(refused, arguments, says):
    folder, start = refused
    with pytest.raises(Exception, match=says), driven(f"{start}pair_style mlcalc {arguments.format(folder)}\n"):
        pass


def test_several_processes_are_refused(refused, tmp_path):
    folder, start = refused
    said = launched(f"{start}pair_style mlcalc {folder}/whole.pt2 backend native\n", tmp_path, ranks=2)
    assert "backend native runs in one process, here are 2; start LAMMPS without mpirun" in said


def test_a_plugin_built_without_torch_says_so(refused, tmp_path):
    import mlcalc_lammps

    shutil.copy(Path(mlcalc_lammps.plugin_folder()) / "mlcalcplugin.so", tmp_path)
    load = f"plugin clear\nplugin load {tmp_path}/mlcalcplugin.so\n"
    said = launched(f"{load}units metal\npair_style mlcalc {refused[0]}/whole.pt2 backend native\n", tmp_path)
    assert "built without torch" in said and "install the plugin again where torch is installed" in said
