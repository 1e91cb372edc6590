"""AgentPRM (arXiv 2511.08325) in one file: every loop is written out, every function is the library's own.

Offline, under a minute on one core: python examples/agentprm.py [--seed 0] [--scale 0.5]

The agent looks for a goal in a corridor (corridor.py). A sign beside the start names the goal, but most
demonstrators walk away from the sign and guess, and are right in a quarter of the tasks. So does the policy
that learns from them. The process reward model (PRM) only sees how episodes end, and learns that reading the
sign is worth a lot. Search and RL then use the PRM. The task has four goals and says nothing about others.
Tensor names end in their shape: B episodes, T actions (T1: and the prompt), L tokens, N sampled tokens.
"""

import argparse
from pathlib import Path

import torch
from transformers import Qwen2ForTokenClassification

import rlprm
from rlprm.data import batching, text
from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.functional import logprobs, losses, masking, moments, ppo, returns, tokens
from rlprm.models import tiny, tokenizer
from rlprm.models.heads import reading, value_positions
from rlprm.policies.hf import HFPolicy
from rlprm.rl.advantages import AdvantageInputs, prm_critic
from rlprm.rl.batch import Batch, prm_values
from rlprm.rl.rewards import outcome

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--scale", type=float, default=1.0, help="0.5: half as many tasks; below, it may fail")
SEED, SCALE = vars(parser.parse_args()).values()
torch.manual_seed(SEED)
corridor = rlprm.load_environment(str(Path(__file__).with_name("corridor.py")))
world = corridor.module

# --- 1. A policy: a small language model learns the actions of demonstrations -----------------------------
renderer = ChatRenderer(tokenizer.train_tokenizer(world.ACTIONS, phrases=world.FIXED_PHRASES, vocab_size=300))
model = tiny.tiny_model(renderer.tokenizer, size="xs", context_length=256, seed=SEED)


