"""The protocol: arms change one thing, statistics over records by hand, tables for one and several seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm import search
from rlprm.errors import MismatchError
from rlprm.runtime.settings import declarations
from rlprm.types import Split
from studies.protocol import measure, records, rows
from studies.protocol.arms import CLONE, GROUPS, REFERENCE
from studies.protocol.compare import detectable, difference, primary
from studies.protocol.environments import ENVIRONMENTS, RERANKING
from studies.protocol.report import section
from studies.protocol.run import plan, run
from studies.protocol.unit import Unit, pool_config, prm_config
from tests.toys import protocol as toy

AGENTPRM, SCALAR = ("beam", REFERENCE), ("beam", "scalar")


def _unit(environment: str, group: str, seed: int = 0) -> Unit:
    return Unit(ENVIRONMENTS[environment], group, seed, Path("runs/none"))


def _settings(unit: Unit, name: str, training: int = 0) -> dict[str, Any]:
    config = prm_config(unit, name, training)
    return {field: getattr(config, field) for field in declarations(config)}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_reference_is_agentprm_and_every_arm_differs_from_it_in_one_thing(
    environment: str, group: str
) -> None:
    unit = _unit(environment, group)
    reference = _settings(unit, REFERENCE)
    assert (reference["head"], reference["label_estimator"], reference["beta"]) == ("lm", "td_gae", 1.0)
    assert reference["label_estimator_kwargs"] == {"lam": 0.95}
    one_thing = {
        frozenset({"head"}), frozenset({"beta"}), frozenset({"lm_scale"}), frozenset({"learning_rate"}),
        frozenset({"label_estimator_kwargs"}), frozenset({"label_estimator", "label_estimator_kwargs"}),
        frozenset({"head", "learning_rate"}),  # the rates of another head
        frozenset({"label_estimator", "label_estimator_kwargs", "beta"}),  # returns: plain regression
        frozenset({"label_file", "beta"}),  # Monte-Carlo labels: plain regression
        frozenset(),  # a clone in the PRM's place
    }  # fmt: skip
    for name, arm in unit.members.arms.items():
        changed = {key for key, value in _settings(unit, name).items() if value != reference[key]} - {
            "output_dir"
        }
        assert frozenset(changed) in one_thing, (name, changed)
        assert changed or arm.kind == CLONE


def test_two_trainings_differ_in_their_seed_alone() -> None:
    unit = _unit("babyai", "primary", seed=3)
    first, second = (_settings(unit, "outcome", training) for training in (0, 1))
    assert {key for key in first if first[key] != second[key]} == {"seed", "output_dir"}
    assert (first["seed"], second["seed"]) == (3, 1003)


def test_seeds_have_tasks_of_their_own() -> None:
    first, last = (pool_config(_unit("babyai", "primary", seed), Split.TEST, 16) for seed in (0, 3))
    assert (first.first_task, first.num_tasks) == (0, 256)
    assert (last.first_task, last.num_tasks) == (768, 256)
    assert pool_config(_unit("babyai", "primary", 3), Split.DEV, 16).num_tasks == 192


def test_searches_are_strategies_that_exist() -> None:
    for group in GROUPS.values():
        for wanted in group.searches.values():
            assert wanted.strategy in search.available()


def test_a_difference_over_seeds_is_of_per_seed_means() -> None:
    found = [
        toy.record(0, {REFERENCE: [1, 1, 0, 0], "scalar": [1, 0, 0, 0]}),  # + 25 points
        toy.record(1, {REFERENCE: [1, 1, 1, 0], "scalar": [0, 0, 1, 0]}),  # + 50 points
    ]
    compared = difference(found, "d", AGENTPRM, SCALAR)
    assert compared.seeds == (25.0, 50.0)
    assert (compared.mean, compared.over) == (37.5, "seeds")
    half_width = 12.706205 * 12.5  # t(1) at 97.5 %; deviation 25 / √2, error 12.5
    assert (compared.low, compared.high) == pytest.approx((37.5 - half_width, 37.5 + half_width), abs=1e-3)


def test_one_seed_has_an_interval_over_tasks_and_no_p_value() -> None:
    compared = difference([toy.record(0, {REFERENCE: [1, 1, 0, 0]})], "d", AGENTPRM, SCALAR)
    assert (compared.mean, compared.over, compared.p, compared.deviation) == (50.0, "tasks", None, None)
    assert detectable([compared]) == {}


def test_finite_goals_are_drawn_with_the_seeds() -> None:
    goals = ["wood", "wood", "stone"]
    found = [toy.record(seed, {REFERENCE: [1, 1, 0]}, goals) for seed in (0, 1)]
    compared = difference(found, "d", AGENTPRM, SCALAR)
    assert compared.over == "seeds and goals"
    assert compared.mean == pytest.approx(200 / 3)
    assert (compared.low, compared.high) == (0.0, 100.0)  # all draws of one of the two goals


def test_primary_comparisons_are_corrected_together() -> None:
    found = [toy.record(seed, {REFERENCE: [1.0] * (3 + seed) + [0.0] * (5 - seed)}) for seed in (0, 1, 2)]
    compared = primary(found, {"scalar": "scalar", "outcome": "outcome"})
    assert [d.corrected for d in compared] == pytest.approx([2 * d.p for d in compared if d.p is not None])
    assert set(detectable(compared)) == {d.name for d in compared}


@pytest.mark.parametrize(("seeds", "said"), [(1, "one run"), (3, "3 seeds"), (10, "10 seeds")])
def test_the_tables_show_every_seed(seeds: int, said: str) -> None:
    successes = {REFERENCE: [1, 1, 0, 1, 0], "scalar": [1, 0, 0, 0, 0]}
    text = section([toy.record(seed, successes) for seed in range(seeds)])
    assert f"### babyai, primary: {said}" in text
    assert "| AgentPRM − about scalar | +40.0 [" in text
    assert ", ".join(["+40.0"] * seeds) in text
    assert ("one run |" in text) == (seeds == 1)
    header = next(line for line in text.splitlines() if "p (Holm)" in line)
    assert text.count(header) == 1, "p values belong to the primary comparisons only"


def test_no_record_is_said() -> None:
    assert section([]) == "No unit has been recorded yet."


def test_records_of_other_settings_are_not_put_together() -> None:
    first, second = (toy.record(seed, {REFERENCE: [1, 0]}) for seed in (0, 1))
    second["settings"]["policy"]["size"] = "m"
    with pytest.raises(MismatchError, match=r"policy\.size 's', 'm'"):
        section([first, second])


def test_a_written_record_has_its_numbers_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    record = {"successes": [0.5, 1.0, 0.0, 1e-06], "names": ["a", "b"], "empty": []}
    records.write(file, record)
    assert '"successes": [0.5, 1.0, 0.0, 1e-06]' in file.read_text()
    assert json.loads(file.read_text()) == record


def test_the_plan_counts_units_and_minutes(tmp_path: Path) -> None:
    for seed in (0, 1):
        records.write(tmp_path / f"babyai-primary-s{seed}.json", toy.record(seed, {REFERENCE: [1, 0]}))
    units = [_unit("babyai", "primary", seed) for seed in (0, 1, 2, 3)]
    assert plan(units, tmp_path)[1:3] == [
        "babyai-primary-s1: done, with other recipes than today's",
        "babyai-primary-s2: left, about 60 minutes",
    ]
    assert plan(units, tmp_path)[-1] == "2 units done, 2 left, 120 minutes left on one core"
    assert "1 units of unknown duration" in plan([_unit("math", "head")], tmp_path)[-1]


@pytest.mark.slow
def test_a_unit_of_a_reranking_environment_has_no_beams(tmp_path: Path) -> None:
    environment = replace(toy.corridor(tmp_path / "recipes"), kind=RERANKING)
    file = tmp_path / "record.json"
    run(Unit(environment, "head", 0, tmp_path / "unit", scale=0.05), file, keep=True)
    (found,) = records.read_all(tmp_path)
    assert (found["beam"], found["equal_cost"], found["search"]) == ({}, {}, {})
    assert set(found["best_of_n"]) >= {REFERENCE, "tau0.03", "policy_confidence", "shortest", "random"}
    assert (tmp_path / "unit").exists()
    assert "### corridor, head: one run" in section([found])


@pytest.mark.slow
def test_a_unit_runs_from_nothing_is_resumed_and_leaves_its_record_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = Unit(toy.corridor(tmp_path / "recipes"), "primary", 1, tmp_path / "unit", scale=0.05)
    file = tmp_path / "records" / f"{unit.name}.json"
    with monkeypatch.context() as patch:
        patch.setattr(rows, "_equal", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(unit, file)
    assert not file.exists()
    with monkeypatch.context() as patch:
        patch.setattr(measure, "evaluate_discrimination", _interrupted)  # nothing is measured again
        run(unit, file)
    assert not unit.folder.exists()
    (found,) = records.read_all(file.parent)
    count = len(found["tasks"])
    assert found["seed"] == 1
    assert set(found["arms"]) == {REFERENCE, *GROUPS["primary"].arms}
    for part in ("best_of_n", "beam"):
        for name in found["arms"]:
            of_arm = found[part][name]
            assert len(of_arm["successes"]) == count
            assert len(of_arm["trainings"]) == 2
            assert sum(of_arm["trainings"]) / 2 == pytest.approx(sum(of_arm["successes"]) / count, abs=1e-4)
            assert of_arm["aggregation"] in of_arm["dev"]
    assert found["made"]["processor"]
    assert "one run" in section([found])


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
