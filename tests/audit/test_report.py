"""The report: one file, nothing from the network, rendered by a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from made_up import good_evidence, made_up_evidence, made_up_result, made_up_run

from mlcalc.audit.report import render_report, write_report
from mlcalc.errors import UsageError


def browser() -> str:
    """Headless Chromium's path; without one the test is skipped, but fails where CI promises one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("no Chromium: install it (apt-get install chromium)")
    pytest.skip("no Chromium here")


def rendered(path, profile) -> str:
    """The DOM after Chromium has read the file with the network switched off."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update"]
    command += ["--disable-background-networking", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_browser_shows_verdict_and_charts(tmp_path):
    path = tmp_path / "report.html"
    write_report(made_up_result(good_evidence()), path)
    dom = rendered(path, tmp_path / "profile")
    assert "Safe with multiple time stepping (M = 8)" in dom
    assert dom.count("<svg") == 5
    assert "<polyline" in dom
    assert 'class="chip unsafe"' in dom


@pytest.mark.parametrize(
    "evidence",
    [
        good_evidence(),
        made_up_evidence(made_up_run("conservative", 0.006, 0.011)),
        made_up_evidence(made_up_run("direct", 38.0, 1.5)),
    ],
    ids=["hybrid", "conservative only", "direct only"],
)
def test_nothing_comes_from_outside(evidence):
    page = render_report(made_up_result(evidence))
    assert not re.search(r"https?://|@import|<script|<link(?! rel=\"icon\" href=\"data:,\")|<img|<iframe", page)
    assert not re.search(r"url\(", page)
    assert "None" not in page
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+", "", page)


def test_all_thresholds_and_provenance_are_listed():
    result = made_up_result(good_evidence())
    page = render_report(result)
    for threshold in result.thresholds:
        assert threshold.name.replace("_", " ") in page
    assert result.subject.fingerprint in page
    assert "2026-01-01" in page


def test_names_are_escaped():
    page = render_report(made_up_result(good_evidence(), name="<script>alert(1)</script>"))
    assert "<script>" not in page


def test_missing_measurements_leave_no_hole():
    evidence = good_evidence()
    nothing = replace(evidence.runs[0], drift=None, heating=None)
    page = render_report(made_up_result(replace(evidence, runs=(nothing,), ladder=(), difference=None)))
    assert "not measured" in page


def test_unwritable_path(tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        write_report(made_up_result(good_evidence()), tmp_path / "no" / "such" / "folder.html")
