"""Everything that needs a GPU, in one call of at most eight minutes: its tests, all benchmarks, the numbers asked for.

    python benchmarks/gpu.py                          # on a machine with one NVIDIA GPU, without a network
    python benchmarks/gpu.py --device cpu --quick     # whether all parts work, in some minutes

Needs what mlcalc needs, and pytest for the tests; torch-sim and a C++ compiler where they are at hand. Each part is a
process of its own with a limit of its own, and what was found is written after each part, so that a cut loses nothing:
benchmarks/results/gpu-DATE-DEVICE.json and .md. It asserts nothing.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_report
import torch
from batch import engine, synchronised
from roofline import water
from run import milliseconds, peak_memory_mib
from scaling import measured_apart

import mlcalc
from mlcalc.diagnostics import jacobian_asymmetry
from mlcalc.engines.batch import BatchEngine
from mlcalc.engines.native import NativeEngine
from mlcalc.memory import keep_freed_memory
from mlcalc.probes.batches import Job
from mlcalc.probes.products import Sampling, sample_many
from mlcalc.structure import Structure

ROOT = Path(__file__).parent.parent
LIMIT_S = 480
_MARK = "skipif(not torch.cuda.is_available()"  # of a test, as Python writes it
_EXPORT = """
import sys
from mlcalc.potentials import checkpoint_of
from mlcalc.potentials.compiling import export
print(export(checkpoint_of(sys.argv[1]), sys.argv[2], device=sys.argv[3]))
"""


@dataclass(frozen=True)
class Scale:
    """How large each part is."""

    atoms: tuple[int, ...]
    replicas: tuple[int, ...]
    rounds: int
    batch: int
    asymmetry: tuple[int, ...]
    growth: tuple[int, ...]
    compiled: tuple[int, ...]
    limits: dict[str, int]


FULL = Scale(
    atoms=(192, 3072, 12_288, 98_304),
    replicas=(1, 16, 64, 256),
    rounds=5,
    batch=64,
    asymmetry=(192, 12_288),
    growth=(3072, 12_288, 98_304),
    compiled=(1, 2, 4),
    limits={"tests": 75, "export": 110, "λ": 50, "batch": 40, "throughput": 140, "compiled": 35, "growth": 80},
)
QUICK = Scale(
    atoms=(192,),
    replicas=(1, 2),
    rounds=1,
    batch=2,
    asymmetry=(192,),
    growth=(192, 384),
    compiled=(1,),
    limits={"tests": 240, "export": 0, "λ": 240, "batch": 240, "throughput": 300, "compiled": 240, "growth": 300},
)


def gpu_tests() -> list[str]:
    """Ids of the tests that are skipped where there is no GPU."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        given = [node for node in body if isinstance(node, ast.Assign) and _MARK in ast.unparse(node.value)]
        names = {ast.unparse(target) for node in given for target in node.targets}
        for node in body:
            marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", ())]
            if any(_MARK in mark or mark in names for mark in marks):
                found.append(f"{path.relative_to(ROOT)}::{node.name}")
    return found


