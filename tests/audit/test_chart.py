"""Charts: ticks, clamping, and SVG that parses."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from mlcalc.audit.chart import Axis, Curve, Mark, Rule, chart, forest, linear_axis, log_axis, number


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-3, 7, [-2, 0, 2, 4, 6]), (0, 150, [0, 50, 100, 150])],
)
def test_linear_ticks_are_round(low, high, ticks):
    assert Axis("", low, high).ticks() == pytest.approx(ticks)


def test_log_axis_has_whole_decades():
    axis = log_axis("", [0.03, 40.0, -1.0, math.nan])
    assert (axis.low, axis.high) == pytest.approx((0.01, 100.0))
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert axis.place(1.0) == pytest.approx(0.5)


def test_values_beyond_an_axis_stand_at_its_end():
    assert Axis("", 0, 1).place(-5) == 0
    assert Axis("", 0.1, 1, log=True).place(-5) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (-0.5, "−0.5"), (1e-5, "10⁻⁵"), (2e6, "2·10⁶"), (0.30000000000000004, "0.3")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_chart_is_well_formed_and_skips_what_is_not_finite():
    curve = Curve("direct", [0, 1, 2], [1.0, math.nan, 3.0], [0.1, 0.1, math.inf])
    svg = chart("<T>", Axis("x", 0, 2), linear_axis("y", [1, 3]), [curve], [Rule(2.0, "limit")])
    root = ElementTree.fromstring(svg)
    assert len(root.findall("circle")) == 2
    assert "nan" not in svg


def test_constant_and_empty_data_make_an_axis():
    for values in ([1.0, 1.0], [], [math.nan]):
        svg = chart("T", Axis("x", 0, 1), linear_axis("y", values), [Curve("mts", [0.0], [1.0])])
        ElementTree.fromstring(svg)


def test_forest_has_a_row_for_each_mark():
    marks = [Mark("mts", "one", 0.01, 0.1), Mark("direct", "two", 30.0, 1.0)]
    root = ElementTree.fromstring(forest("T", log_axis("x", [0.01, 30.0]), marks, (0.05, 1.0)))
    assert len(root.findall("circle")) == 2
    assert len(root.findall("rect")) == 3
