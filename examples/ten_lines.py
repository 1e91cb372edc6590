"""What ``rlprm quickstart`` made, used from Python in ten lines. Run it in the folder that holds ``runs``."""

import rlprm

env = rlprm.load_environment("babyai", levels=["FindObjS7", "GoToObjMazeS7", "PickupAbove"])
policy = rlprm.load_policy("runs/quickstart/policy", temperature=1.0, max_new_tokens=16)
train, test = env.tasks("train", start=300_000, count=64), env.tasks("test", count=32)
episodes = rlprm.run_episodes(policy, train, samples=4, seed=0, round_limit=12)
prm = rlprm.train_prm(episodes, model="runs/quickstart/policy", output_dir="runs/prm", environment=env,
                      round_limit=12, num_train_epochs=4, learning_rate=1e-3)  # fmt: skip
labels = rlprm.td_gae_labels(episodes, prm.score(episodes), lam=0.95)  # what another epoch would learn
best = rlprm.best_of_n(test, policy, prm, n=8, round_limit=12)
beams = rlprm.beam_search(test, policy, prm, n=4, m=4, round_limit=12)
summary = rlprm.train_rl("runs/quickstart/policy", prm=prm, environment=env, output_dir="runs/better",
                         round_limit=12, iterations=4)  # fmt: skip
print([sum(result.trajectory.outcome.success for result in results) for results in (best, beams)], summary)
