"""One update, against what one would compute by hand; and however it is split up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlprm import envs
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import TrainingError
from rlprm.policies.hf import HFPolicy
from rlprm.rl import old_logprobs
from rlprm.rl.batch import Batch
from rlprm.rl.credit import Credit, OldLogprobs
from rlprm.rl.engine import GradientNorms
from rlprm.rl.engine.accelerated import AccelerateEngine
from rlprm.rollouts.waves import rollout
from rlprm.runtime.processes import Processes
from rlprm.types import EpisodeSetting, Split
from tests.rl import toy
from tests.rl.toy import Learner

BATCH = toy.batch(12)
CREDIT = toy.random_credit(BATCH)
RATE = 0.1
GENTLE = {"learning_rate": 0.02, "critic_learning_rate_factor": 1.0}
"""For several steps in a row: where the loss bends sharply, rounding grows."""
Build = Callable[..., Learner]


@pytest.fixture
def build(tiny_folder: Path) -> Build:
    return lambda **settings: toy.learner(tiny_folder, **{"learning_rate": RATE, **settings})


def changes(learner: Learner, part: str = "", old: OldLogprobs | None = None, **settings: Any) -> Tensor:
    """How far one update moves the parameters; credit and batch aside, all settings are those of update."""
    before = toy.weights(learner, part)
    batch, credit = settings.pop("batch", BATCH), settings.pop("credit", CREDIT)
    learner.update(batch, credit, old or learner.read_old(batch), **settings)
    return toy.weights(learner, part) - before


# --- reading ---


@pytest.mark.parametrize("lora_r", [0, 4])
def test_read_in_batches_or_one_by_one_is_the_same(build: Build, lora_r: int) -> None:
    found = [
        build(micro_batch_tokens=budget, kl_coef=0.1, temperature=1.3, lora_r=lora_r).read_old(BATCH)
        for budget in (100_000, 1, 150)
    ]
    sampled = BATCH.layout.sampled
    for name in ("logprobs_BL", "values_BL", "ref_logprobs_BL"):
        first = getattr(found[0], name)
        assert first[sampled].ne(0).all()
        assert not first[~sampled].any()
        for other in found[1:]:
            torch.testing.assert_close(getattr(other, name), first, atol=1e-5, rtol=0)


def test_no_reference_is_read_unless_it_is_asked_for(build: Build) -> None:
    assert build().read_old(BATCH).ref_logprobs_BL is None


@pytest.mark.parametrize("temperature", [1.0, 1.6])
@pytest.mark.trap("sampler mismatch")
def test_trap_the_trainer_finds_the_log_probabilities_the_sampler_stored(
    build: Build, renderer: ChatRenderer, temperature: float
) -> None:
    learner = build(temperature=temperature, micro_batch_tokens=300)
    jobs = [(task, 0) for task in envs.load("tests.toys.corridor").tasks(Split.TRAIN, 0, 6)]
    with learner.engine.acting() as weights:
        policy = HFPolicy(weights, renderer, revision="toy", temperature=temperature, max_new_tokens=5)
        batch = Batch.from_trajectories(rollout(jobs, policy, EpisodeSetting(), run_seed=1))
    assert not batch.layout.sampled[batch.token_ids_BL == renderer.closing_id].all()  # some were forced
    torch.testing.assert_close(
        learner.read_old(batch).logprobs_BL, batch.sampler_logprobs_BL, atol=1e-4, rtol=0
    )


# --- one step ---


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_the_first_gradient_is_the_policy_gradient_and_the_critics_squared_error(
    build: Build, critic: str
) -> None:
    learner = build(critic=critic, temperature=1.3, value_coef=0.7, critic_learning_rate_factor=1.0)
    model = learner.engine.model
    logprobs_NV = torch.log_softmax(toy.plain_logits(model.policy, BATCH) / 1.3, dim=1)
    logprobs_N = logprobs_NV.gather(1, toy.sampled_ids(BATCH)[:, None])[:, 0]
    rows_N, positions_N = BATCH.layout.sampled.nonzero(as_tuple=True)
    values_N = model(BATCH.token_ids_BL, rows_N, positions_N).values
    sampled, count = BATCH.layout.sampled, int(BATCH.layout.sampled.sum())
    loss = -(CREDIT.advantages_BL[sampled] * logprobs_N).sum() / count
    loss = loss + 0.7 * (0.5 * (values_N - CREDIT.returns_BL[sampled]) ** 2).sum() / count
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    expected = -RATE * torch.cat([gradient.flatten() for gradient in gradients])
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(changes(learner), expected, atol=1e-6, rtol=1e-4)


def test_what_an_update_reports(build: Build) -> None:
    learner = build(kl_coef=0.1, minibatches=1)
    sampled = BATCH.layout.sampled
    with torch.no_grad():
        logprobs_NV = torch.log_softmax(toy.plain_logits(learner.engine.model.policy, BATCH), 1)
    entropy = -(logprobs_NV.exp() * logprobs_NV).sum(1).mean()
    stats = learner.update(BATCH, CREDIT, learner.read_old(BATCH))
    # At ratio 1 the objective is the mean advantage, nothing has moved and nothing is clipped.
    assert stats.policy_loss == pytest.approx(-float(CREDIT.advantages_BL[sampled].mean()), abs=1e-6)
    assert stats.entropy == pytest.approx(float(entropy), abs=1e-4)
    assert (stats.approx_kl, stats.clip_fraction, stats.steps, stats.stopped_early) == (0, 0, 1, False)
    assert stats.kl_loss == pytest.approx(0, abs=1e-6)
    assert min(stats.policy_grad_norm, stats.critic_grad_norm) > 0
    assert stats.grad_norm == pytest.approx(math.hypot(stats.policy_grad_norm, stats.critic_grad_norm))
    # After it the policy is elsewhere.
    again = learner.update(BATCH, CREDIT, build(kl_coef=0.1).read_old(BATCH))
    assert again.approx_kl > 1e-4
    assert again.clip_fraction > 0
    assert again.kl_loss > 1e-4


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("level", ["token", "none"])
@pytest.mark.parametrize("settings", [{}, {"entropy_coef": 0.1, "kl_coef": 0.1}, {"critic": "shared"}])
def test_one_micro_batch_or_many_is_one_update(
    build: Build, level: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    credit = toy.random_credit(BATCH, level=level)
    calls: list[int] = []
    forward = AccelerateEngine.forward

    def counted(engine: AccelerateEngine, *args: Any, **kwargs: Any) -> Any:
        calls[-1] += 1
        return forward(engine, *args, **kwargs)

    monkeypatch.setattr(AccelerateEngine, "forward", counted)
    moved, old = list[Tensor](), None
    for budget, of_call in ((100_000, math.inf), (100_000, 5.0), (150, 64.0), (150, math.inf), (1, math.inf)):
        monkeypatch.setattr(old_logprobs, "call_tokens", lambda _, of_call=of_call: of_call)
        learner = build(micro_batch_tokens=budget, minibatches=2, ppo_epochs=2, **GENTLE, **settings)
        calls.append(0)
        old = old or learner.read_old(BATCH)
        calls[-1] = 0
        moved.append(changes(learner, credit=credit, old=old))
    assert calls[0] == 4 < calls[1]  # one for each step; as many as padding is worth
    assert moved[0].abs().max() > 1e-3
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0], atol=1e-6, rtol=0)


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("count", [12, 3])
def test_the_shares_of_two_processes_add_up_to_the_update_of_one(build: Build, count: int) -> None:
    # Three episodes in two minibatches: of one episode, a process has nothing.
    batch = toy.batch(count)
    given = {"batch": batch, "credit": toy.random_credit(batch)}
    alone = build(micro_batch_tokens=150, minibatches=1)
    whole = changes(alone, **given)
    shares = []
    for rank in range(2):
        learner = build(micro_batch_tokens=150, minibatches=1)
        old = learner.read_old(batch)
        learner.engine.processes = Processes(
            rank, 2
        )  # gradients of a launch are averaged; here each is seen alone
        shares.append(changes(learner, old=old, **given))
    assert all(share.abs().max() > 1e-4 for share in shares)
    torch.testing.assert_close((shares[0] + shares[1]) / 2, whole, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("plain_descent")
def test_a_process_without_rows_takes_part_and_adds_nothing(build: Build) -> None:
    batch = toy.batch(1)
    learner = build()
    old = learner.read_old(batch)
    learner.engine.processes = Processes(1, 2)
    before = toy.weights(learner)
    stats = learner.update(batch, toy.random_credit(batch), old)
    assert torch.equal(toy.weights(learner), before)
    assert stats.steps == 1
    assert stats.grad_norm == 0
    assert all(p.grad is None or not p.grad.any() for p in learner.engine.model.parameters())


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.trap("sentinel")
def test_trap_nothing_is_learned_from_what_nobody_sampled(build: Build) -> None:
    junk = torch.full(BATCH.token_ids_BL.shape, math.nan).where(~BATCH.layout.sampled, 0.0)
    clean, dirty = build(importance_cap=2.0), build(importance_cap=2.0)
    old = clean.read_old(BATCH)
    spoiled = OldLogprobs(old.logprobs_BL + junk, old.values_BL + junk)
    credit = replace(CREDIT, advantages_BL=CREDIT.advantages_BL + junk, returns_BL=CREDIT.returns_BL + junk)
    batch = replace(BATCH, sampler_logprobs_BL=BATCH.sampler_logprobs_BL + junk)
    expected = changes(clean, old=old)
    assert torch.equal(changes(dirty, old=spoiled, credit=credit, batch=batch), expected)


# --- who moves, and how far ---


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.trap("cold critic")
def test_trap_while_the_critic_warms_up_the_policy_stays_bit_for_bit(build: Build, critic: str) -> None:
    learner = build(critic=critic, weight_decay=0.1, ppo_epochs=3, kl_coef=0.1)
    policy, critic_before = toy.weights(learner, "policy"), _critic(learner)
    learner.update(BATCH, CREDIT, learner.read_old(BATCH), critic_only=True)
    assert torch.equal(toy.weights(learner, "policy"), policy)
    assert (_critic(learner) - critic_before).abs().max() > 1e-3
    # and moves again when it is over
    learner.update(BATCH, CREDIT, learner.read_old(BATCH))
    assert (toy.weights(learner, "policy") - policy).abs().max() > 1e-4


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("lora_r", [0, 4])
@pytest.mark.trap("Adam after warm-up")
def test_trap_the_critics_warm_up_does_not_lengthen_the_policys_first_steps(
    build: Build, critic: str, lora_r: int
) -> None:
    """Adam would count the steps without a gradient, and take its moments for better known than they are."""
    epochs = 2 if critic == "separate" else 1  # after a step a shared body has another head's gradient
    warmed, fresh = (
        build(critic=critic, learning_rate=0.01, lora_r=lora_r, ppo_epochs=epochs) for _ in range(2)
    )
    for _ in range(3):
        warmed.update(BATCH, CREDIT, warmed.read_old(BATCH), critic_only=True)
    for there, here in zip(
        fresh.engine.model.critic_parameters(), warmed.engine.model.critic_parameters(), strict=True
    ):
        there.data.copy_(here)
    moved = [changes(each, "policy") for each in (warmed, fresh)]
    assert moved[0].abs().max() > 1e-3
    assert torch.equal(*moved)


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_nothing_goes_back_through_a_policy_that_rests(build: Build, critic: str) -> None:
    learner = build(critic=critic, ppo_epochs=2, gradient_checkpointing=True)
    parameters = list(learner.engine.model.policy.parameters())
    seen: list[bool] = []
    step = learner.engine.step

    def watched() -> Any:
        assert all(parameter.grad is not None for parameter in learner.engine.model.critic_parameters())
        seen.extend(parameter.grad is None for parameter in parameters)
        return step()

    learner.engine.step = watched  # type: ignore[method-assign]
    stats = learner.update(BATCH, CREDIT, learner.read_old(BATCH), critic_only=True)
    assert len(seen) == 2 * len(parameters)
    assert all(seen)
    assert stats.policy_grad_norm == 0
    assert stats.critic_grad_norm == stats.grad_norm > 0
    assert all(parameter.requires_grad for parameter in parameters)


def test_what_adam_had_seen_of_the_policy_is_forgotten_and_of_the_critic_is_not(build: Build) -> None:
    """Where the policy takes part in the warm-up, as under DeepSpeed, or in a checkpoint of before."""
    learner = build()
    learner.update(BATCH, CREDIT, learner.read_old(BATCH))
    states = learner.engine.optimizer.state
    policy, critic = learner.engine.model.policy_parameters(), learner.engine.model.critic_parameters()
    assert all(states[parameter]["exp_avg"].any() for parameter in (*policy, *critic))
    learner.update(BATCH, CREDIT, learner.read_old(BATCH), critic_only=True)
    assert not any(number.any() for parameter in policy for number in states[parameter].values())
    assert {float(states[parameter]["step"]) for parameter in critic} == {2.0}


def _critic(learner: Learner) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in learner.engine.model.critic_parameters()])


@pytest.mark.usefixtures("plain_descent")
def test_policy_and_critic_have_step_sizes_of_their_own(build: Build) -> None:
    slow, fast = build(critic_learning_rate_factor=1.0), build(critic_learning_rate_factor=10.0)
    for part, ratio in (("policy", 1.0), ("critic", 10.0)):
        moved = [changes(build(critic_learning_rate_factor=f), part) for f in (1.0, 10.0)]
        torch.testing.assert_close(moved[1], ratio * moved[0], atol=1e-6, rtol=1e-4)
    # The schedule's factor holds for both.
    torch.testing.assert_close(changes(fast, factor=0.1, part="critic"), changes(slow, "critic"))
    assert not changes(build(), factor=0.0).any()


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize(("critic", "part"), [("separate", "critic"), ("shared", "value_head")])
def test_gradients_are_cut_to_a_norm_or_not_at_all(build: Build, critic: str, part: str) -> None:
    def with_limit(limit: float) -> Learner:
        return build(max_grad_norm=limit, critic=critic, critic_learning_rate_factor=1.0)

    def norms(limit: float) -> list[float]:
        return [float(changes(with_limit(limit), of).norm()) / RATE for of in ("policy", part)]

    free = norms(0.0)
    whole = math.hypot(*free)
    for limit in (min(free) / 2, math.sqrt(free[0] * free[1]), 10 * whole):
        each = [min(norm, limit) for norm in free]
        together = [min(1.0, limit / whole) * norm for norm in free]
        assert norms(limit) == pytest.approx(each if critic == "separate" else together, rel=1e-4)
    cut = with_limit(min(free) / 2)
    stats = cut.update(BATCH, CREDIT, cut.read_old(BATCH))
    assert [stats.policy_grad_norm, stats.critic_grad_norm] == pytest.approx(free, rel=1e-4)  # as they were


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.trap("joint clipping")
def test_trap_the_size_of_the_critics_errors_does_not_shorten_the_policys_step(build: Build) -> None:
    settings = {"max_grad_norm": 1.0, "learning_rate": 0.001, "critic_learning_rate_factor": 1e-3}
    moved = [changes(build(value_coef=value_coef, **settings), "policy") for value_coef in (0.1, 1e4)]
    assert moved[0].abs().max() > 1e-5
    torch.testing.assert_close(moved[1], moved[0], atol=1e-7, rtol=0)


@pytest.mark.usefixtures("plain_descent")
def test_an_update_ends_where_the_policy_has_moved_far_enough(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"ppo_epochs": 4, "minibatches": 3, **GENTLE}
    free, held = build(**settings), build(target_kl=1e-6, **settings)
    after_each_step, step = [], free.engine.step

    def step_and_look() -> GradientNorms:
        norms = step()
        after_each_step.append(toy.weights(free))
        return norms

    monkeypatch.setattr(free.engine, "step", step_and_look)
    whole, stopped = (each.update(BATCH, CREDIT, each.read_old(BATCH)) for each in (free, held))
    assert (whole.steps, whole.stopped_early) == (12, False)
    # The first step starts where π is π_old. The second one finds π too far away, and is not taken.
    assert (stopped.steps, stopped.stopped_early) == (1, True)
    assert stopped.approx_kl > 1e-6
    assert torch.equal(toy.weights(held), after_each_step[0])
    lenient = build(target_kl=1e6, **settings)
    assert lenient.update(BATCH, CREDIT, lenient.read_old(BATCH)).steps == 12
    # The critic's warm-up moves no policy: nothing to stop for.
    warming = build(target_kl=1e-12, **settings)
    assert warming.update(BATCH, CREDIT, warming.read_old(BATCH), critic_only=True).steps == 12


def test_the_order_of_the_rows_is_the_seeds(build: Build) -> None:
    moved = [changes(build(minibatches=4), seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_more_minibatches_than_episodes_are_as_many_as_there_are(build: Build) -> None:
    batch = toy.batch(3)
    learner = build(minibatches=8)
    stats = learner.update(batch, toy.random_credit(batch), learner.read_old(batch))
    assert stats.steps + stats.skipped_steps == 3


# --- the sampler's part ---


def against_sampler(old: OldLogprobs, factor: float) -> Batch:
    """The batch, drawn from a sampler to which every token was this much less likely."""
    return replace(BATCH, sampler_logprobs_BL=old.logprobs_BL - math.log(factor))


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize(("cap", "weight"), [(None, 1.0), (3.0, 2.0), (1.5, 1.5)])
@pytest.mark.trap("sampler mismatch")
def test_trap_importance_weights_correct_for_the_sampler_and_are_capped(
    build: Build, cap: float | None, weight: float
) -> None:
    plain = build()
    old = plain.read_old(BATCH)
    expected = weight * changes(plain, "policy", old)
    found = changes(build(importance_cap=cap), "policy", old, batch=against_sampler(old, 2.0))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("plain_descent")
def test_the_ratio_may_be_taken_to_the_samplers_own_numbers(build: Build) -> None:
    # π is 1.1 μ everywhere: the gradient is 1.1 times that at ratio 1; at ratio 2 only A < 0 still pulls.
    learners = [build(old_logprobs=old) for old in ("trainer", "sampler")]
    old = learners[0].read_old(BATCH)
    near = against_sampler(old, 1.1)
    moved = [changes(each, "policy", old, batch=near) for each in learners]
    torch.testing.assert_close(moved[1], 1.1 * moved[0], atol=1e-6, rtol=1e-4)
    far = against_sampler(old, 2.0)
    stats = build(old_logprobs="sampler").update(far, CREDIT, old)
    positive = CREDIT.advantages_BL[BATCH.layout.sampled] > 0
    assert stats.clip_fraction == pytest.approx(float(positive.float().mean()), abs=1e-6)


# --- what goes wrong ---


@pytest.mark.parametrize("broken", ["advantages_BL", "returns_BL"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_training_before_the_weights_change(
    build: Build, broken: str, number: float
) -> None:
    learner = build()
    numbers = getattr(CREDIT, broken).clone()
    numbers[BATCH.layout.sampled.nonzero()[3].split(1)] = number
    credit: Credit = replace(CREDIT, **{broken: numbers})
    before = toy.weights(learner)
    with pytest.raises(TrainingError, match=r"_loss is (nan|-?inf): lower learning_rate \(now 0\.1\)"):
        learner.update(BATCH, credit, learner.read_old(BATCH))
    assert torch.equal(toy.weights(learner), before)


def test_a_ratio_that_overflows_is_noticed_although_its_gradient_is_clipped_away(build: Build) -> None:
    learner = build(old_logprobs="sampler")
    old = learner.read_old(BATCH)
    credit = replace(CREDIT, advantages_BL=CREDIT.advantages_BL.abs())
    before = toy.weights(learner)
    batch = replace(BATCH, sampler_logprobs_BL=BATCH.sampler_logprobs_BL - 1000.0)
    with pytest.raises(TrainingError, match=r"approx_kl is 4\.85e\+08"):
        learner.update(batch, credit, old)
    assert torch.equal(toy.weights(learner), before)


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("lora_r", [0, 4])
def test_activations_computed_again_change_nothing(build: Build, lora_r: int) -> None:
    learners = [build(gradient_checkpointing=again, lora_r=lora_r) for again in (False, True)]
    assert [each.engine.model.is_gradient_checkpointing for each in learners] == [False, True]
    old = learners[0].read_old(BATCH)
    moved = [changes(each, old=old) for each in learners]
    assert moved[0].abs().max() > 1e-4
    torch.testing.assert_close(moved[1], moved[0], atol=1e-6, rtol=0)
