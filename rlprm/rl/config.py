"""Settings of agent RL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlprm import envs, labels
from rlprm.components import canonical, user_sources
from rlprm.errors import ConfigError
from rlprm.functional._checks import check_number, check_unit_interval
from rlprm.functional.kl import KL_LOSSES
from rlprm.models.lora import TuningConfig
from rlprm.policies.config import PolicyConfig
from rlprm.rl import advantages, rewards
from rlprm.rl.combinations import check_combination
from rlprm.rl.credit import WHITENINGS, CreditSetting
from rlprm.rl.schedule import LR_SCHEDULES, round_limits
from rlprm.runtime.config import setting
from rlprm.runtime.tracking import TRACKERS

_CRITICS = ("separate", "shared")
_AT_LEAST = {
    "iterations": 1, "tasks_per_iteration": 1, "samples_per_task": 1, "num_tasks": 1, "first_task": 0,
    "ppo_epochs": 1, "minibatches": 1, "micro_batch_tokens": 1, "warmup_iterations": 0, "refresh_every": 0,
    "critic_warmup_iterations": 0, "eval_every": 0, "eval_tasks": 1, "eval_samples": 1, "test_tasks": 0,
    "test_samples": 1, "save_every": 0, "keep_checkpoints": 1, "table_every": 0, "alarm_window": 2,
    "repeat_probe": 0, "max_env_steps": 0,
}  # fmt: skip
_NOT_NEGATIVE = (
    "kl_coef", "value_coef", "entropy_coef", "weight_decay", "max_grad_norm", "alarm_gap",
    "min_learning_rate",
)  # fmt: skip
_ABOVE = {"clip_high": 0.0, "dual_clip": 1.0, "value_clip": 0.0, "target_kl": 0.0, "importance_cap": 0.0}
_ABOVE_ZERO = ("learning_rate", "critic_learning_rate_factor", "temperature")


@dataclass
class RLConfig(TuningConfig, PolicyConfig):
    """Settings of ``rlprm train-rl``."""

    # What is rewarded, and who gets the credit
    prm: str = setting("", "Folder of the PRM whose values are the dense signal; none for reward outcome.")
    reward: str = setting("progress", "Step reward: progress, outcome, promise, min, terminal, ...")
    reward_kwargs: dict[str, Any] = setting({}, "Settings of the reward, e.g. reward_kwargs.scale.")
    advantage: str = setting(
        "turn_gae", "Advantages: turn_gae, token_gae, group, leave_one_out, prm_critic, ..."
    )
    advantage_kwargs: dict[str, Any] = setting({}, "Settings of the estimator, e.g. advantage_kwargs.lam.")
    gamma: float = setting(1.0, "Discount from turn to turn.")
    outcome: str = setting("success", "What the outcome is: success (0 or 1) or score (graded).")
    bootstrap_truncations: bool = setting(
        False, "Take an episode stopped by a limit as going on (its worth: the PRM's last value)."
    )
    whiten: str = setting("auto", "Advantages over an update: both, scale, none, or auto (the estimator's).")
    # Tasks
    first_task: int = setting(0, "First task of the train split.")
    num_tasks: int = setting(100_000, "Tasks to go through, in order, and then again.")
    iterations: int = setting(100, "Number of iterations: rollouts, then an update.")
    max_env_steps: int = setting(
        0, "End after the iteration in which this many steps are taken; 0: no limit."
    )
    tasks_per_iteration: int = setting(64, "Tasks of an iteration.")
    samples_per_task: int = setting(4, "Rollouts of each.")
    round_limits: dict[str, Any] = setting(
        {}, "Curriculum: from which iteration on episodes may have how many turns, e.g. {0: 6, 40: 12}."
    )
    # The update
    critic: str = setting("separate", "The critic: separate (a model of its own) or shared (a head).")
    critic_model: str = setting("", "Weights a separate critic starts from; the PRM's, else the policy's.")
    learning_rate: float = setting(1e-4, "Step size of the policy.")
    critic_learning_rate_factor: float = setting(5.0, "The critic's step size, in those of the policy.")
    lr_schedule: str = setting("constant", "Over the iterations: constant, linear or cosine.")
    min_learning_rate: float = setting(0.0, "Where linear and cosine end, as a share of learning_rate.")
    warmup_iterations: int = setting(0, "First iterations, in which the step size rises.")
    critic_warmup_iterations: int = setting(1, "First iterations, in which only the critic learns.")
    ppo_epochs: int = setting(1, "Passes over an iteration's episodes.")
    minibatches: int = setting(4, "Optimiser steps of a pass.")
    micro_batch_tokens: int = setting(16_384, "Padded tokens that go forward and back at a time, a process.")
    clip_low: float = setting(0.2, "PPO: how far the ratio may fall below 1.")
    clip_high: float = setting(0.2, "PPO: how far it may rise above 1.")
    dual_clip: float | None = setting(None, "PPO: bound of the ratio where the advantage is negative.")
    value_clip: float | None = setting(None, "Largest change of a value that still pulls; unset: no limit.")
    value_coef: float = setting(0.5, "Weight of the critic's loss.")
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus.")
    kl_coef: float = setting(0.0, "Weight of the KL to the policy before RL.")
    kl_in: str = setting("loss", "Where the KL is held: loss (unbiased term) or reward (k1).")
    kl_loss: str = setting("unbiased", "The term in the loss: unbiased or k2.")
    target_kl: float | None = setting(None, "End an iteration's update where the policy has moved this far.")
    old_logprobs: str = setting(
        "trainer", "Log-probabilities of the ratio's denominator: trainer (computed again) or sampler."
    )
    importance_cap: float | None = setting(
        None, "Correct for a sampler that differs from the trainer, with weights cut here; 2 is common."
    )
    weight_decay: float = setting(0.0, "AdamW's weight decay.")
    max_grad_norm: float = setting(
        1.0, "Gradients are cut to this norm, policy and separate critic each by itself; 0: not at all."
    )
    bf16: bool | None = setting(None, "Train in bfloat16; decided by the hardware if unset.")
    gradient_checkpointing: bool = setting(False, "Compute activations again on the way back: less memory.")
    dtype: str = setting(
        "auto", "Weights while training: auto (float32; bfloat16 under LoRA where bf16 is on), or a name."
    )
    # The PRM as the policy drifts
    refresh_every: int = setting(0, "Train the PRM on fresh trajectories every so many iterations; 0: never.")
    refresh_kwargs: dict[str, Any] = setting({}, "Settings of that training, as for rlprm train-prm.")
    # Looking at it
    eval_every: int = setting(10, "Iterations between evaluations on dev tasks, the last included; 0: none.")
    eval_tasks: int = setting(128, "Dev tasks of such an evaluation.")
    eval_samples: int = setting(1, "Rollouts of each.")
    select: str = setting("best", "Which policy is kept: best (on dev tasks) or last.")
    test_tasks: int = setting(256, "Test tasks that the policy is measured on before and after; 0: none.")
    test_samples: int = setting(4, "Rollouts of each, beside a greedy one.")
    alarm_window: int = setting(5, "Iterations that the alarm compares.")
    alarm_gap: float = setting(0.1, "How much more than at first the PRM may overrate episodes.")
    stop_on_alarm: bool = setting(False, "End training when the alarm rings, instead of warning.")
    repeat_probe: int = setting(16, "Episodes in which the PRM is probed with a repeated action; 0: none.")
    table_every: int = setting(10, "Iterations between tables of trajectories for the tracker; 0: none.")
    log_artifacts: bool = setting(False, "Send the policy to the tracker as an artifact at the end.")
    report_to: str = setting("none", "Tracker: none, wandb, tensorboard.")
    # Keeping it
    save_every: int = setting(10, "Iterations between resumable checkpoints; 0: none.")
    keep_checkpoints: int = setting(2, "Newest checkpoints that are kept.")
    output_dir: str = setting("runs/rl", "Where the policy, logs and checkpoints go.")

    def __post_init__(self) -> None:
        """Refuse impossible values and combinations, before any episode is run.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        self.reward, self.advantage = canonical(self.reward), canonical(self.advantage)
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: {least} or more")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: 0 or more")
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed: above 0")
        check_unit_interval("clip_low", self.clip_low)
        for name, bound in _ABOVE.items():
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=bound)
        if self.importance_cap is not None and self.old_logprobs == "sampler":
            raise ConfigError(
                "importance_cap: with old_logprobs sampler the ratio corrects for the sampler already; "
                "unset it, or set old_logprobs trainer"
            )
        _allow("outcome", self.outcome, ("success", "score"))
        _allow("whiten", self.whiten, WHITENINGS)
        _allow("critic", self.critic, _CRITICS)
        _allow("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        _allow("kl_in", self.kl_in, ("loss", "reward"))
        _allow("kl_loss", self.kl_loss, KL_LOSSES)
        _allow("old_logprobs", self.old_logprobs, ("trainer", "sampler"))
        _allow("select", self.select, ("best", "last"))
        _allow("report_to", self.report_to, TRACKERS)
        if self.lora_dropout:
            raise ConfigError(
                f"lora_dropout: got {self.lora_dropout}, allowed: 0 (the policy must act as it learns)"
            )
        rewards.check_settings(self.reward, self.reward_kwargs, gamma=self.gamma)
        advantages.check_settings(self.advantage, self.advantage_kwargs, gamma=self.gamma)
        check_combination(
            self.reward,
            self.advantage,
            samples_per_task=self.samples_per_task,
            bootstrap=self.bootstrap_truncations,
        )
        if not self.prm and self.uses_prm:
            raise ConfigError(
                f"prm: nothing given, but reward {self.reward} with estimator {self.advantage} needs the "
                "values of a PRM; set it, or choose reward outcome and another estimator"
            )
        if self.bootstrap_truncations and not self.prm:
            raise ConfigError("bootstrap_truncations: needs a PRM for what follows a truncation; set prm")
        if self.bootstrap_truncations and rewards.critic_factor(self.reward, self.reward_kwargs) is None:
            raise ConfigError(
                f"bootstrap_truncations: what is still to come is unknown under reward {self.reward}; count "
                "truncations as ends"
            )
        if self.refresh_every and not self.prm:
            raise ConfigError("refresh_every: there is no PRM to refresh; set prm")
        round_limits(self.round_limits)

    @property
    def uses_prm(self) -> bool:
        """Whether credit depends on the PRM (it is read for the diagnostics wherever it is given)."""
        needs = advantages.load(self.advantage).NEEDS
        return rewards.load(self.reward).NEEDS_VALUES or "prm_values_BT1" in needs

    @property
    def trains_critic(self) -> bool:
        """Whether the estimator learns from a critic's values."""
        return bool(advantages.load(self.advantage).NEEDS & {"values_BT", "values_BL"})

    def sources(self) -> dict[str, Any]:
        """Return what the user's own code adds to a record, see :func:`rlprm.components.user_sources`."""
        used: dict[str, Any] = {
            "environment": envs.load(self.environment),
            "reward": rewards.load(self.reward),
            "advantage": advantages.load(self.advantage),
        }
        if self.refresh_every and (estimator := self.refresh_kwargs.get("label_estimator")):
            used["label_estimator"] = labels.load(estimator)
        return user_sources(**used)

    def credit_setting(self) -> CreditSetting:
        """Return what decides who gets credit."""
        return CreditSetting(
            reward=self.reward,
            reward_kwargs=self.reward_kwargs,
            advantage=self.advantage,
            advantage_kwargs=self.advantage_kwargs,
            gamma=self.gamma,
            bootstrap_truncations=self.bootstrap_truncations,
            kl_penalty=self.kl_coef if self.kl_in == "reward" else 0.0,
            whiten=self.whiten,
        )


def _allow(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: got {value!r}, allowed: {', '.join(allowed)}")
