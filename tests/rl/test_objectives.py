"""The policy's objective: of tokens, of messages, without cut messages, or the likelihood of successes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.tokens import spread_over_tokens
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.rl.credit import Credit
from tests.rl import toy
from tests.rl.toy import Learner
from tests.toys.trajectories import trajectory

BATCH = toy.batch(12)
SAMPLED = BATCH.layout.sampled
STEPS = torch.randn(BATCH.starts_BT.shape, generator=torch.Generator().manual_seed(1))
CREDIT = replace(
    toy.random_credit(BATCH, level="none"), advantages_BL=spread_over_tokens(STEPS, BATCH.layout)
)
SUCCESSES = replace(
    CREDIT, advantages_BL=spread_over_tokens(BATCH.outcomes_B[:, None].expand(STEPS.shape), BATCH.layout)
)
CUT = replace(BATCH, cut_BT=torch.rand(STEPS.shape, generator=torch.Generator().manual_seed(2)) < 0.4)
WEIGHED = replace(CUT, sampler_logprobs_BL=torch.full(SAMPLED.shape, -6.0))
"""About what a model without training gives a token."""
RATE = 0.1
pytestmark = pytest.mark.usefixtures("plain_descent")
Build = Callable[..., Learner]


@pytest.fixture
def build(tiny_folder: Path) -> Build:
    return lambda **settings: toy.learner(tiny_folder, **{"learning_rate": RATE, **settings})


def moved_by(learner: Learner, credit: Credit, *, batch: Batch = BATCH, old: Any = None) -> Tensor:
    before = toy.weights(learner, "policy")
    learner.update(batch, credit, old or learner.read_old(batch))
    return toy.weights(learner, "policy") - before


def descent(learner: Learner, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """A step of gradient descent on a loss of the log-probabilities of all sampled tokens, (N,)."""
    policy = learner.engine.model.policy
    logprobs_NV = torch.log_softmax(toy.plain_logits(policy, BATCH), dim=1)
    logprobs_N = logprobs_NV.gather(1, toy.sampled_ids(BATCH)[:, None])[:, 0]
    gradients = torch.autograd.grad(loss(logprobs_N), list(policy.parameters()))
    return -RATE * torch.cat([gradient.flatten() for gradient in gradients])


def close(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def messages() -> list[tuple[float, Tensor]]:
    """The advantage of each message, and where its tokens are among the sampled ones."""
    step_N, row_N = BATCH.layout.step_BL[SAMPLED], SAMPLED.nonzero()[:, 0]
    return [
        (float(STEPS[row, step]), (row_N == row) & (step_N == step))
        for row in range(len(BATCH))
        for step in range(int(BATCH.lengths_B[row]))
    ]


# --- messages ---


def test_the_first_gradient_weighs_messages_alike_however_long_they_are(build: Build) -> None:
    def loss(logprobs_N: Tensor) -> Tensor:
        found = messages()
        return -sum(advantage * logprobs_N[where].mean() for advantage, where in found) / len(found)

    learner = build(importance_level="message")
    expected = descent(learner, loss)
    close(moved_by(learner, CREDIT), expected)


def test_a_message_is_clipped_as_a_whole_by_its_geometric_mean(build: Build) -> None:
    learner = build(importance_level="message", clip_low=0.2, clip_high=0.2)
    old = learner.read_old(BATCH)
    # Every second token of a message has become e times as likely, every other one as much less likely.
    parity = torch.zeros_like(old.logprobs_BL)
    shift, clipped = parity.clone(), 0
    for advantage, where in messages():
        places = SAMPLED.nonzero()[where]
        signs = torch.tensor([1.0, -1.0]).repeat(len(places))[: len(places)]
        shift[places[:, 0], places[:, 1]] = signs
        ratio = float(signs.mean().exp())  # 1 if their number is even
        clipped += (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    stats = learner.update(BATCH, CREDIT, replace(old, logprobs_BL=old.logprobs_BL - shift))
    assert stats.clip_fraction == pytest.approx(clipped / len(messages()), abs=1e-6)
    tokens = build().update(BATCH, CREDIT, replace(old, logprobs_BL=old.logprobs_BL - shift))
    assert tokens.clip_fraction > stats.clip_fraction
    # The KL is that of tokens in both cases, so target_kl means the same.
    assert stats.approx_kl == pytest.approx(tokens.approx_kl, rel=1e-5)


def test_messages_have_the_clips_of_gspo_unless_others_are_set() -> None:
    def clips(**settings: Any) -> tuple[float | None, float | None]:
        settled = toy.config(**settings)
        return settled.clip_low, settled.clip_high

    assert clips() == (0.2, 0.2)
    assert clips(importance_level="message") == (3e-4, 4e-4)
    assert clips(importance_level="message", clip_high=0.1) == (3e-4, 0.1)


@pytest.mark.parametrize(
    ("settings", "batch", "credit"),
    [
        ({"importance_level": "message", "clip_low": 0.5, "clip_high": 0.5}, BATCH, CREDIT),
        (
            {"importance_level": "message", "clip_low": 0.5, "clip_high": 0.5, "importance_cap": 2.0},
            WEIGHED,
            CREDIT,
        ),
        ({"advantage": "cloning"}, CUT, SUCCESSES),
        ({"entropy_coef": 0.1, "kl_coef": 0.1}, CUT, CREDIT),
    ],
)
def test_one_micro_batch_or_many_is_one_update(
    build: Build, settings: dict[str, Any], batch: Batch, credit: Credit
) -> None:
    gentle = {"learning_rate": 0.02, "minibatches": 2, "ppo_epochs": 2, **settings}
    learners = [build(micro_batch_tokens=budget, **gentle) for budget in (100_000, 150, 1)]
    old = learners[0].read_old(batch)
    found = [moved_by(learner, credit, batch=batch, old=old) for learner in learners]
    assert found[0].abs().max() > 1e-3
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-6, rtol=0)


# --- messages that were cut ---


def test_cut_messages_are_found_by_the_limit() -> None:
    episodes = [trajectory("..aaf.ac"), trajectory(".af.aac.c")]
    found = Batch.from_trajectories(episodes, mask_cut_at=2)
    assert found.cut_BT is not None
    assert found.cut_BT.tolist() == [[True, False, False], [False, False, False]]  # a stopped by itself
    assert found.in_loss.tolist() == [
        [False] * 6 + [True, True, False],
        [False, True, False, False, True, True, True, False, True],
    ]
    assert torch.equal(found.layout.sampled, Batch.from_trajectories(episodes).in_loss)


def test_cut_messages_leave_objective_entropy_and_kl(build: Build) -> None:
    kept_N = CUT.in_loss[SAMPLED]
    assert 0 < kept_N.sum() < len(kept_N)

    def loss(logprobs_N: Tensor) -> Tensor:
        return -(CREDIT.advantages_BL[SAMPLED] * logprobs_N)[kept_N].sum() / kept_N.sum()

    learner = build()
    expected = descent(learner, loss)
    close(moved_by(learner, CREDIT, batch=CUT), expected)
    # Whatever their advantages are; with all terms of the loss.
    other = replace(CREDIT, advantages_BL=CREDIT.advantages_BL.where(CUT.in_loss, 7.0))
    terms = {"entropy_coef": 0.1, "kl_coef": 0.1, "ppo_epochs": 2}
    assert torch.equal(
        moved_by(build(**terms), CREDIT, batch=CUT), moved_by(build(**terms), other, batch=CUT)
    )


def test_the_critic_still_learns_from_cut_messages(build: Build) -> None:
    credit = toy.random_credit(BATCH)
    found = []
    for batch in (BATCH, CUT):
        learner = build()
        learner.update(batch, credit, learner.read_old(batch))
        found.append(toy.weights(learner, "critic"))
    torch.testing.assert_close(*found)


def test_nothing_is_learned_if_all_messages_were_cut(build: Build) -> None:
    learner = build()
    every = replace(BATCH, cut_BT=torch.ones_like(STEPS, dtype=torch.bool))
    assert not moved_by(learner, CREDIT, batch=every).any()


# --- cloning ---


def test_cloning_is_fine_tuning_on_the_successes_also_after_the_policy_moved(build: Build) -> None:
    imitated_N = SUCCESSES.advantages_BL[SAMPLED] == 1
    assert 0 < imitated_N.sum() < len(imitated_N)

    def loss(logprobs_N: Tensor) -> Tensor:
        return -logprobs_N[imitated_N].mean()  # of supervised fine-tuning

    cloning, ppo = build(advantage="cloning", learning_rate=RATE), build(learning_rate=RATE)
    old = cloning.read_old(BATCH)
    cloning.update(BATCH, SUCCESSES, old)
    ppo.engine.model.policy.load_state_dict(cloning.engine.model.policy.state_dict())
    expected = descent(cloning, loss)
    stopped = moved_by(ppo, SUCCESSES, old=old)
    stats_before = toy.weights(cloning, "policy")
    stats = cloning.update(BATCH, SUCCESSES, old)
    close(toy.weights(cloning, "policy") - stats_before, expected)
    assert stats.clip_fraction == 0
    assert stats.approx_kl > 0.01
    # PPO's clip has stopped some of these tokens, and divides by the failures' tokens, too.
    assert not torch.allclose(stopped * len(imitated_N) / imitated_N.sum(), expected, atol=1e-5)


def test_without_a_success_nothing_is_imitated(build: Build) -> None:
    none = replace(CREDIT, advantages_BL=torch.zeros_like(CREDIT.advantages_BL))
    assert not moved_by(build(advantage="cloning"), none).any()


# --- what does not go together ---


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"advantage": "token_gae", "importance_level": "message"},
            "token_gae credits tokens, and a message",
        ),
        (
            {"advantage": "cloning", "whiten": "both"},
            "whiten: got both, allowed with advantage cloning: auto",
        ),
        ({"importance_level": "sequence"}, "importance_level: got 'sequence', allowed: token, message"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RLConfig(model="-", reward="outcome", **settings)


def test_what_cloning_leaves_without_effect_is_said() -> None:
    unused = toy.config(advantage="cloning").unused()
    assert {"clip_low", "clip_high", "dual_clip", "importance_level", "importance_cap"} <= unused.keys()
