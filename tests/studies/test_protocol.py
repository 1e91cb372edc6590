"""The protocol: arms change one thing, statistics over records by hand, tables for one and several seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm import search
from rlprm.errors import ConfigError, MismatchError
from rlprm.evaluation.baselines import RERANKING
from rlprm.functional.statistics.power import detectable_difference
from rlprm.runtime.settings import declarations
from rlprm.stages.settings import SFTStageConfig
from rlprm.types import Split
from studies.protocol import measure, records, report, rows
from studies.protocol.arms import CLONE, GROUPS, PRIMARY, RATES, REFERENCE
from studies.protocol.compare import PLANNED_SEEDS, detectable, difference, primary
from studies.protocol.environments import ENVIRONMENTS
from studies.protocol.report import section
from studies.protocol.run import plan, run
from studies.protocol.unit import Unit, clone_config, digest_of_recipes, pool_config, prm_config
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
    head = "scalar" if group == "pretrained" else "lm"
    assert (reference["head"], reference["label_estimator"], reference["beta"]) == (head, "td_gae", 1.0)
    assert reference["label_estimator_kwargs"] == {"lam": 0.95}
    one_thing = {
        frozenset({"head"}), frozenset({"beta"}), frozenset({"lm_scale"}), frozenset({"learning_rate"}),
        frozenset({"label_estimator_kwargs"}), frozenset({"label_estimator", "label_estimator_kwargs"}),
        frozenset({"head", "learning_rate"}),  # the rates of another head
        frozenset({"label_estimator", "label_estimator_kwargs", "beta"}),  # returns: plain regression
        frozenset({"label_file", "beta"}),  # Monte-Carlo labels: plain regression
        frozenset(),  # a clone in the PRM's place
    }  # fmt: skip
    if group == "pretrained":  # one thing of the arm `lm`
        one_thing.add(frozenset({"head", "label_estimator", "label_estimator_kwargs"}))
    for name, arm in unit.members.arms.items():
        changed = {key for key, value in _settings(unit, name).items() if value != reference[key]} - {
            "output_dir"
        }
        assert frozenset(changed) in one_thing, (name, changed)
        assert changed or arm.kind == CLONE


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_clone_differs_from_the_policys_training_as_its_recipe_says(environment: str) -> None:
    unit = _unit(environment, "primary")
    prm = prm_config(unit, CLONE, 0)
    clone, recipe = clone_config(unit, prm), unit.config(SFTStageConfig, "clone", {})
    different = {name for name in declarations(clone) if getattr(clone, name) != getattr(recipe, name)}
    assert different <= {"trajectories", "model", "output_dir"}
    assert (clone.learning_rate, clone.num_train_epochs) == (prm.learning_rate, prm.num_train_epochs)
    context = {"tiny": 2048, "smollm2-135m": 8192}[unit.environment.model]
    assert clone.max_length == context  # of model and PRM: no trajectory is left out of one alone


def test_the_page_says_whether_rates_were_chosen() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/protocol.md").read_text(encoding="utf-8")
    recorded = records.read_all(root / records.FOLDER, group="rates")
    assert ("No pilot of rates has been recorded yet." in page) == (not recorded)
    assert recorded or set(RATES.values()) == {1.0}


@pytest.mark.parametrize("environment", ["babyai", "math", "textcraft", "webshop"])
def test_both_heads_and_the_clone_have_one_rate_until_rates_are_chosen(environment: str) -> None:
    unit = _unit(environment, "primary")
    rates = {prm_config(unit, name, 0).learning_rate for name in (REFERENCE, "scalar")}
    rates.add(clone_config(unit, prm_config(unit, CLONE, 0)).learning_rate)
    assert rates == {1e-4 if environment == "math" else 1e-3}


def test_a_change_of_a_base_of_a_recipe_changes_the_digest(tmp_path: Path) -> None:
    unit = Unit(toy.corridor(tmp_path / "recipes"), "primary", 0, tmp_path)
    recipe, before = tmp_path / "recipes/train_prm_tiny.yaml", digest_of_recipes(unit)
    (tmp_path / "recipes/_base.yaml").write_text("lm_scale: 0.1\n")
    recipe.write_text("base: _base.yaml\n" + recipe.read_text())
    with_base = digest_of_recipes(unit)
    (tmp_path / "recipes/_base.yaml").write_text("lm_scale: 0.2  # a remark\n")
    assert len({before, with_base, digest_of_recipes(unit)}) == 3


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


def test_searches_rank_by_the_rule_of_the_references_beam_and_may_take_its_steps() -> None:
    beam = {"aggregation": "min", "costs": {"env_steps": 41.6}}
    searches = GROUPS["search"].searches
    assert rows.search_settings(searches["halving"], beam) == {"aggregation": "min", "budget": 42}
    assert rows.search_settings(searches["puct"], beam) == {"aggregation": "last", "budget": 42}
    assert rows.search_settings(searches["step_best_of_4"], beam) == {"aggregation": "min", "k": 4}
    assert rows.search_settings(searches["beam_mean"], beam)["aggregation"] == "mean"


def test_step_searches_of_a_reranking_environment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got search with math"):
        run(_unit("math", "search"), tmp_path / "r.json")


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


def test_one_seed_of_finite_goals_has_an_interval_over_goals() -> None:
    found = toy.record(0, {REFERENCE: [1, 1, 1, 0]}, ["wood", "wood", "wood", "stone"])
    compared = difference([found], "d", AGENTPRM, SCALAR)
    assert (compared.mean, compared.low, compared.high) == (75.0, 0.0, 100.0)  # one of two goals, or both
    assert compared.over == "goals"


def test_with_few_seeds_of_finite_goals_the_interval_is_that_of_t() -> None:
    goals = ["wood", "stone"]
    found = [toy.record(s, {REFERENCE: both}, goals) for s, both in enumerate(([1, 1], [0, 0]))]
    compared = difference(found, "d", AGENTPRM, SCALAR)
    half_width = 12.706205 * 50.0  # t(1) at 97.5 %; a bootstrap of two seeds ends at 0 and 100
    assert (compared.low, compared.high) == pytest.approx((50 - half_width, 50 + half_width), abs=1e-3)
    assert compared.p == pytest.approx(0.5, abs=0.01)


def test_the_detectable_difference_of_three_seeds_is_that_of_the_planned_ones() -> None:
    found = [toy.record(seed, {REFERENCE: [1.0] * (3 + seed) + [0.0] * (5 - seed)}) for seed in (0, 1, 2)]
    (compared,) = primary(found, {"scalar": "scalar"})
    assert compared.deviation is not None
    assert detectable([compared])[compared.name] == pytest.approx(
        detectable_difference(deviation=compared.deviation, seeds=PLANNED_SEEDS, alpha=0.05)
    )


def test_the_best_free_baseline_is_chosen_on_dev_tasks() -> None:
    found = toy.record(0, {REFERENCE: [1, 1, 0, 0], "transcript": [1, 0, 0, 0], "random": [1, 1, 1, 0]})
    found["beam"]["transcript"]["dev"], found["beam"]["random"]["dev"] = {"last": 0.4}, {"last": 0.3}
    assert "best free baseline there (`transcript`) | +25.0" in section([found])


def test_a_reference_that_costs_less_than_a_search_is_not_called_equal() -> None:
    found = toy.record(0, {REFERENCE: [1, 0]})
    assert "until `transcript` shows success, at most 7.5 episodes, at equal tokens" in section([found])
    next(iter(found["equal_cost"].values()))["beyond_pool"] = True
    assert "at equal tokens" not in section([found])
    assert "which costs fewer tokens: the pool ends there" in section([found])


def test_fewer_comparisons_may_stay_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [toy.record(seed, {REFERENCE: [1.0] * (3 + seed) + [0.0] * (5 - seed)}) for seed in (0, 1, 2)]
    assert set(PRIMARY) == set(GROUPS["primary"].arms)
    assert section(found).count("| AgentPRM − about ") == len(PRIMARY)
    monkeypatch.setattr(report, "REDUCED", {"babyai": (CLONE, "returns_beta0")})
    text = section(found)
    assert text.count("| AgentPRM − about ") == 2
    assert "| about outcome − AgentPRM |" in text
    assert "| about scalar − AgentPRM |" in text


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


def test_a_unit_that_stopped_early_says_what_is_not_made() -> None:
    whole, stopped = (toy.record(seed, {REFERENCE: [1, 0], "scalar": [0, 0]}) for seed in (0, 1))
    for part in ("arms", "best_of_n", "beam", "quality"):
        stopped[part] = {name: row for name, row in stopped[part].items() if name != "scalar"}
    for arm in stopped["arms"].values():
        arm["training"] = arm["training"][:1]
    for record in (whole, stopped):
        record["group"] = "pretrained"
    stopped["left"] = ["scalar-0", "agentprm-1"]
    assert "Not made yet: agentprm-1, scalar-0." in section([stopped])
    assert " 1 training of each reward model. " in section([stopped])
    both = section([whole, stopped])
    assert " 1 or 2 trainings of each reward model, averaged first. " in both
    for text in ("best of 16, `scalar`", "about scalar − AgentPRM"):
        assert text in section([whole])
        assert text not in both


def test_no_record_is_said() -> None:
    assert section([]) == "No unit has been recorded yet."


def test_records_of_other_settings_are_not_put_together() -> None:
    first, second = (toy.record(seed, {REFERENCE: [1, 0]}) for seed in (0, 1))
    second["settings"]["policy"]["size"] = "m"
    with pytest.raises(MismatchError, match=r"policy\.size 's', 'm'"):
        section([first, second])
    second["settings"] = {}
    with pytest.raises(MismatchError, match=r"policy\.size 's', None"):
        section([first, second])


def test_a_trial_is_no_result(tmp_path: Path) -> None:
    trial, result = ({**toy.record(seed, {REFERENCE: [1, 0]}), "scale": 0.1 + 0.9 * seed} for seed in (0, 1))
    assert "one run, a trial at scale 0.1, no result" in section([trial])
    with pytest.raises(MismatchError, match=r"scale 0\.1, 1\.0"):
        section([trial, result])
    records.write(tmp_path / "babyai-primary-s0.json", trial)
    unit, refused = _unit("babyai", "primary"), r"got a record of scale 0\.1, allowed: 1"
    with pytest.raises(MismatchError, match=refused):
        plan([unit], tmp_path)
    with pytest.raises(MismatchError, match=refused):
        run(unit, tmp_path / f"{unit.name}.json")


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
    assert set(found["best_of_n"]) >= {
        REFERENCE,
        "tau0.03",
        "policy_confidence",
        "shortest",
        "random",
        "declared",
    }
    assert (tmp_path / "unit").exists()
    assert "### corridor, head: one run" in section([found])


@pytest.mark.slow
def test_a_unit_that_is_out_of_time_records_what_it_has_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = Unit(toy.corridor(tmp_path / "recipes"), "head", 0, tmp_path / "unit", scale=0.05)
    file = tmp_path / "records" / f"{unit.name}.json"
    made = []
    with monkeypatch.context() as patch:
        patch.setattr(rows, "train", lambda *of, plain=rows.train: made.append(of[1:]) or plain(*of))
        patch.setattr(rows, "_is_over", lambda until: ("tau0.03", 0) in made)  # is trained, and not measured
        run(unit, file, until=0.0)
        (found,) = records.read_all(file.parent)
        assert found["left"] == ["tau0.03-0", "tau0.3-0", "agentprm-1", "tau0.03-1", "tau0.3-1"]
        assert set(found["arms"]) == {REFERENCE}
        assert len(found["best_of_n"][REFERENCE]["trainings"]) == 1
        assert "left" in plan([unit], file.parent)[0]
        assert "### corridor, head: one run" in section([found])
    run(unit, file)
    (found,) = records.read_all(file.parent)
    assert set(found["arms"]) == {REFERENCE, "tau0.03", "tau0.3"}
    assert "left" not in found
    assert not unit.folder.exists()
    assert "done" in plan([unit], file.parent)[0]


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
    steps = {training["steps"] for arm in found["arms"].values() for training in arm["training"]}
    assert len(steps) == 1, "all arms, the clone among them, take as many optimiser steps"
    assert found["made"]["processor"]
    assert "one run" in section([found])


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
