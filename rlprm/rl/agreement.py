"""Settings of agent RL that must agree with each other."""

from __future__ import annotations

from typing import Any

from rlprm.errors import ConfigError
from rlprm.rl.keeping.episodes import kept_count
from rlprm.rl.schedule import round_limits
from rlprm.runtime.tracking import require_tracker

__all__ = ["check_agreement"]


def check_agreement(config: Any) -> None:
    """Refuse settings that do not go together, before any episode is run.

    Args:
        config: a ``rlprm.rl.config.RLConfig``, which imports this module.

    Raises:
        ConfigError: naming the setting, what was received and what is allowed.
    """
    if config.endpoint:
        raise ConfigError(
            "endpoint: train-rl trains the weights of its policy on the tokens that it sampled, and an "
            "endpoint gives neither; unset it, or set server to vLLM servers of your own"
        )
    require_tracker(config.report_to)
    if config.importance_cap and config.old_logprobs == "sampler":
        raise ConfigError(
            "importance_cap: with old_logprobs sampler the ratio corrects for the sampler already; "
            "unset it, or set old_logprobs trainer"
        )
    if config.max_staleness:
        _check_staleness(config)
    if config.lora_dropout:
        raise ConfigError(
            f"lora_dropout: got {config.lora_dropout}, allowed: 0 (the policy must act as it learns)"
        )
    if config.bootstrap_truncations and not config.prm:
        raise ConfigError("bootstrap_truncations: needs a PRM for what follows a truncation; set prm")
    if config.refresh_every and not config.prm:
        raise ConfigError("refresh_every: there is no PRM to refresh; set prm")
    round_limits(config.round_limits)
    kept_count(config.keep_rollouts)
    if config.on_alarm == "rollback" and (not config.eval_every or config.select != "best"):
        raise ConfigError("on_alarm: got rollback, which needs eval_every above 0 and select best")
    if config.on_alarm == "rollback" and config.max_staleness:
        raise ConfigError("on_alarm: got rollback, allowed with max_staleness 1: warn, stop")
    _check_credit(config)


def _check_staleness(config: Any) -> None:
    """Refuse episodes of older weights if nothing runs them meanwhile, or nothing corrects for them."""
    if not config.server:
        raise ConfigError(
            "max_staleness: got 1, allowed: 0 without server (acting and learning take turns then)"
        )
    if config.importance_cap == 0 or config.old_logprobs != "trainer":
        raise ConfigError(
            "max_staleness: got 1, which needs importance weights for the older policy; set "
            "importance_cap above 0 and old_logprobs trainer"
        )


def _check_credit(config: Any) -> None:
    """Refuse a reward and an advantage that do not go together."""
    # These import torch: after everything that is checked without.
    from rlprm.rl import advantages, rewards
    from rlprm.rl.combinations import check_combination, check_objective, check_selection

    check_objective(config.advantage, importance_level=config.importance_level, whiten=config.whiten)
    rewards.check_settings(config.reward, config.reward_kwargs, gamma=config.gamma)
    advantages.check_settings(config.advantage, config.advantage_kwargs, gamma=config.gamma)
    check_combination(
        config.reward, config.advantage, samples_per_task=config.samples_per_task,
        bootstrap=config.bootstrap_truncations,
    )  # fmt: skip
    check_selection(
        config.reward, config.advantage, dynamic_sampling=config.dynamic_sampling,
        tasks_by_difficulty=config.tasks_by_difficulty, max_staleness=config.max_staleness,
        best_of=config.best_of, has_prm=bool(config.prm),
    )  # fmt: skip
    if not config.prm and config.uses_prm:
        raise ConfigError(
            f"prm: nothing given, but reward {config.reward} with estimator {config.advantage} needs the "
            "values of a PRM; set it, or choose reward outcome and an estimator without, e.g. turn_gae"
        )
    if config.bootstrap_truncations and rewards.critic_factor(config.reward, config.reward_kwargs) is None:
        raise ConfigError(
            f"bootstrap_truncations: what is still to come is unknown under reward {config.reward}; count "
            "truncations as ends"
        )