def descend(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def success(trajectories):
    return f"{sum(t.outcome.success for t in trajectories) / len(trajectories):.0%}"


def demonstration(task):
    """Act as a person would: four in ten read the sign, the others walk away from it and guess."""
    guess = ["right"] * torch.randint(1, 3, ()) + ["finish"]
    actions = world.demonstrate(task, end=rlprm.End.DECLARED) if torch.rand(()) < 0.4 else guess
    episode = world.make(task, end=rlprm.End.DECLARED)
    conversation = Conversation(renderer, [{"role": "user", "content": episode.reset()}])
    for action in actions:
        ids = renderer.action_ids(action)
        conversation.act(ids, [0.0] * len(ids))
        conversation.observe(episode.step(action).observation)
    return conversation


def policy_logprobs(ids_BL, sampled_BL):
    """Return log π of the sampled tokens (N,): each is predicted by the logits one place before it."""
    logits_NV = model(input_ids=ids_BL).logits[:, :-1][sampled_BL[:, 1:]]
    return logprobs.token_logprobs(logits_NV, ids_BL[:, 1:][sampled_BL[:, 1:]])


shown = [demonstration(task) for task in corridor.tasks("train", count=int(300 * SCALE))]
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(8):
    for rows in torch.randperm(len(shown)).split(16):
        ids_BL = batching.pad_right([shown[row].token_ids for row in rows], 0)
        sampled_BL = batching.pad_right([shown[row].action_mask for row in rows], 0) == 1
        descend(optimizer, -policy_logprobs(ids_BL, sampled_BL).mean())

# --- 2. Trajectories: the policy acts ---------------------------------------------------------------------
policy = HFPolicy(model, renderer, revision="example", max_new_tokens=4)
tasks = corridor.tasks("train", start=1000, count=int(150 * SCALE))
seen = rlprm.run_episodes(policy, tasks, samples=4, seed=SEED)
print(f"policy: {success(seen)} of {len(seen)} episodes succeed after {len(shown)} demonstrations")

# --- 3. The PRM: the policy's body under a new head, one value per action, trained on TD-GAE labels -------
model.config.num_labels, model.config.classifier_dropout = 1, 0.0
prm = Qwen2ForTokenClassification(model.config)
prm.model.load_state_dict(model.model.state_dict())
torch.nn.init.zeros_(prm.score.weight)
optimizer = torch.optim.AdamW(prm.parameters(), lr=5e-4)
batch = Batch.from_trajectories(seen)
places_BT1 = reading.stack_positions([value_positions.chain_positions(t) for t in seen])  # ends of actions
exists_BT1 = masking.length_mask(batch.lengths_B + 1, places_BT1.shape[1]).float()
for epoch in range(5):
    values_BT1 = reading.read_logits(prm, batch.token_ids_BL, places_BT1).detach()
    # At first the values mean nothing: the first epoch learns the plain outcome (λ = 1), and no progress.
    lam, beta = (1.0, 0.0) if epoch == 0 else (0.95, 1.0)
    promise_BT1, progress_BT = returns.td_gae_labels(values_BT1, batch.outcomes_B, batch.lengths_B, lam=lam)
    for rows in torch.randperm(len(seen)).split(16):
        logits_BT1 = reading.read_logits(prm, batch.token_ids_BL[rows], places_BT1[rows])
        targets, weights = (promise_BT1[rows], progress_BT[rows]), (exists_BT1[rows], exists_BT1[rows, 1:])
        links = batch.lengths_B[rows].sum()
        loss = losses.agent_prm_loss(logits_BT1, *targets, *weights, num_links=links, beta=beta)
        descend(optimizer, loss.total)


class Scorer:
    """All that search and RL know of a PRM: it scores the steps of trajectories, finished or not."""

    name = "prm"

    def score(self, trajectories):
        chains = [value_positions.chain_positions(t) for t in trajectories]
        ids_BL = batching.pad_right([t.token_ids for t in trajectories], 0)
        rows = reading.read_logits(prm, ids_BL, reading.stack_positions(chains)).tolist()
        return [value_positions.step_scores(r[: len(c)]) for r, c in zip(rows, chains, strict=True)]


test_tasks = corridor.tasks("test", count=int(60 * SCALE))
test = rlprm.run_episodes(policy, test_tasks, samples=8, seed=SEED)
for action in ("left", "right"):  # to the sign, and away from it: the first success that begins like this
    example = next(t for t in test if t.outcome.success and t.steps[0].action == action)
    print(f"\n{text.episode_text(example, Scorer().score([example])[0])}")

# --- 4. Search: more samples, and the PRM decides which one counts ----------------------------------------
best = rlprm.best_of_n(test_tasks, policy, Scorer(), n=8, seed=SEED)
beams = rlprm.beam_search(test_tasks, policy, Scorer(), n=4, m=4, seed=SEED)
chosen = [success([result.trajectory for result in results]) for results in (best, beams)]
print(f"\none sample: {success(test)}, best of 8: {chosen[0]}, beam of 4 x 4: {chosen[1]}")

# --- 5. Agent RL: PPO; each action is credited with the progress that the PRM sees in it ------------------
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for iteration in range(int(8 * SCALE)):
    seen = rlprm.run_episodes(policy, tasks[16 * iteration :][:16], samples=4, seed=SEED + 1)
    batch, values_BT1 = Batch.from_trajectories(seen), prm_values(Scorer().score(seen)).values_BT1
    paid = outcome.step_rewards(values_BT1, batch.outcomes_B, batch.lengths_B, gamma=1.0)
    inputs = AdvantageInputs(paid.total, batch.lengths_B, prm_values_BT1=values_BT1)
    estimate = prm_critic.estimate(inputs, gamma=1.0, lam=0.95)
    stats = moments.moments(moments.moment_sums(estimate.advantages, estimate.mask))
    white_BT = moments.whiten(estimate.advantages, estimate.mask, stats)
    advantages_N = tokens.spread_over_tokens(white_BT, batch.layout)[batch.layout.sampled]
    old_N = policy_logprobs(batch.token_ids_BL, batch.layout.sampled).detach()
    for _ in range(4):
        new_N = policy_logprobs(batch.token_ids_BL, batch.layout.sampled)
        loss = ppo.policy_loss(new_N, old_N, advantages_N, torch.ones_like(new_N), denominator=len(new_N))
        descend(optimizer, loss.loss)
    policy.clear()  # it keeps keys and values of the weights before
    print(f"RL, iteration {iteration + 1}: {success(seen)} of {len(seen)} training episodes succeed")
print(f"one sample after RL: {success(rlprm.run_episodes(policy, test_tasks, samples=8, seed=SEED))}")