def _started(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """A Python process in the root of the tree; in a session of its own, to be cut with those that it starts."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Status and output; status 124 if it was cut."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return 124, process.communicate()[0]
    return process.returncode, output


class Parts:
    """What the parts do; each gives what goes into the record."""

    def __init__(self, options: argparse.Namespace, scale: Scale, folder: Path) -> None:
        self.options, self.scale, self.folder = options, scale, folder
        self.package = folder / "package.pt2"

    def _python(self, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
        """Status and output of a process in the root of the tree; status 124 if it was cut."""
        return _ended(_started(arguments), seconds)

    def tests(self, seconds: float) -> Any:
        """Those that need a GPU."""
        ids = [one.partition("::") for one in gpu_tests()]
        # by -k: to name a test in a file that is skipped as a whole, for a missing package, would be an error
        chosen = [*sorted({file for file, _, _ in ids}), "-k", " or ".join(sorted({name for _, _, name in ids}))]
        status, output = self._python(["-m", "pytest", "-v", "-rfEs", *chosen], seconds)
        return {"status": status, "summary": output.splitlines()[-1:], "output": output[-4000:]}

    def start_export(self) -> subprocess.Popen[str] | None:
        """Compile in the background, while the tests run."""
        if not self.scale.limits["export"]:
            return None
        return _started(["-c", _EXPORT, self.options.potential, str(self.package), self.options.device])

    def finish_export(self, process: subprocess.Popen[str] | None, seconds: float) -> Any:
        """Whether there is a package."""
        if process is None:
            return {"status": 0, "output": "not asked for"}
        status, output = _ended(process, max(seconds, 1))
        if status:
            self.package.unlink(missing_ok=True)
        return {"status": status, "output": output[-2000:]}

    def throughput(self, seconds: float) -> Any:
        """throughput.py, in so many seconds."""
        chosen = ["--atoms", *map(str, self.scale.atoms), "--replicas", *map(str, self.scale.replicas)]
        chosen += ["--rounds", str(self.scale.rounds), "--output", str(self.options.output)]
        chosen += ["--budget-s", str(0.95 * seconds), "--threads", str(self.options.threads)]
        if self.package.is_file():
            chosen += ["--package", str(self.package)]
        begun = time.time()
        status, output = self._python(["benchmarks/throughput.py", *self._common(), *chosen], seconds)
        path = Path(self.options.output) / f"{gpu_report.stem('throughput', self.options.device)}.json"
        written = path.is_file() and path.stat().st_mtime >= begun
        return {"status": status, "output": output[-2000:], "file": path.name if written else ""}

    def compiled(self, seconds: float) -> Any:
        """compiled.py: agreement of compiled and replayed evaluations, and what they gain."""
        package = [str(self.package)] if self.package.is_file() else []
        chosen = ["--repeat", *map(str, self.scale.compiled), "--rounds", str(max(2, self.scale.rounds))]
        arguments = [self.options.potential, *package, "--device", self.options.device, *chosen]
        status, output = self._python(["benchmarks/compiled.py", *arguments], seconds)
        return {"status": status, "output": output[-6000:]}

    def growth(self, seconds: float) -> Iterator[Any]:
        """Time and memory of lists and evaluations, each in a process of its own as in scaling.py."""
        end, costs = time.monotonic() + seconds, {}
        options = SimpleNamespace(potential=self.options.potential, device=self.options.device, repeats=2)
        for atoms in (self.scale.growth[0], *reversed(self.scale.growth[1:])):
            for what in ("list", "direct", "conservative"):
                if time.monotonic() < end:
                    found = measured_apart(options, what, atoms)
                    costs[f"{what} {atoms}"] = None if found is None else [found.seconds, found.bytes]
                    yield {"costs": costs}

    def asymmetry(self, seconds: float) -> Iterator[Any]:
        """λ of direct forces to 5 %: pairs of products, and wall time in a process that has its libraries loaded."""
        from mlcalc.structure import Structure

        potential = mlcalc.load(self.options.potential, device=self.options.device)
        found: dict[str, Any] = {}
        for n in self.scale.asymmetry:
            job = Job(potential, Structure.from_ase(water(n), device=potential.device), "direct")
            if not found:
                sample_many(job, Sampling(max_pairs=8))
            runs = []
            for seed in range(3 if n == self.scale.asymmetry[0] else 1):
                samples: list[Any] = []
                if potential.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                took = milliseconds(lambda: samples.extend(sample_many(job, Sampling(seed=seed))))  # noqa: B023
                value = jacobian_asymmetry.from_products(samples[0])
                counts = {"pairs": len(samples[0].total), "peak_mib": peak_memory_mib()}
                runs.append({"λ": value.value, "error": value.standard_error, "seconds": took / 1000, **counts})
            found[str(n)] = runs
            yield found

    def batch(self, seconds: float) -> Iterator[Any]:
        """Replicas as one batch against as many runs one after the other, MTS 8, ratios within rounds."""
        end = time.monotonic() + seconds
        potential = mlcalc.load(self.options.potential, device=self.options.device)
        box, n = Structure.from_ase(mlcalc.water_box(), device=potential.device), self.scale.batch
        alone = engine(NativeEngine, potential, box, 8)
        together = engine(BatchEngine, potential, box.replicated(n), 8)
        steps, ratios = 2, []
        for number in range(self.scale.rounds + 1):  # the first is a warm-up
            # one run takes as many steps as the whole batch, for all of it to be seen
            one = synchronised(partial(alone, steps), potential.device)
            took = synchronised(partial(together, steps), potential.device)
            ratios += [n * one / took] if number else []
            yield {"replicas": n, "ratios": ratios}
            if number and time.monotonic() > end:
                return

    def _common(self) -> list[str]:
        return ["--potential", self.options.potential, "--device", self.options.device]

    def apart(self, name: str, seconds: float) -> Any:
        """A part that is a method of this class, in a process of its own: what it found until it ended or was cut."""
        arguments = [__file__, *self._common(), "--threads", str(self.options.threads), "--part", name]
        status, output = self._python([*arguments, *(["--quick"] if self.options.quick else [])], seconds)
        lines = output.splitlines()
        found = [row for row in lines if row.startswith("{") and row.endswith("}")]
        rest = "\n".join(row for row in lines if row not in found)
        return {"status": status, "output": rest[-2000:], **(json.loads(found[-1]) if found else {})}


def run_all(options: argparse.Namespace, scale: Scale) -> None:
    """All parts, the most important numbers first; the record is written after each."""
    start = time.monotonic()
    record = {**gpu_report.origin(options), "on_gpu": options.device == "cuda", "quick": options.quick}
    record["parts"] = {}

    def left(name: str) -> float:
        spent = 0.0 if options.quick else time.monotonic() - start
        return min(scale.limits[name], LIMIT_S - 15 - spent)

    def take(name: str, work: Callable[[float], Any]) -> None:
        if name not in options.parts:
            return
        begun, seconds = time.monotonic(), left(name)
        try:
            found = work(seconds) if seconds > 3 or name == "export" else {"status": 124, "output": "no time left"}
        except Exception as error:  # the other parts go on
            found = {"status": 1, "output": f"{type(error).__name__}: {error}"}
        record["parts"][name] = {**found, "took_s": round(time.monotonic() - begun, 1)}
        gpu_report.write(options, record)
        print(f"{name}: {record['parts'][name]['took_s']} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(options, scale, Path(folder))
        export = parts.start_export() if "export" in options.parts else None
        take("tests", parts.tests)
        take("export", lambda seconds: parts.finish_export(export, seconds - (time.monotonic() - start)))
        take("λ", lambda seconds: parts.apart("asymmetry", seconds))
        take("batch", lambda seconds: parts.apart("batch", seconds))
        take("throughput", parts.throughput)
        take("compiled", parts.compiled)
        take("growth", lambda seconds: parts.apart("growth", seconds))
    print(gpu_report.table(record))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--potential", default="water")
    made.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--quick", action="store_true", help="small sizes, nothing is compiled: whether it all works")
    made.add_argument("--output", default="benchmarks/results", metavar="DIR")
    made.add_argument("--parts", nargs="+", choices=tuple(FULL.limits), default=list(FULL.limits))
    made.add_argument("--part", choices=("asymmetry", "batch", "growth"), help="this one, in this process; prints JSON")
    return made


def main() -> None:
    """Parse the command line and run the parts."""
    options = parser().parse_args()
    scale = QUICK if options.quick else FULL
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device: got cuda, but torch sees no GPU; give --device cpu --quick to see whether it works")
    options.output = str(Path(options.output).resolve())
    if options.part:
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        limit = scale.limits["λ" if options.part == "asymmetry" else options.part]
        for found in getattr(Parts(options, scale, Path()), options.part)(0.8 * limit):
            print(json.dumps(found), flush=True)
        return
    run_all(options, scale)


if __name__ == "__main__":
    main()
