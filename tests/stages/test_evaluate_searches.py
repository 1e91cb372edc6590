"""Named searches, free baselines and what an evaluation keeps of its candidates, from end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, UnknownComponentError
from rlprm.evaluation.candidate_files import read_scores, read_search, write_search
from rlprm.functional.aggregation import aggregate
from rlprm.functional.best_of_n import best_of_k
from rlprm.runtime.config import parse
from rlprm.search import beam
from rlprm.search.base import SearchResult
from rlprm.search.record import Node
from rlprm.stages import evaluate, sft
from rlprm.stages.evaluate_parts.search_settings import named
from rlprm.stages.settings import EvaluateConfig, SFTStageConfig
from rlprm.types import Task
from tests.toys.pipeline import EPISODES, Pipeline, summary_of
from tests.toys.trajectories import of_steps

WALK = """
from rlprm.search import beam

def search(tasks, policy, scorer, setting, *, run_seed=0, budget=None, wide=2):
    return beam.search(tasks, policy, scorer, setting, run_seed=run_seed, budget=budget, n=wide, m=1)
"""


def arguments(pipeline: Pipeline, folder: Path, *more: str) -> list[str]:
    """Those of an evaluation in the corridor with a transcript rule, with two named searches."""
    return [
        *pipeline.evaluation, "--environment", "tests.toys.told_corridor", "--with_confidence", "false",
        "--searches.newest.strategy", "beam", "--searches.newest.n", "2", "--searches.newest.m", "3",
        "--searches.newest.aggregation", "last", "--searches.newest.scorers", '["agentprm", "random"]',
        "--search_scorers", "transcript", "--output_dir", str(folder), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a strategy of the user's own."""
    path = tmp_path_factory.mktemp("strategies") / "walk.py"
    path.write_text(WALK)
    return path


