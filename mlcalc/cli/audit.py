"""`mlcalc audit`: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mlcalc.cli.arguments import DURATION, INNER, SEED, TEMPERATURE, TIMESTEP, add_command, add_potential


def add_audit(commands: Any) -> None:
    from mlcalc.audit.settings import AuditSettings

    default = AuditSettings()
    one = add_command(commands, "audit", "find out which forces of a potential may be used for what")
    add_potential(one)
    one.add_argument("--output", default="mlcalc-audit", metavar="DIR", help="where to write (default: mlcalc-audit)")
    one.add_argument("--json", metavar="FILE", help="the result (default: DIR/result.json)")
    one.add_argument("--report", metavar="FILE", help="the report (default: DIR/report.html)")
    one.add_argument("--temperature-K", type=TEMPERATURE, default=default.temperature_K, metavar="T")
    one.add_argument("--inner-timestep-fs", type=TIMESTEP, default=default.inner_timestep_fs, metavar="DT")
    one.add_argument("--n-inner", type=INNER, default=default.n_inner, metavar="M", help="inner steps (default: 8)")
    one.add_argument(
        "--duration-ps", type=DURATION, metavar="T", help=f"of each run (default: {default.duration_ps:g})"
    )
    one.add_argument("--seed", type=SEED, default=default.seed, metavar="N")
    one.add_argument("--quick", action="store_true", help="a few frames of everything, to see that it works")
    one.add_argument(
        "--fail-on",
        choices=("unsafe", "warning", "never"),
        default="never",
        help="exit with 3 when the overall verdict is unsafe; warning: when it is anything but safe (default: never)",
    )
    one.set_defaults(action=audit)


def audit(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from mlcalc.audit.progress import Reporter
    from mlcalc.audit.report import write_report
    from mlcalc.audit.result import SAFE, UNSAFE
    from mlcalc.audit.run import audit
    from mlcalc.audit.settings import AuditSettings
    from mlcalc.audit.text import render_text
    from mlcalc.cli.inputs import load_potential, read_structure, writable

    json_path, report_path = (
        writable(given or Path(arguments.output, usual), name, make_folder=not given)
        for name, given, usual in (("json", arguments.json, "result.json"), ("report", arguments.report, "report.html"))
    )
    make = AuditSettings.quick if arguments.quick else AuditSettings
    chosen = {name: getattr(arguments, name) for name in ("temperature_K", "inner_timestep_fs", "n_inner", "seed")}
    if arguments.duration_ps is not None:
        chosen["duration_ps"] = arguments.duration_ps
    settings = make(**chosen)
    atoms, name = read_structure(arguments.structure)
    potential = load_potential(arguments)
    with Reporter() as progress:
        result = audit(potential, atoms, settings, progress, structure_name=name)
    result.write_json(json_path)
    write_report(result, report_path)
    print(render_text(result, colour=sys.stdout.isatty()))
    print(f"\nreport  {report_path}\nresult  {json_path}")
    status = result.overall.status
    failed = {"unsafe": status == UNSAFE, "warning": status != SAFE, "never": False}[arguments.fail_on]
    return 3 if failed else 0
