"""Curves: where points lie, what is left out, and how series stay apart without colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.report.charts import Series, line_chart


def points_of(markup: str) -> list[tuple[float, float]]:
    found = re.findall(r'class="dot c0" d="M([\d.-]+) ([\d.-]+)', markup.partition("<ul")[0])
    return [(float(x), float(y)) for x, y in found]


def test_equal_steps_lie_at_equal_distances_and_higher_values_higher() -> None:
    chart = line_chart([Series("a", [1, 2, 3], [0.0, 0.5, 1.0])], x_label="x", y_label="y")
    (x1, y1), (x2, y2), (x3, y3) = points_of(chart)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y1 > y2 > y3


def test_a_logarithmic_axis_sets_factors_apart() -> None:
    chart = line_chart([Series("a", [0, 1, 4, 16], [0.1] * 4)], x_label="x", y_label="y", log_x=True)
    xs = [x for x, _ in points_of(chart)]
    assert len(xs) == 3  # 0 has no place
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_series_differ_in_more_than_colour_and_groups_share_one() -> None:
    series = [Series(f"s{i}", [0, 1], [0, i], group="g" if i > 2 else "") for i in range(5)]
    chart = line_chart(series, x_label="x", y_label="y")
    keys = re.findall(r'<svg class="key".*?</svg>', chart)
    assert len(set(keys)) == 5
    colours = [re.search(r"dot (c\d)", key)[1] for key in keys]  # type: ignore[index]
    assert colours == ["c0", "c1", "c2", "c3", "c3"]


def test_there_is_no_chart_without_a_point() -> None:
    nothing = Series("a", [], [])
    undefined = Series("b", [1.0], [float("nan")])
    assert line_chart([nothing, undefined], x_label="x", y_label="y") == ""


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=8),
    st.text(max_size=20),
    st.booleans(),
    st.booleans(),
)
def test_any_numbers_and_names_make_a_picture_that_is_whole(
    points: list[tuple[float, float]], name: str, log_x: bool, percent: bool
) -> None:
    series = Series(name, [x for x, _ in points], [y for _, y in points], labels=[name] * len(points))
    chart = line_chart([series], x_label=name, y_label="y", log_x=log_x, percent=percent)
    if chart:
        text = "".join(c for c in chart if c.isprintable() and ord(c) < 0xD800)
        ET.fromstring(text)
        assert "nan" not in re.sub(
            r"<text.*?</text>|<title>.*?</title>|<li>.*?</li>|aria-label=\".*?\"", "", text
        )
