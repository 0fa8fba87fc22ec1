"""What the documentation shows is run: README's Python, its commands' options, its files and the examples."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mlcalc
from mlcalc.audit import thresholds
from mlcalc.cli import parser
from mlcalc.potentials import names, pretrained
from mlcalc.potentials.checkpoint import read_card

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DIAGNOSTICS = sorted((ROOT / "docs/diagnostics").glob("[!i]*.md"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *PAGES)
PACKAGES = {"sevennet": "sevenn", "chgnet": "chgnet", "torchsim": "torch_sim", "ipi": "ipi"}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)


def run(arguments: list[str], folder: Path) -> str:
    """Run Python elsewhere, so that nothing is found by accident and nothing is left behind."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(document: str) -> list[list[str]]:
    """Every line of the document's shell blocks, split into words, comments left out."""
    lines = "".join(blocks(document, "(?:sh|bash)")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def skip_without_packages(code: str) -> None:
    """Code that says mlcalc[extra] needs what the extra installs."""
    for extra in re.findall(r"mlcalc\[([a-z,]+)\]", code):
        for family in extra.split(","):
            pytest.importorskip(PACKAGES[family], reason=f"missing: {family} (pip install 'mlcalc[{family}]')")


@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_python_of_the_readme(number, tmp_path):
    assert run(["-c", blocks("README.md", "python")[number]], tmp_path)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_of_a_page(page, tmp_path):
    code = "\n".join(blocks(page, "python"))
    skip_without_packages(code)
    assert run(["-c", code], tmp_path)


def test_the_site_is_made_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="missing: sphinx (pip install 'mlcalc[docs]')")
    run(["-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(tmp_path)], tmp_path)
    assert "Quick start" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path, tmp_path):
    skip_without_packages(path.read_text(encoding="utf-8"))
    assert run([str(path)], tmp_path)


def test_examples_are_numbered_and_listed():
    assert [path.name[:3] for path in EXAMPLES] == [f"{k:02d}_" for k in range(1, len(EXAMPLES) + 1)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"examples/{path.name}" in readme for path in EXAMPLES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    known = {"git", "cd", "make", "mlcalc", "pip", "python", "i-pi", "i-pi-driver-py", "lmp"}
    for words in commands(document):
        program = words[0].removeprefix(".venv/bin/")
        assert program in known, f"{document}: {words}"
        if program == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets
        elif program == "mlcalc":
            chosen = parser().parse_args(words[1:])  # exits, and so fails the test, where an option is not there
            is_file = "--potential" in words and Path(chosen.potential).suffix in (".safetensors", ".pt2")
            if "--potential" in words and not is_file and ":" not in chosen.potential:
                assert chosen.potential in names()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith(("http", "mailto")):
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def threshold(name: str) -> object:
    """What stands in the code as `module.NAME`."""
    module, constant = name.split(".")
    for room in ("audit", "diagnostics", "diagnosis"):
        if (ROOT / "mlcalc" / room / f"{module}.py").exists():
            return getattr(importlib.import_module(f"mlcalc.{room}.{module}"), constant)
    raise AssertionError(f"no module {module}")


def test_thresholds_on_the_pages_are_those_of_the_code():
    """`| `module.NAME` | value unit | why |`, the unit too where the code has one; none of the audit's is left out."""
    told = set()
    for path in (ROOT / "docs/diagnostics").glob("*.md"):
        for name, cell in re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+) \|", path.read_text(encoding="utf-8"), re.M):
            value = threshold(name)
            if isinstance(value, thresholds.Threshold):
                assert cell == f"{value.value:g} {value.unit}", f"{path.name}: {name}"
                told.add(value.name)
            else:
                number = f"{value:g}" if isinstance(value, int | float) else str(value)
                assert cell == number or cell.startswith(number + " "), f"{path.name}: {name} is {number}"
    assert told == {one.name for one in thresholds.THRESHOLDS}


@pytest.mark.parametrize("path", DIAGNOSTICS, ids=lambda path: path.stem)
def test_a_page_of_a_diagnostic_says_what_one_must_know(path):
    text, index = (one.read_text(encoding="utf-8") for one in (path, path.with_name("index.md")))
    assert "**It finds**" in text and "**It cannot find**" in text
    assert f"({path.name})" in index and f"\n{path.stem}\n" in index


def test_every_diagnostic_has_a_page():
    """Files of diagnostics that measure, and not those that only help them."""
    helpers = {"__init__", "autocorrelation", "finding", "significance", "times", "unwrapping"}
    pages = "".join(path.read_text(encoding="utf-8") for path in DIAGNOSTICS)
    for path in (ROOT / "mlcalc/diagnostics").glob("*.py"):
        assert path.stem in helpers or f"autofunction:: mlcalc.diagnostics.{path.stem}." in pages, path.stem


@pytest.mark.parametrize("path", sorted(pretrained.path_of("water").parent.glob("*.safetensors")), ids=lambda p: p.stem)
def test_model_cards_say_what_the_checkpoints_say(path):
    text, card = path.with_suffix(".md").read_text(encoding="utf-8"), read_card(path)
    errors = card["validation_errors"]
    said = {"conservative": ("conservative force", ".1f", "meV/Å"), "direct": ("direct force", ".1f", "meV/Å")}
    said["energy"] = ("energy", ".2f", "meV/atom")
    assert errors.keys() - {"alignment"} <= said.keys()
    for key in errors.keys() & said.keys():
        name, digits, unit = said[key]
        assert f"| {name} | {errors[key]:{digits}} {unit} |" in text
    origin = card["data"]["file"] if "data" in card else card["teacher"]["name"]
    assert origin in text


def test_version_stands_in_one_place():
    assert "version = attr: mlcalc.__version__" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert f"\nversion: {mlcalc.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {mlcalc.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_are_exact_and_cover_the_requirements():
    import configparser

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower()] = version
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    required = setup["options"]["install_requires"] + "".join(extras[name] for name in extras if name != "dev")
    wanted = re.findall(r"^([a-z0-9_-]+)", required, re.M)
    assert wanted
    assert set(wanted) <= set(pinned)
    assert not any("+" in version for version in pinned.values())
