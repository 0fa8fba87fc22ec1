"""result.json: fits its schema, survives a round trip, and is refused when it is damaged."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator
from made_up import good_evidence, made_up_result, made_up_run

from mlcalc.audit.result import read_result, schema
from mlcalc.errors import UsageError


def test_schema_is_a_schema():
    Draft202012Validator.check_schema(schema())


def test_round_trip(tmp_path):
    result = made_up_result(good_evidence())
    result.write_json(tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result


def test_not_a_number_becomes_null_and_comes_back(tmp_path):
    run = made_up_run("conservative", 0.0, math.nan)
    evidence = good_evidence()
    result = made_up_result(replace(evidence, runs=(run, *evidence.runs[1:])))
    result.write_json(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert "NaN" not in text
    back = read_result(tmp_path / "result.json").runs[0]
    assert back.drift is not None
    assert math.isnan(back.drift.standard_error)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content["overall"].update(status="fine"), r"\$.overall.status"),
        (lambda content: content.pop("costs"), "costs"),
        (lambda content: content.update(schema_version=2), "schema_version"),
        (lambda content: content["runs"][0]["series"].update(energy="none"), "energy"),
    ],
)
def test_damage_is_refused_with_its_place(tmp_path, damage, words):
    content = json.loads(made_up_result(good_evidence()).to_json())
    damage(content)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words):
        read_result(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        read_result(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        read_result(tmp_path / "x.json")


def test_text_fits_80_columns_and_names_the_verdict():
    text = str(made_up_result(good_evidence(), name="a potential with a rather long name, longer than most are"))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Safe with multiple time stepping" in text