@pytest.fixture(scope="module")
def finished(pipeline: Pipeline, walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation."""
    folder = tmp_path_factory.mktemp("evaluation") / "results"
    own = ["--searches.walk.strategy", str(walk), "--searches.walk.wide", "3"]
    own += ["--scorers.clone.kind", "model_confidence", "--scorers.clone.model", pipeline.policy]
    evaluate.run(parse(EvaluateConfig, arguments(pipeline, folder, *own)))
    return folder


def row(summary: dict[str, Any], strategy: str, scorer: str | None, **more: Any) -> dict[str, Any]:
    wanted = {"strategy": strategy, "scorer": scorer, **more}
    (found,) = (r for r in summary["evaluation"] if all(r[name] == value for name, value in wanted.items()))
    return dict(found)


def test_each_search_is_a_row_with_each_of_its_scorers(finished: Path) -> None:
    summary = summary_of(finished)
    searches = [
        (r["strategy"], r["search"], r["scorer"], r["aggregation"], r["n"], r["m"])
        for r in summary["evaluation"]
        if r["strategy"] in ("beam", "search")
    ]
    beams = ("agentprm", "orm", "clone", "transcript")
    chosen = {name: choice["name"] for name, choice in summary["aggregation"].items()}
    assert searches == [
        *(("beam", None, name, chosen[name], 2, 2) for name in beams),
        *(("search", "newest", name, "last", 2, 3) for name in ("agentprm", "random")),
        # The user's strategy has no aggregation, n or m, and searches with the scorers of the beams.
        *(("search", "walk", name, None, 1, 1) for name in beams),
    ]


def test_the_majority_and_the_transcript_are_rows(finished: Path) -> None:
    summary = summary_of(finished)
    assert [r["n"] for r in summary["evaluation"] if r["strategy"] == "majority"] == [1, 2, 4]
    rates = summary["best_free_baseline"]["success_rates"]
    free = {"policy_confidence", "shortest", "random", "transcript", "declared"}
    assert set(rates) == {*free, "clone", "majority"}
    assert summary["best_free_baseline"]["k"] == 4
    assert rates[summary["best_free_baseline"]["name"]] == max(rates.values())
    closed = summary["gap_closed"]["transcript"]["4"]
    assert summary["task_kind"] == {
        "kind": "guidance" if closed > 0.5 else "reranking", "gap_closed": closed, "n": 4,
    }  # fmt: skip
    assert f"{summary['task_kind']['kind']} task" in (finished / "table.txt").read_text()


def test_searches_are_compared_with_greedy_with_the_best_baseline_and_at_equal_cost(finished: Path) -> None:
    summary = summary_of(finished)
    best = summary["best_free_baseline"]["name"]
    against = "majority of 4" if best == "majority" else f"best of 4, {best}"
    pairs = {(p["a"], p["b"]) for p in summary["paired"]}
    for name in ("beam 2×2, transcript", "newest, agentprm", "walk, orm"):
        assert {(name, "greedy"), (name, against)} <= pairs
    assert {("best of 4, agentprm", "greedy"), ("best of 4, agentprm", "majority of 4")} <= pairs
    found = {(c["search"], c["cost"]): c for c in summary["equal_cost"]}
    assert len(found) == 2 * 10
    for cost in ("env_steps", "total_tokens"):
        compared = found["newest, agentprm", cost]
        searched = row(summary, "search", "agentprm", search="newest")
        spent = searched["env_steps"]
        if cost == "total_tokens":
            spent = searched["policy_tokens"] + searched["prm_tokens"]
        assert (compared["spent"], compared["reference"]) == (spent, "until transcript, at most N")
        assert compared["difference"] == pytest.approx(searched["success_rate"] - compared["success_rate"])


def test_sampling_until_the_transcript_shows_success_is_a_row_for_every_budget(finished: Path) -> None:
    summary = summary_of(finished)
    rows = {r["n"]: r for r in summary["evaluation"] if r["strategy"] == "until_accepted"}
    assert list(rows) == [1, 2, 4]
    for n, ours in rows.items():
        best = row(summary, "best_of_n", "transcript", n=n)
        if ours["aggregation"] == "last":
            assert ours["success_rate"] == pytest.approx(best["success_rate"])
        assert 1 <= ours["episodes"] <= n
        assert ours["env_steps"] <= best["env_steps"] + 1e-9
    assert rows[4]["episodes"] < 4
    assert rows[4]["env_steps"] < row(summary, "best_of_n", "transcript", n=4)["env_steps"]
    compute = summary["compute"]
    assert compute["until transcript, at most 4"]["seconds"] < compute["best of 4, transcript"]["seconds"]
    assert "until transcript, at" in (finished / "table.txt").read_text()


def test_every_row_says_what_it_computed(finished: Path) -> None:
    summary = summary_of(finished)
    assert len(summary["compute"]) == len(summary["evaluation"])
    for costs in summary["compute"].values():
        assert set(costs) == {"policy_flops", "scorer_flops", "seconds", "peak_memory"}
        assert costs["policy_flops"] > 0
        assert costs["peak_memory"] > 10_000_000
    compute = summary["compute"]
    assert compute["best of 4, clone"]["scorer_flops"] > compute["best of 4, clone"]["policy_flops"]
    assert compute["newest, agentprm"]["scorer_flops"] > 0 == compute["newest, random"]["scorer_flops"]
    assert compute["best of 4, agentprm"]["policy_flops"] == compute["best of 4, random"]["policy_flops"]
    assert {p["scorer"] for p in summary["foresight"]} == set(summary["gap_closed"])
    assert {p["scorer"] for p in summary["foresight_running"]} == set(summary["gap_closed"])
    counting = [p["auc_within_task"] for p in summary["foresight_running"] if p["scorer"] == "shortest"]
    assert set(counting) <= {None, 0.5}
    assert "  t = 1" in (finished / "table.txt").read_text()


def test_a_figure_of_the_table_follows_from_the_stored_step_scores(finished: Path) -> None:
    summary = summary_of(finished)
    stored = read_scores(finished / "scores" / "agentprm.jsonl")
    trajectories = TrajectoryStore.open(finished / "pool").read()
    assert [(c.task, c.sample, c.success) for c in stored] == [
        (t.task.id, t.sample, t.outcome.success) for t in trajectories
    ]
    rule = summary["aggregation"]["agentprm"]["name"]
    by_task: dict[str, list[tuple[float, float]]] = {}
    for candidate in stored:
        assert candidate.scores is not None
        by_task.setdefault(candidate.task, []).append(
            (aggregate(candidate.scores.values, rule), float(candidate.success))
        )
    rates = [best_of_k([s for s, _ in row], [won for _, won in row], 2) for row in by_task.values()]
    record = row(summary, "best_of_n", "agentprm", n=2)
    assert record["success_rate"] == pytest.approx(sum(rates) / len(rates))
    tokens = sum(c.scores.tokens for c in stored if c.scores) / len(by_task)
    assert row(summary, "best_of_n", "agentprm", n=4)["prm_tokens"] == pytest.approx(tokens)
    assert len(read_scores(finished / "dev-scores" / "orm.jsonl")) == 5 * 4


def test_a_figure_of_a_search_follows_from_its_stored_candidates(finished: Path) -> None:
    summary = summary_of(finished)
    for file, strategy, more in (
        ("beam-2x2-agentprm", "beam", {}), ("newest-agentprm", "search", {"search": "newest"}),
        ("walk-agentprm", "search", {"search": "walk"}),
    ):  # fmt: skip
        by_task = read_search(finished / "searches" / f"{file}.jsonl")
        record = row(summary, strategy, "agentprm", **more)
        assert len(by_task) == record["tasks"] == 6
        chosen = [node for nodes in by_task.values() for node in nodes if node.chosen]
        assert len(chosen) == 6
        assert sum(bool(node.success) for node in chosen) / 6 == pytest.approx(record["success_rate"])
        taken = sum(len(node.actions) for nodes in by_task.values() for node in nodes)
        assert taken / 6 == pytest.approx(record["env_steps"])


def nodes_of(nodes: Sequence[Node]) -> list[int]:
    return [node.number for node in nodes]


def test_candidates_are_listed_after_their_parents(finished: Path) -> None:
    for nodes in read_search(finished / "searches" / "newest-random.jsonl").values():
        assert nodes_of(nodes) == list(range(len(nodes)))
        assert all(node.parent is None or node.parent < node.number for node in nodes)


def test_a_killed_evaluation_keeps_the_portions_of_named_searches(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--wave_size", "12", "--beams", "[]"]  # two tasks a portion
    whole = evaluate.run(parse(EvaluateConfig, arguments(pipeline, tmp_path / "whole", *more)))
    searched: list[str] = []
    really = beam.search

    @wraps(really)  # its settings are read off its signature
    def search(tasks: Sequence[Task], *rest: Any, **options: Any) -> list[SearchResult]:
        if len(searched) == 4:
            raise KeyboardInterrupt
        searched.append(tasks[0].id)
        return really(tasks, *rest, **options)

    again = parse(EvaluateConfig, arguments(pipeline, tmp_path / "killed", *more))
    with monkeypatch.context() as patch:
        patch.setattr(beam, "search", search)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(again)
        searched.clear()
        found = evaluate.run(again)
    assert len(searched) == 2  # of three portions with two scorers
    assert found["evaluation"] == whole["evaluation"]
    assert json.loads((tmp_path / "killed" / "compute.json").read_text())["seconds"]["pool"] > 0


def test_an_evaluation_without_new_settings_has_the_identity_of_before(pipeline: Pipeline) -> None:
    config = parse(EvaluateConfig, pipeline.evaluation)
    assert not {"searches", "search_scorers"} & config.identity().keys()
    config = parse(EvaluateConfig, [*pipeline.evaluation, "--search_scorers", "random"])
    assert config.identity()["search_scorers"] == ["random"]


def test_the_width_of_a_search_follows_from_its_settings() -> None:
    given = [
        ({"strategy": "beam", "n": 2, "m": 3}, 6), ({"strategy": "halving"}, 8),
        ({"strategy": "step_best_of_k", "k": 5, "n": 4}, 5), ({"strategy": "resample", "n": 9}, 9),
        ({"strategy": "puct", "m": 2, "width": 3, "trees": 2}, 12),
    ]  # fmt: skip
    assert [named("a", setting, "last").width for setting, _ in given] == [width for _, width in given]


@pytest.fixture(scope="module")
def other_policy(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the policy, trained further."""
    folder = str(tmp_path_factory.mktemp("other") / "policy")
    quiet = ["--disable_tqdm", "true", "--bf16", "false", "--workers", "1"]
    source = ["--model", pipeline.policy, "--num_demonstrations", "32", "--num_train_epochs", "2"]
    sft.run(parse(SFTStageConfig, [*EPISODES, *quiet, *source, "--output_dir", folder]))
    return folder


def test_a_search_may_have_a_policy_of_its_own(pipeline: Pipeline, other_policy: str, tmp_path: Path) -> None:
    search = ["--searches.deep.strategy", "beam", "--searches.deep.scorers", '["policy_confidence"]']
    search += ["--searches.deep.aggregation", "last", "--searches.deep.n", "2", "--searches.deep.m", "2"]

    def deep(name: str, *more: str) -> dict[str, Any]:
        arguments = [*pipeline.evaluation, *search, "--output_dir", str(tmp_path / name), *more]
        return row(evaluate.run(parse(EvaluateConfig, arguments)), "search", "policy_confidence")

    own = deep("own", "--searches.deep.policy", other_policy)
    assert own == deep("as_model", "--model", other_policy)
    assert own != deep("without")


def test_a_search_may_have_a_temperature_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    search = ["--searches.cold.strategy", "best_of_n", "--searches.cold.n", "3"]
    search += ["--searches.cold.scorers", '["shortest"]', "--searches.cold.aggregation", "last"]

    def cold(name: str, *more: str) -> dict[str, Any]:
        arguments = [*pipeline.evaluation, *search, "--output_dir", str(tmp_path / name), *more]
        return row(evaluate.run(parse(EvaluateConfig, arguments)), "search", "shortest")

    own = cold("own", "--searches.cold.temperature", "0.5")
    assert own == cold("all", "--temperature", "0.5")
    assert own != cold("without")


def test_the_weights_of_a_searchs_policy_are_part_of_what_a_result_depends_on(
    pipeline: Pipeline, other_policy: str
) -> None:
    given = [*pipeline.evaluation, "--searches.deep.strategy", "beam", "--searches.deep.policy"]
    own, other = (parse(EvaluateConfig, [*given, model]) for model in (pipeline.policy, other_policy))
    assert own.revisions()["policy of deep"] == own.revisions()["policy"]
    assert other.revisions()["policy of deep"] != own.revisions()["policy of deep"]
    assert "policy of deep" not in parse(EvaluateConfig, pipeline.evaluation).revisions()


SETTINGS: dict[str, Any] = {"model": "policy", "scorers": {"a": "prm"}, "environment": "tests.toys.corridor"}


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        ({"a": "beam"}, "searches.a: got 'beam', allowed: a mapping"),
        ({"a": {"n": 4}}, "searches.a: got {'n': 4}, allowed: a mapping with strategy"),
        ({"a/b": {"strategy": "beam"}}, "searches.a/b: got that name, allowed: letters"),
        ({"a": {"strategy": "beam", "policy": 1}}, "searches.a.policy: got 1, allowed: a folder or a hub id"),
        (
            {"a": {"strategy": "beam", "temperature": 0}},
            "searches.a.temperature: got 0, allowed: a number above 0",
        ),
        ({"a": {"strategy": "greedy"}}, "searches.a.strategy: got greedy"),
        ({"a": {"strategy": "beam", "k": 4}}, "the search strategy beam has no setting 'k'"),
        ({"a": {"strategy": "beam", "run_seed": 1}}, "has no setting 'run_seed'"),
        (
            {"a": {"strategy": "beam", "aggregation": "newest"}},
            "searches.a.aggregation: got 'newest', allowed",
        ),
        ({"a": {"strategy": "beam", "scorers": "a"}}, "searches.a.scorers: got 'a', allowed: a list"),
        (
            {"a": {"strategy": "beam", "scorers": ["b"]}},
            "searches.a.scorers: got 'b', allowed: a, a_x_policy",
        ),
        ({"a": {"strategy": "beam", "scorers": ["transcript"]}}, "searches.a.scorers: got 'transcript'"),
    ],
)
def test_searches_that_cannot_be_run_are_refused(searches: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(**SETTINGS, searches=searches)


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ({"searches": {"beam-4x4": {"strategy": "beam"}}}, "beam-4x4-a"),
        ({"beams": ["4x4", "04x4"]}, "beam-4x4-a"),
        ({"search_scorers": ["random", "random"]}, "beam-4x4-random"),
        ({"searches": {"b": {"strategy": "beam", "scorers": ["a", "a"]}}}, "b-a"),
        (
            {
                "scorers": {"a": "prm", "c-a": "orm"},
                "searches": {name: {"strategy": "beam"} for name in ("b", "b-c")},
            },
            "b-c-a",
        ),
    ],
)
def test_two_searches_with_one_file_of_results_are_refused(given: dict[str, Any], file: str) -> None:
    with pytest.raises(ConfigError, match=f"got two searches whose results go to {file}, allowed: different"):
        EvaluateConfig(**{**SETTINGS, **given})


