"""What gpu.py found beside what was asked for, in Markdown, and the record in JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from run import median_and_error
from throughput_report import REFERENCE, outside, quicker
from throughput_report import origin as origin
from throughput_report import stem as stem

_Record = dict[str, Any]
#: what, asked, got, whether it is met (None: it was not measured)
Row = tuple[str, str, str, bool | None]
_MISSING = "not measured"
_DIRECT = "evaluation | eager | direct"


def write(options: argparse.Namespace, record: _Record) -> None:
    """Both files."""
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    name = stem("gpu" if options.device == "cuda" else "gpu-tried", options.device)
    record["sizes"] = _sizes(folder, record)
    (folder / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    (folder / f"{name}.md").write_text(table(record))


def _sizes(folder: Path, record: _Record) -> list[Any]:
    """What throughput.py found, cut short or not."""
    path = folder / record["parts"].get("throughput", {}).get("file", "")
    return json.loads(path.read_text())["sizes"] if path.is_file() else []


def table(record: _Record) -> str:
    """In Markdown."""
    facts = ", ".join(f"{name} {record[name]}" for name in ("date", "device", "torch", "python", "mlcalc", "potential"))
    made = [f"# Asked and got\n\n{facts}{'; a quick try of small sizes' if record['quick'] else ''}", ""]
    made += ["| what | asked | got | met |", "|---|---|---|---|"]
    for what, asked, got, met in rows(record):
        made.append(f"| {what} | {asked} | {got} | {'' if met is None else 'yes' if met else 'no'} |")
    made += ["", "| part | seconds | |", "|---|---|---|"]
    for name, part in record["parts"].items():
        remark = "" if not part.get("status") else f"status {part['status']}: {_last_line(part)}"
        made.append(f"| {name} | {part['took_s']} | {remark} |")
    output = record["parts"].get("compiled", {}).get("output", "")
    return "\n".join([*made, "", *(row for row in output.splitlines() if row.startswith("|"))]) + "\n"


def _last_line(part: _Record) -> str:
    return (str(part.get("output", "")).strip().splitlines() or [""])[-1].replace("|", "\\|")


def rows(record: _Record) -> Iterator[Row]:
    """What was asked for, in this order whatever was measured."""
    parts = record["parts"]
    tests = parts.get("tests")
    got = _MISSING if tests is None else (*tests.get("summary", []), _MISSING)[0].strip("= ")
    yield "tests that need a GPU", "all pass", got, _passed(tests)
    yield from _outside(record)
    yield from _peers(record)
    yield from _batch(parts.get("batch", {}))
    yield from _multiple_steps(record)
    yield from _asymmetry(parts.get("λ", {}), 3 if record["on_gpu"] else 60)
    yield from _growth(parts.get("growth", {}).get("costs", {}))


def _passed(tests: _Record | None) -> bool | None:
    """None where all were skipped."""
    if tests is None or (tests.get("status") == 0 and "passed" not in str(tests.get("summary"))):
        return None
    return tests.get("status") == 0


def _at(record: _Record, atoms: int) -> Any:
    sizes = [one for one in record.get("sizes", []) if one["atoms"] == atoms and one["replicas"] == 1]
    return sizes[0] if sizes else None


def _outside(record: _Record) -> Iterator[Row]:
    size, asked = _at(record, 192), "< 5 % of a direct evaluation (asked of a CPU)"
    for forces in ("direct", "conservative", "MTS 8"):
        name, what = f"native | eager | {forces}", f"192 atoms, {forces}: time outside the potential, a step"
        if size is None or name not in size["outside"] or _DIRECT not in size["times"]:
            yield what, asked, _MISSING, None
            continue
        share = outside(size, name, over=_DIRECT)
        yield what, asked, f"{median_and_error(100 * share)} %", bool(np.median(share) < 0.05)


def _peers(record: _Record) -> Iterator[Row]:
    for atoms in (192, 3072):
        for peer in ("torch-sim", "ASE"):
            what = f"{atoms} atoms, conservative: native against {peer}"
            yield _ratio(_at(record, atoms), what, "> 1", (REFERENCE, f"{peer} | eager | conservative"), 1.0)


def _multiple_steps(record: _Record) -> Iterator[Row]:
    size = _at(record, 192)
    for code in ("eager", "compiled", "eager, replayed", "compiled, replayed"):
        pair = f"native | {code} | MTS 8", f"native | {code} | conservative"
        yield _ratio(size, f"192 atoms, {code}: MTS 8 against conservative", "≥ 2", pair, 2.0)
    for code in ("compiled", "compiled, replayed"):
        pair = f"native | {code} | MTS 8", REFERENCE
        yield _ratio(size, f"192 atoms: MTS 8, {code}, against conservative, eager", "aim at 3", pair, 3.0)


def _ratio(size: Any, what: str, asked: str, pair: tuple[str, str], least: float) -> Row:
    ratio = None if size is None else quicker(size, *pair)
    if ratio is None:
        why = "" if size is None else next((size["failed"][name] for name in pair if name in size["failed"]), "")
        return what, asked, f"{_MISSING}{f' ({why})' if why else ''}".replace("|", "\\|"), None
    return what, asked, median_and_error(ratio), bool(np.median(ratio) >= least)


def _batch(found: _Record) -> Iterator[Row]:
    ratios = found.get("ratios")
    what = f"{found.get('replicas', 64)} replicas of 192 atoms as one batch against one after the other, MTS 8"
    if ratios:
        yield what, "≥ 8", median_and_error(np.array(ratios)), bool(np.median(ratios) >= 8)
    else:
        yield what, "≥ 8", _MISSING, None


def _asymmetry(found: _Record, most_s: float) -> Iterator[Row]:
    runs = {int(n): values for n, values in found.items() if n.isdigit()}
    if 192 not in runs:
        yield "192 atoms: λ to 5 %", f"≤ 64 pairs, < {most_s} s", _MISSING, None
    for n, values in runs.items():
        got = "; ".join(
            f"{one['λ']:.5f} ± {one['error']:.5f}, {one['pairs']} pairs, {one['seconds']:.2f} s"
            f", {one['peak_mib'] / 1024:.1f} GiB"
            for one in values
        )
        small = n == 192
        met = all(one["pairs"] <= 64 and (one["seconds"] < most_s or not small) for one in values)
        yield f"{n} atoms: λ to 5 %", f"≤ 64 pairs, < {most_s} s" if small else "≤ 64 pairs, in one call", got, met


def _growth(costs: dict[str, Any]) -> Iterator[Row]:
    sizes = sorted({int(name.split()[1]) for name in costs})
    for what in ("list", "direct", "conservative"):
        title = f"growth from {sizes[0]} to {sizes[-1]} atoms, {what}" if sizes else f"growth, {what}"
        small, large = (costs.get(f"{what} {sizes[k]}") if sizes else None for k in (0, -1))
        if not small or not large or len(sizes) < 2:
            yield title, "time and memory ≤ 1.1 × linear", _MISSING, None
            continue
        if min(small) <= 0 or min(large) <= 0:
            yield title, "time and memory ≤ 1.1 × linear", f"{_MISSING}: too small to tell", None
            continue
        over = [mine / least * sizes[0] / sizes[-1] for mine, least in zip(large, small, strict=True)]
        got = f"time {over[0]:.2f}, memory {over[1]:.2f} ({large[0]:.2f} s, {large[1] / 2**30:.2f} GiB)"
        yield title, "time and memory ≤ 1.1 × linear", got, max(over) <= 1.1
