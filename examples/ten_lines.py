"""What ``rlprm quickstart`` made, used from Python in ten lines. Run it in the folder that holds ``runs``."""

import rlprm

env = rlprm.load_environment("babyai", levels=["GoToLocalS8N7", "PickupLoc"])
policy = rlprm.load_policy("runs/quickstart/policy", temperature=1.0, max_new_tokens=16)
episodes = rlprm.run_episodes(policy, env.tasks("train", start=300_000, count=64), samples=4)
prm = rlprm.train_prm(
    episodes, model="runs/quickstart/policy", output_dir="runs/prm", num_train_epochs=4, learning_rate=1e-3
)
labels = rlprm.td_gae_labels(episodes, prm.score(episodes), lam=0.95)  # what another epoch would learn
best = rlprm.best_of_n(env.tasks("test", count=32), policy, prm, n=8)
beams = rlprm.beam_search(env.tasks("test", count=32), policy, prm, n=4, m=4)
print([sum(result.trajectory.outcome.success for result in results) for results in (best, beams)], "of 32")
summary = rlprm.train_rl(
    "runs/quickstart/policy", prm=prm, environment=env, output_dir="runs/better", iterations=4
)