def test_only_where_the_agent_ends_episodes_is_there_a_row_of_what_it_declared() -> None:
    assert "declared" in EvaluateConfig(**SETTINGS).free_scorers()
    config = EvaluateConfig(**SETTINGS, end="on_success")
    assert "declared" not in config.free_scorers()
    assert {"policy_confidence", "shortest", "random"} <= set(config.baselines())
    with pytest.raises(ConfigError, match=r"search_scorers: got 'declared', but with end: on_success"):
        EvaluateConfig(**SETTINGS, end="on_success", search_scorers=["declared"])


def test_search_scorers_that_no_search_takes_are_named() -> None:
    own = {"b": {"strategy": "beam", "scorers": ["a"]}}
    given: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"beams": [], "searches": {"b": {"strategy": "beam"}}}, None),
        ({"beams": []}, "no searches"),
        ({"beams": [], "searches": own}, "every search names its scorers"),
    ]
    for settings, reason in given:
        config = EvaluateConfig(**SETTINGS, **settings, search_scorers=["random"])
        assert config.unused().get("search_scorers") == reason


def test_a_clone_that_was_trained_in_another_setting_is_named(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    clone = {"kind": "model_confidence", "model": pipeline.policy}
    for more, warned in (([], False), (["--prompt", "short"], True)):
        caplog.clear()
        evaluate.load_scorer("clone", clone, parse(EvaluateConfig, [*pipeline.evaluation, *more]))
        assert ("the model of clone was made in another setting" in caplog.text) == warned


def test_candidates_are_read_back_whatever_characters_their_actions_hold(tmp_path: Path) -> None:
    actions = ("a\u2028b\x85c\x1dd\ne",)
    node = Node(0, None, 1, 1, actions, (0.5,), 0.5, chosen=True)
    won = of_steps(steps=1)
    result = SearchResult(won, 0.5, 1, 1, 1, 1, nodes=(node,))
    write_search(tmp_path / "beam.jsonl", [result])
    assert read_search(tmp_path / "beam.jsonl") == {won.task.id: [node]}


def test_unknown_strategies_and_scorers_are_refused(walk: Path) -> None:
    with pytest.raises(UnknownComponentError, match="unknown search strategy 'bean'"):
        EvaluateConfig(**SETTINGS, searches={"a": {"strategy": "bean"}})
    with pytest.raises(ConfigError, match=r"search_scorers: got .*allowed: policy_confidence"):
        EvaluateConfig(**SETTINGS, search_scorers=["a"])
    with pytest.raises(ConfigError, match="has no rule"):
        EvaluateConfig(**SETTINGS, search_scorers=["transcript"])
    given = {"a": {"strategy": str(walk), "aggregation": "last"}}
    with pytest.raises(
        ConfigError, match=r"searches.a.aggregation: got 'last', but the strategy .* has none"
    ):
        EvaluateConfig(**SETTINGS, searches=given)


def test_a_search_that_the_transcript_accepts_needs_the_rule_before_it_runs() -> None:
    search = {"strategy": "step_best_of_k", "k": 2, "n": 2, "accept": "transcript"}
    with pytest.raises(
        ConfigError, match=r"searches\.stepwise\.accept: got 'transcript', but math has no rule"
    ):
        EvaluateConfig(**{**SETTINGS, "environment": "math"}, searches={"stepwise": search})
    EvaluateConfig(**{**SETTINGS, "environment": "babyai"}, searches={"stepwise": search})
