"""Stage 2: a policy acts in an environment; trajectories go to disk, wave by wave."""

from __future__ import annotations

import logging
from collections import Counter

from rlprm import envs
from rlprm.data.failures import has_failed, report_failures
from rlprm.data.fed_tokens import fed_tokens
from rlprm.data.message_counts import message_counts, thought_shares
from rlprm.data.store import TrajectoryStore
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.policies.openai.costs import recording_costs
from rlprm.rollouts.collection import collect
from rlprm.runtime.processes import start_processes
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.record import FAILED, is_finished, recorded
from rlprm.runtime.settings import own_settings
from rlprm.stages.settings import CollectConfig
from rlprm.types import Split

log = logging.getLogger(__name__)


@with_loading_options
def run(config: CollectConfig) -> TrajectoryStore:
    """Collect trajectories; waves that are already there are kept.

    Several processes share the waves; the first one records the run when all are there.
    """
    identity = {
        **own_settings(config),
        "revision": config.policy_revision(),
        **model_files(policy=config.policy_folder()),
        **config.environment_sources(),
    }
    if is_finished(config.output_dir, "collect", identity):
        log.info("%s holds the trajectories of these settings; reusing them", config.output_dir)
        return TrajectoryStore.open(config.output_dir)
    warn_of_policy(config)
    tasks = envs.tasks(
        config.environment, Split(config.split), config.first_task, config.num_tasks, config.env_kwargs
    )
    processes = start_processes()
    with recorded(config.output_dir, "collect", identity) as results:
        policy = config.load_policy()
        with recording_costs(policy, config.output_dir, processes, results):
            store = collect(
                policy,
                tasks,
                config.episode_setting(),
                folder=config.output_dir,
                samples_per_task=config.samples_per_task,
                wave_size=config.wave_size,
                seed=config.seed,
                meta=config.collection_meta(policy),
                processes=processes,
            )
        trajectories = store.read()
        results[FAILED] = report_failures("rollouts", trajectories)
        messages = sum(len(t.steps) for t in trajectories)
        counts = message_counts(trajectories, config.max_new_tokens)
        results.update(
            chat=policy.renderer.record(),
            trajectories=len(trajectories),
            success_rate=sum(t.outcome.success for t in trajectories) / len(trajectories),
            env_steps=messages,
            policy_tokens=sum(fed_tokens(trajectories)),
            sampled_tokens=sum(t.action_tokens for t in trajectories),
            stops=dict(Counter(t.stop.value for t in trajectories if t.stop)),
            **counts,
            cut_rate=counts["cut_messages"] / messages if messages else 0.0,
        )
        if policy.renderer.marks_thoughts:
            results.update(thought_shares(trajectories, policy.renderer.thought_tokens))
        answer = getattr(envs.load(config.environment), "answer", None)
        if answer is not None:
            results["unanswered"] = sum(answer(t) is None for t in trajectories if not has_failed(t))
    log.info(
        "%d trajectories, %.1f %% successful: %s",
        results["trajectories"], 100 * results["success_rate"], config.output_dir,
    )  # fmt: skip
    log.info(
        "%d messages: %s; %.1f %% were cut at max_new_tokens %d",
        messages, ", ".join(f"{number} {name}" for name, number in counts.items()),
        100 * results["cut_rate"], config.max_new_tokens,
    )  # fmt: skip
    return store
