"""What an audit found: plain frozen data, written as JSON and read back against the published schema."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mlcalc.audit.settings import AuditSettings
from mlcalc.audit.thresholds import Threshold
from mlcalc.diagnostics.finding import Finding
from mlcalc.errors import UsageError

SCHEMA_VERSION = 1

#: what a verdict can say, from best to worst
SAFE, CARE, TOO_SHORT, UNSAFE = "safe", "with care", "too short to tell", "unsafe"
NOT_MEASURED = "not measured"
STATUSES = (SAFE, CARE, TOO_SHORT, UNSAFE, NOT_MEASURED)


@dataclass(frozen=True)
class Verdict:
    """May these forces be used for this?

    Attributes
    ----------
    use : what one may want to do, in words
    forces : "conservative", "direct" or "mts"
    status : one of `STATUSES`
    because : the evidence, one sentence
    """

    use: str
    forces: str
    status: str
    because: str


@dataclass(frozen=True)
class Overall:
    """The verdict in a nutshell.

    Attributes
    ----------
    status : of the best way to run dynamics that the potential offers; what `--fail-on` goes by
    headline : one sentence for people in a hurry
    advice : what to do, a sentence or two
    """

    status: str
    headline: str
    advice: str


@dataclass(frozen=True)
class Series:
    """What a run recorded, by frame.

    Attributes
    ----------
    time_ps : ps
    energy : meV/atom, the conserved energy less its value at the start
    temperature_K : K, kinetic
    """

    time_ps: tuple[float, ...]
    energy: tuple[float, ...]
    temperature_K: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One constant-energy run.

    Attributes
    ----------
    forces : "conservative", "direct" or "mts"
    timestep_fs : the outer step; n_inner : inner steps in it
    wanted_ps, reached_ps : how long it was to be and how long it was
    exploded : why it was stopped before its end, or None
    drift : meV/atom/ps of the conserved energy, the best estimate; heating : the same as K/ps; None where it could not
        be fitted
    slope, foretold : meV/atom/ps, what the drift is made of: the energy's slope, and what its random walk foretells
    long_enough : whether the drift's error bar can be trusted
    """

    forces: str
    timestep_fs: float
    n_inner: int
    wanted_ps: float
    reached_ps: float
    exploded: str | None
    drift: Finding | None
    heating: Finding | None
    slope: Finding | None
    foretold: Finding | None
    long_enough: bool
    series: Series


@dataclass(frozen=True)
class Profile:
    """λ_ij against distance, by bins.

    Attributes
    ----------
    forces : of which force
    distance : Å; asymmetry, standard_error, noise_floor : dimensionless; n_pairs : pairs of atoms in each bin
    """

    forces: str
    distance: tuple[float, ...]
    asymmetry: tuple[float, ...]
    standard_error: tuple[float, ...]
    noise_floor: tuple[float, ...]
    n_pairs: tuple[int, ...]


@dataclass(frozen=True)
class Asymmetry:
    """λ, the antisymmetric share of the Jacobian, of each force that the potential has."""

    direct: Finding | None
    conservative: Finding | None
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Difference:
    """How far the two forces are apart, over `n_frames` frames of the conservative run.

    Attributes
    ----------
    rms : of the components of f_conservative − f_direct, meV/Å
    largest : length of the difference on the worst atom of a frame, median over frames, meV/Å
    force_rms : of the components of the conservative force, meV/Å
    """

    rms: float
    largest: float
    force_rms: float
    n_frames: int


@dataclass(frozen=True)
class Costs:
    """Median wall times, ms; None where the potential lacks a force.

    Attributes
    ----------
    direct, conservative, joint : of one evaluation
    step_conservative, step_direct, step_mts : of one inner step of dynamics
    overhead : step_mts / step_direct; bound : 1 + (c − 1)/M, c = conservative / direct, of a trunk that both share
    """

    direct: float | None
    conservative: float | None
    joint: float | None
    step_conservative: float | None
    step_direct: float | None
    step_mts: float | None
    overhead: float | None
    bound: float | None
    n_inner: int
    rounds: int


@dataclass(frozen=True)
class Rung:
    """One rung of the step ladder: a short run with multiple time stepping.

    Attributes
    ----------
    drift : meV/atom/ps, None where it could not be fitted
    stable : False where the energy drifts; note : how
    """

    n_inner: int
    timestep_fs: float
    reached_ps: float
    drift: Finding | None
    stable: bool
    note: str


@dataclass(frozen=True)
class Subject:
    """What was audited."""

    potential: str
    fingerprint: str
    forces: tuple[str, ...]
    cutoff: float
    dtype: str
    device: str
    structure: str
    formula: str
    n_atoms: int
    cell: tuple[tuple[float, ...], ...]
    periodic: tuple[bool, ...]


@dataclass(frozen=True)
class Provenance:
    """When, with what, and for how long."""

    date: str
    versions: dict[str, str]
    machine: str
    threads: int
    seconds: float


@dataclass(frozen=True)
class AuditResult:
    """Everything an audit found; `print` it for a table, `to_json` and `read_result` for scripts."""

    subject: Subject
    settings: AuditSettings
    overall: Overall
    verdicts: tuple[Verdict, ...]
    runs: tuple[Run, ...]
    asymmetry: Asymmetry
    power: Finding | None
    difference: Difference | None
    costs: Costs
    ladder: tuple[Rung, ...]
    thresholds: tuple[Threshold, ...]
    provenance: Provenance

    def run(self, forces: str) -> Run | None:
        """The run with these forces, if there was one."""
        return next((run for run in self.runs if run.forces == forces), None)

    def __str__(self) -> str:
        from mlcalc.audit.text import render_text

        return render_text(self)

    def to_json(self) -> str:
        """The result as JSON that fits the schema; numbers that are not finite become null."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **_plain(asdict(self))}, indent=1, allow_nan=False)

    def write_json(self, path: str | Path) -> None:
        """Write `to_json` into a file."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")


def schema() -> dict[str, Any]:
    """The published JSON Schema of result.json (draft 2020-12)."""
    text = resources.files("mlcalc.audit").joinpath("result.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


def read_result(path: str | Path) -> AuditResult:
    """Read a result.json, validated against the schema.

    Raises
    ------
    UsageError
        if the file is missing, is no JSON, or does not fit the schema; the message names the place.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    path = Path(path)
    if not path.is_file():
        raise UsageError(f"result: no file {path}; give the result.json that an audit wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"result: {path} is not JSON ({error}); run the audit again") from error
    misfit = best_match(Draft202012Validator(schema()).iter_errors(content))
    if misfit is not None:
        raise UsageError(
            f"result: {path} does not fit the schema at {misfit.json_path} ({misfit.message[:200]}); "
            "run the audit again"
        )
    return _build(AuditResult, content)


def _plain(value: Any) -> Any:
    """Only what JSON knows: NaN and infinities become None, tuples lists."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _build(kind: Any, value: Any) -> Any:
    """The inverse of `asdict`, led by type hints; null becomes NaN where a number must stand."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _build(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return tuple(_build(arguments[0], entry) for entry in value)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value})
    if kind is float:
        return math.nan if value is None else float(value)
    return value
