"""Each function of the face gives what the parts it stands on give, and refuses mistakes in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rlprm
from rlprm import RlprmError, StepScores, Task, Trajectory, search
from rlprm.data.store import TrajectoryStore
from rlprm.functional import returns
from rlprm.models.loading import revision_of
from rlprm.policies.hf import HFPolicy
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.rollouts.waves import rollout
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.search import beam
from rlprm.search import best_of_n as sampling
from rlprm.stages import train_prm as prm_stage
from rlprm.stages import train_rl as rl_stage
from rlprm.types import EpisodeSetting, Split
from tests.prm import toy
from tests.toys import agents, corridor, trajectories
from tests.toys.fake_endpoint import FakeEndpoint, answering

CORRIDOR = rlprm.load_environment("tests.toys.corridor", length=4)
PRM = {
    "num_train_epochs": 1,
    "cold_start_epochs": 0,
    "learning_rate": 1e-3,
    "held_out_fraction": 0.25,
    "bf16": False,
    "disable_tqdm": True,
}
RL = {
    "iterations": 1, "tasks_per_iteration": 4, "samples_per_task": 2, "max_new_tokens": 4, "eval_every": 0,
    "test_tasks": 0, "save_every": 0, "repeat_probe": 0, "critic_warmup_iterations": 0, "bf16": False,
    "round_limit": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def policy(tiny_folder: Path) -> HFPolicy:
    """A policy that writes anything: it has learned nothing."""
    return rlprm.load_policy(tiny_folder, max_new_tokens=4)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return rlprm.load_environment("tests.toys.corridor", length=3).tasks("test", count=4, start=2)


@pytest.fixture(scope="module")
def prm(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CheckpointScorer:
    folder = tmp_path_factory.mktemp("face") / "prm"
    return rlprm.train_prm(
        toy.separable(8), model=tiny_folder, output_dir=folder, environment=CORRIDOR, round_limit=6, **PRM
    )


def weights(folder: Path | str) -> bytes:
    return Path(folder, "model.safetensors").read_bytes()


def test_an_environment_lists_the_tasks_of_its_module(tasks: Sequence[Task]) -> None:
    assert tasks == corridor.tasks(Split.TEST, 2, 4, length=3)
    environment = rlprm.load_environment("tests.toys.corridor")
    assert environment.tasks(count=2) == corridor.tasks(Split.TRAIN, 0, 2)
    assert environment.module is corridor  # type: ignore[comparison-overlap]


def test_a_policy_is_that_of_the_folder(policy: HFPolicy, tiny_folder: Path) -> None:
    assert policy.revision == revision_of(str(tiny_folder))
    assert (policy.temperature, policy.max_new_tokens, policy.context_length) == (1.0, 4, 512)
    cold = rlprm.load_policy(str(tiny_folder), temperature=0, context_length=64)
    assert (cold.temperature, cold.max_new_tokens, cold.context_length) == (0, 32, 64)


def test_episodes_are_those_of_a_rollout(policy: HFPolicy, tasks: Sequence[Task]) -> None:
    found = rlprm.run_episodes(policy, tasks, samples=3, seed=5, wave_size=4, round_limit=2, end="on_success")
    jobs = [(task, sample) for task in tasks for sample in range(3)]
    expected = rollout(jobs, policy, EpisodeSetting(rlprm.End.ON_SUCCESS, round_limit=2), run_seed=5)
    for a, b in zip(found, expected, strict=True):  # waves of another size round otherwise
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        assert replace(a, logprobs=()) == replace(b, logprobs=())
    assert found != rlprm.run_episodes(policy, tasks, samples=3, seed=6, round_limit=2, end="on_success")


def test_searches_are_those_of_the_strategies(
    policy: HFPolicy, prm: CheckpointScorer, tasks: Sequence[Task]
) -> None:
    setting = EpisodeSetting(round_limit=3)
    best = rlprm.best_of_n(tasks, policy, prm, n=3, seed=2, aggregation="min", round_limit=3)
    assert best == sampling.search(tasks, policy, prm, setting, run_seed=2, n=3, aggregation="min")
    found = rlprm.beam_search(tasks, policy, prm, n=2, m=3, seed=2, round_limit=3)
    assert found == beam.search(tasks, policy, prm, setting, run_seed=2, n=2, m=3)


@pytest.mark.parametrize("strategy", ["beam", "halving", "resample", "puct", "step_best_of_k"])
def test_any_strategy_runs_by_its_name_within_a_budget(
    policy: HFPolicy, prm: CheckpointScorer, tasks: Sequence[Task], strategy: str
) -> None:
    found = rlprm.run_search(tasks, policy, prm, strategy=strategy, budget=5, seed=2, round_limit=3)
    setting = EpisodeSetting(round_limit=3)
    assert found == search.load(strategy).search(tasks, policy, prm, setting, run_seed=2, budget=5)
    assert all(result.env_steps <= 5 for result in found)


def test_a_search_takes_any_scorer(tasks: Sequence[Task]) -> None:
    acting, scorer = agents.SeededPolicy(), agents.FunctionScorer(lambda task, actions: float(len(actions)))
    best = rlprm.best_of_n(tasks, acting, scorer, n=4)
    assert [result.score for result in best] == [float(len(r.trajectory.steps)) for r in best]


def test_labels_are_those_worked_out_by_hand() -> None:
    """λ = ½: Â_2 = 1 - 0.6, Â_1 = (0.6 - 0.5) + ½ Â_2; the other episode fails in its only step."""
    given = [trajectories.of_steps(True, 2), trajectories.of_steps(False, 1)]
    first, second = rlprm.td_gae_labels(
        given, [StepScores(0.5, (0.6, 0.9)), StepScores(0.25, (0.1,))], lam=0.5
    )
    assert first.progress == pytest.approx((0.3, 0.4))
    assert first.promise == pytest.approx((0.8, 0.8, 1.0))
    assert second.progress == pytest.approx((-0.25,))
    assert second.promise == pytest.approx((0.0, 0.0))
    assert first.weight == (1.0, 1.0, 1.0)
    assert rlprm.td_gae_labels([], []) == []


def test_labels_are_those_of_the_tensor_form(prm: CheckpointScorer) -> None:
    given = toy.separable(3)
    scores = prm.score(given)
    values_BT1 = torch.zeros(len(given), 1 + max(len(t.steps) for t in given))
    for row, of_row in enumerate(scores):
        values_BT1[row, : 1 + len(of_row.values)] = torch.tensor([of_row.initial, *of_row.values])
    made = returns.td_gae_labels(
        values_BT1,
        torch.tensor([float(t.outcome.success) for t in given]),
        torch.tensor([len(t.steps) for t in given]),
        lam=0.9,
    )
    for row, found in enumerate(rlprm.td_gae_labels(given, scores, lam=0.9)):
        assert found.promise == tuple(made.promise[row, : len(found.promise)].tolist())
        assert found.progress == tuple(made.progress[row, : len(found.progress)].tolist())


def test_a_prm_is_that_of_the_stage(prm: CheckpointScorer, tiny_folder: Path, tmp_path: Path) -> None:
    data = toy.store(tmp_path / "data", toy.separable(8))
    config = PRMConfig(trajectories=data, model=str(tiny_folder), output_dir=str(tmp_path / "prm"), **PRM)
    prm_stage.run(config)
    assert weights(str(prm.tokenizer)) == weights(tmp_path / "prm")
    assert prm.manifest == rlprm.load_prm(tmp_path / "prm").manifest
    scores = rlprm.load_prm(tmp_path / "prm").score(toy.separable(2, seed=9))
    assert prm.score(toy.separable(2, seed=9)) == scores


def test_a_finished_prm_is_reused_for_the_same_trajectories_only(
    prm: CheckpointScorer, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(str(prm.tokenizer))
    how: dict[str, Any] = {"model": tiny_folder, "environment": CORRIDOR, "round_limit": 6, **PRM}
    before = (folder / "model.safetensors").stat().st_mtime_ns
    rlprm.train_prm(toy.separable(8), output_dir=folder, **how)
    rlprm.train_prm(folder / "trajectories", model=tiny_folder, output_dir=folder, **PRM)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(rlprm.RlprmError, match="digest"):
        rlprm.train_prm(toy.separable(8, seed=1), output_dir=folder, **how)
    assert TrajectoryStore.open(folder / "trajectories").read() == toy.separable(8)


def test_a_policy_is_trained_as_by_the_stage(
    prm: CheckpointScorer, tiny_folder: Path, tmp_path: Path
) -> None:
    environment = rlprm.load_environment("tests.toys.corridor", length=3)
    ours = rlprm.train_rl(tiny_folder, environment=environment, prm=prm, output_dir=tmp_path / "face", **RL)
    config = RLConfig(
        model=str(tiny_folder), environment="tests.toys.corridor", env_kwargs={"length": 3},
        prm=str(prm.tokenizer), output_dir=str(tmp_path / "stage"), **RL,
    )  # fmt: skip
    theirs = rl_stage.run(config)
    assert weights(tmp_path / "face") == weights(tmp_path / "stage")
    assert {k: v for k, v in ours.items() if k != "seconds"} == {
        k: v for k, v in theirs.items() if k != "seconds"
    }
    assert rlprm.load_policy(tmp_path / "face").revision != revision_of(str(tiny_folder))


def episode() -> Trajectory:
    return trajectories.of_steps(True, 2)


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "environment": (lambda tiny: rlprm.load_environment("babyia"), "unknown environment 'babyia'"),
    "setting of an environment": (
        lambda tiny: rlprm.load_environment("tests.toys.corridor", width=3), "unknown settings .*width"
    ),
    "split": (
        lambda tiny: rlprm.load_environment("tests.toys.corridor").tasks("tset", count=1), "split: got 'tset'"
    ),
    "policy": (lambda tiny: rlprm.load_policy("nowhere"), "'nowhere': the folder does not exist"),
    "temperature": (lambda tiny: rlprm.load_policy(tiny, temperature=-1), "temperature: got -1"),
    "prm": (lambda tiny: rlprm.load_prm(tiny), "is not a PRM"),
    "path for a policy": (lambda tiny: rlprm.run_episodes("runs/policy", []), "policy: got 'runs/policy'"),  # type: ignore[arg-type]
    "path for a PRM": (
        lambda tiny: rlprm.best_of_n([], agents.SeededPolicy(), "runs/prm"),  # type: ignore[arg-type]
        "prm: got 'runs/prm'",
    ),
    "strategy": (
        lambda tiny: rlprm.run_search(
            [], agents.SeededPolicy(), agents.FunctionScorer(lambda *_: 0.0), strategy="bean"
        ),
        "unknown search strategy 'bean'",
    ),
    "setting of a strategy": (
        lambda tiny: rlprm.run_search(
            [], agents.SeededPolicy(), agents.FunctionScorer(lambda *_: 0.0), strategy="beam", k=3
        ),
        "search strategy beam .*k",
    ),
    "seed": (lambda tiny: rlprm.run_episodes(agents.SeededPolicy(), [], seed=-1), "seed: got -1"),
    "samples": (lambda tiny: rlprm.run_episodes(agents.SeededPolicy(), [], samples=0), "samples: got 0"),
    "way to run episodes": (
        lambda tiny: rlprm.run_episodes(agents.SeededPolicy(), [], rond_limit=3),  # type: ignore[call-arg]
        "unknown setting 'rond_limit' .*did you mean 'round_limit'",
    ),
    "end": (lambda tiny: rlprm.run_episodes(agents.SeededPolicy(), [], end="never"), "end: got 'never'"),
    "round limit": (
        lambda tiny: rlprm.run_episodes(agents.SeededPolicy(), [], round_limit=0), "round_limit: got 0"
    ),
    "scores": (lambda tiny: rlprm.td_gae_labels([episode()], []), "got 0 scores for 1 trajectories"),
    "values": (
        lambda tiny: rlprm.td_gae_labels([episode()], [StepScores(0.5, (0.5,))]), "got 1 values for 2 actions"
    ),
    "lambda": (
        lambda tiny: rlprm.td_gae_labels([episode()], [StepScores(0.5, (0.5, 0.5))], lam=2.0), "lam"
    ),
    "nothing to learn from": (
        lambda tiny: rlprm.train_prm([], model=tiny, output_dir=tiny.parent / "none"), "allowed: of one"
    ),
    "setting of a PRM": (
        lambda tiny: rlprm.train_prm([episode()], model=tiny, output_dir=tiny.parent / "none", bta=1),
        "unknown setting 'bta' in the arguments of train_prm; did you mean 'beta'",
    ),
    "setting of a folder": (
        lambda tiny: rlprm.train_prm(tiny, model=tiny, output_dir=tiny.parent / "none", round_limit=3),
        "a folder has its own",
    ),
    "setting of RL": (
        lambda tiny: rlprm.train_rl(
            tiny, environment="tests.toys.corridor", output_dir=tiny.parent / "none", iterations=0
        ),
        "iterations: got 0",
    ),
    "reward without a PRM": (
        lambda tiny: rlprm.train_rl(tiny, environment="tests.toys.corridor", output_dir=tiny.parent / "none"),
        "prm: nothing given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_of_the_packages_own_kind(name: str, tiny_folder: Path) -> None:
    make, message = MISTAKES[name]
    with pytest.raises(RlprmError, match=message) as caught:
        make(tiny_folder)
    assert "\n" not in str(caught.value)


def test_a_prm_of_other_episodes_is_refused(
    policy: HFPolicy, prm: CheckpointScorer, tasks: Sequence[Task]
) -> None:
    with pytest.raises(rlprm.RlprmError, match="end: trained with 'declared', used with 'on_success'"):
        rlprm.beam_search(tasks, policy, prm, end="on_success")
    with pytest.raises(rlprm.RlprmError, match="prompt: trained with 'none', used with 'short'"):
        rlprm.best_of_n(tasks, policy, prm, prompt="short")


def test_tasks_of_a_file_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PRM stores the name; the same file in agent RL is then the same environment."""
    source = Path(__file__).parents[2] / "examples/corridor.py"
    (tmp_path / "walk.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (task,) = rlprm.load_environment("walk.py").tasks("train", count=1)
    assert task.environment == "walk.py"


def test_a_policy_behind_an_endpoint_acts_as_one_of_a_folder(tiny_folder: Path) -> None:
    with answering(FakeEndpoint()) as fake:
        policy = rlprm.load_policy(
            tiny_folder,
            endpoint=fake.url,
            endpoint_model="toy",
            endpoint_kwargs={"top_p": 0.5},
            max_new_tokens=8,
        )
        done = rlprm.run_episodes(policy, CORRIDOR.tasks(count=2), samples=2, round_limit=3)
    assert [t.exact for t in done] == [False] * 4
    assert {request["top_p"] for request in fake.requests} == {0.5}
    with pytest.raises(RlprmError, match="endpoint_model: nothing given"):
        rlprm.load_policy(tiny_folder, endpoint=fake.url)


def test_a_policy_on_servers_is_asked_for_what_it_serves(tiny_folder: Path) -> None:
    with pytest.raises(RlprmError, match="server: got 'ftp://host', allowed: "):
        rlprm.load_policy(tiny_folder, server="ftp://host")
