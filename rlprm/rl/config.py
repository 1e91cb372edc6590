"""Settings of agent RL."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlprm import envs
from rlprm.components import user_sources
from rlprm.errors import ConfigError
from rlprm.policies.config import PolicyConfig
from rlprm.rl.agreement import check_agreement
from rlprm.rl.schedule import LR_SCHEDULES
from rlprm.runtime.settings import setting
from rlprm.runtime.tracking import TRACKERS
from rlprm.runtime.tuning import TuningConfig

if TYPE_CHECKING:
    from rlprm.rl.credit import CreditSetting

__all__ = ["RLConfig"]

log = logging.getLogger(__name__)
_SMALL, _LARGE = 10_000_000, 100_000_000
"""Weights, from which on other defaults hold."""
_ACTION_TOKENS = 32
_UNSET: dict[str, Any] = {"learning_rate": None, "max_new_tokens": 0, "importance_cap": None}
_CLIPS = {"token": (0.2, 0.2), "message": (3e-4, 4e-4)}
"""How far a ratio may fall and rise, by what it is of; those of a message are GSPO's."""
_CREDIT = "Reward and credit"
_TASKS = "Tasks and iterations"
_UPDATE = "Update (PPO)"
_CRITIC = "Critic"
_REFRESH = "PRM refresh"
_MONITOR = "Evaluation and monitoring"
_KEEPING = "Logging and checkpoints"


@dataclass
class RLConfig(TuningConfig, PolicyConfig):
    """Settings of ``rlprm train-rl``."""

    STAGE: ClassVar[str] = "train-rl"

    # Reward and credit
    prm: str = setting(
        "", "Folder of the PRM whose values are the dense signal; none for an estimator without one.",
        group=_CREDIT,
    )  # fmt: skip
    reward: str = setting(
        "outcome", "Step reward: outcome, progress, promise, min, terminal, ...",
        family="step reward", kwargs="reward_kwargs", group=_CREDIT,
    )  # fmt: skip
    reward_kwargs: dict[str, Any] = setting(
        {}, "Settings of the reward, e.g. reward_kwargs.scale.", group=_CREDIT
    )
    advantage: str = setting(
        "outcome_plus_progress",
        "Advantages: outcome_plus_progress, prm_critic, turn_gae, token_gae, group, leave_one_out, ...",
        family="advantage estimator", kwargs="advantage_kwargs", group=_CREDIT,
    )  # fmt: skip
    advantage_kwargs: dict[str, Any] = setting(
        {}, "Settings of the estimator, e.g. advantage_kwargs.lam.", group=_CREDIT
    )
    gamma: float = setting(1.0, "Discount from turn to turn.", least=0, most=1, group=_CREDIT)
    outcome: str = setting(
        "success", "What the outcome is: success (0 or 1) or score (graded).",
        choices=("success", "score"), group=_CREDIT,
    )  # fmt: skip
    bootstrap_truncations: bool = setting(
        False, "Take an episode stopped by a limit as going on (its value: the PRM's last one).",
        group=_CREDIT,
    )  # fmt: skip
    whiten: str = setting(
        "auto", "Advantages over an update: both, scale, none, or auto (the estimator's).",
        choices=("auto", "both", "scale", "none"), group=_CREDIT,
    )  # fmt: skip
    # Tasks and iterations
    first_task: int = setting(0, "First task of the train split.", least=0, group=_TASKS)
    num_tasks: int = setting(
        100_000, "Tasks to go through, and then again; shuffled, at most those the split has.",
        least=1, group=_TASKS,
    )  # fmt: skip
    shuffle_tasks: bool = setting(
        True, "Take the tasks in an order drawn from the seed, another one for each pass.", group=_TASKS
    )
    iterations: int = setting(100, "Number of iterations: rollouts, then an update.", least=1, group=_TASKS)
    max_env_steps: int = setting(
        0, "End after the iteration in which this many steps are taken; 0: no limit.", least=0, group=_TASKS
    )
    tasks_per_iteration: int = setting(64, "Tasks of an iteration.", least=1, group=_TASKS)
    samples_per_task: int = setting(4, "Rollouts of each task.", least=1, group=_TASKS)
    dynamic_sampling: bool = setting(
        False,
        "Leave out tasks whose episodes all have the same return, and run further tasks in their place, "
        "for at most 3 rounds an iteration.",
        group=_TASKS, recorded="changed",
    )  # fmt: skip
    tasks_by_difficulty: bool = setting(
        False,
        "From the second pass over the tasks on, take those first whose success was 20 to 80 % when they "
        "were last run.",
        group=_TASKS, recorded="changed",
    )  # fmt: skip
    best_of: int = setting(
        1,
        "Rollouts of which the one that the PRM values most at its end is learned from (expert iteration, "
        "with advantage cloning); samples_per_task counts those that are kept.",
        least=1, group=_TASKS, recorded="changed",
    )  # fmt: skip
    round_limits: dict[str, Any] = setting(
        {}, "Curriculum: from which iteration on episodes may have how many turns, e.g. {0: 6, 40: 12}.",
        group=_TASKS,
    )  # fmt: skip
    min_usable_share: float = setting(
        0.5, "Least share of episodes that must have worked; below it the run ends.",
        least=0, most=1, group=_TASKS, recorded="never",
    )  # fmt: skip
    temperature: float = setting(1.0, "Sampling temperature.", above=0, group="Policy")
    # The update
    max_new_tokens: int = setting(
        0,
        "Longest action, in tokens, its closing token included; 0: 32 for models of less than 100 million "
        "weights, no default for larger ones.",
        least=0, group="Policy",
    )  # fmt: skip
    learning_rate: float | None = setting(
        None,
        "Step size of the policy; if unset 1e-4, from 10 million weights on 1e-5, from 100 million on 1e-6 "
        "for all weights and 1e-5 for adapters.",
        above=0, group=_UPDATE,
    )  # fmt: skip
    lr_schedule: str = setting(
        "constant", "Step size over the iterations.", choices=LR_SCHEDULES, group=_UPDATE
    )
    min_learning_rate: float = setting(
        0.0, "Where linear and cosine end, as a share of learning_rate.", least=0, group=_UPDATE
    )
    warmup_iterations: int = setting(
        0,
        "First iterations in which the policy learns, over which the step size rises.",
        least=0,
        group=_UPDATE,
    )
    ppo_epochs: int = setting(1, "Passes over an iteration's episodes.", least=1, group=_UPDATE)
    minibatches: int = setting(4, "Optimiser steps of a pass.", least=1, group=_UPDATE)
    micro_batch_tokens: int = setting(
        16_384, "Most padded tokens that go forward and back at a time, a process.", least=1, group=_UPDATE
    )
    importance_level: str = setting(
        "token",
        "What the ratio is of: token, or message, the geometric mean over the tokens of a message (GSPO).",
        choices=("token", "message"), group=_UPDATE, recorded="changed",
    )  # fmt: skip
    clip_low: float | None = setting(
        None, "How far the ratio may fall below 1; if unset 0.2, of a message 3e-4.", least=0, most=1,
        group=_UPDATE,
    )  # fmt: skip
    clip_high: float | None = setting(
        None, "How far the ratio may rise above 1; if unset 0.2, of a message 4e-4.", above=0, group=_UPDATE
    )
    mask_cut_messages: bool = setting(
        False, "Leave messages that were cut at max_new_tokens out of the policy's losses.", group=_UPDATE,
        recorded="changed",
    )  # fmt: skip
    dual_clip: float | None = setting(
        None, "Bound of the ratio if the advantage is negative.", above=1, group=_UPDATE
    )
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus.", least=0, group=_UPDATE)
    kl_coef: float = setting(0.0, "Weight of the KL to the policy before RL.", least=0, group=_UPDATE)
    kl_in: str = setting(
        "loss", "Where the KL stands: loss (unbiased term) or reward (k1).",
        choices=("loss", "reward"), group=_UPDATE,
    )  # fmt: skip
    kl_loss: str = setting("unbiased", "The KL term of the loss.", choices=("unbiased", "k2"), group=_UPDATE)
    target_kl: float | None = setting(
        None, "End an iteration's update if the policy has moved this far.", above=0, group=_UPDATE
    )
    old_logprobs: str = setting(
        "trainer",
        "Log-probabilities of the ratio's denominator: trainer (computed again, unless the sampler's are the "
        "same up to rounding) or sampler.",
        choices=("trainer", "sampler"),
        group=_UPDATE,
    )
    importance_cap: float | None = setting(
        None,
        "Correct for a sampler that differs from the trainer, with weights cut here; 0: no correction; if "
        "unset 2 with adapters, with max_staleness and from 100 million weights on, else 0.",
        least=0, group=_UPDATE,
    )  # fmt: skip
    max_sampler_mismatch: float | None = setting(
        None,
        "Largest mean difference of the log-probabilities of sampler and trainer, in nats; beyond it the run "
        "stops. If unset 0.001 in float32 and 0.15 in half precision, divided by a temperature below 1.",
        above=0, group=_UPDATE,
    )  # fmt: skip
    weight_decay: float = setting(0.0, "AdamW's weight decay.", least=0, group=_UPDATE)
    max_grad_norm: float = setting(
        1.0, "Gradients are scaled down to this norm, of policy and separate critic each; 0: never.",
        least=0, group=_UPDATE,
    )  # fmt: skip
    bf16: bool | None = setting(None, "Compute in bfloat16; decided by the hardware if unset.", group=_UPDATE)
    gradient_checkpointing: bool = setting(
        False, "Compute activations again on the way back: less memory.", group=_UPDATE
    )
    dtype: str = setting(
        "auto", "Weights in training; auto: float32, or bfloat16 under LoRA if bf16 is on.",
        choices=("auto", "float32", "bfloat16"), group="Weights that are trained",
    )  # fmt: skip
    max_staleness: int = setting(
        0,
        "1: the servers run the next iteration's episodes while the trainer learns from the present ones, "
        "so that episodes are one version old; 0: they wait for each other.",
        least=0, most=1, group="Policy on a server", recorded="changed",
    )  # fmt: skip
    sync_dir: str = setting(
        "",
        "Folder that the servers see under the same path, for new weights; a RAM disk such as /dev/shm/NAME "
        "is fastest; sync in output_dir if unset.",
        group="Policy on a server", recorded="never",
    )  # fmt: skip
    # The critic
    critic: str = setting(
        "separate", "The critic: separate (a model of its own) or shared (a head).",
        choices=("separate", "shared"), group=_CRITIC,
    )  # fmt: skip
    critic_model: str = setting(
        "", "Weights a separate critic starts from; the PRM's, else the policy's.", group=_CRITIC
    )
    critic_learning_rate_factor: float = setting(
        5.0, "The critic's step size, as a multiple of the policy's.", above=0, group=_CRITIC
    )
    critic_warmup_iterations: int = setting(
        1, "First iterations, in which only the critic learns.", least=0, group=_CRITIC
    )
    value_clip: float | None = setting(
        None, "Largest change of a value that still has a gradient; unset: no limit.", above=0, group=_CRITIC
    )
    value_coef: float = setting(0.5, "Weight of the critic's loss.", least=0, group=_CRITIC)
    # The PRM as the policy drifts
    refresh_every: int = setting(
        0, "Train the PRM on fresh trajectories every so many iterations; 0: never.", least=0, group=_REFRESH
    )
    refresh_kwargs: dict[str, Any] = setting(
        {}, "Settings of that training, as for rlprm train-prm.", group=_REFRESH
    )
    # Evaluation and monitoring
    eval_every: int = setting(
        10, "Iterations between evaluations on dev tasks, the last included; 0: none.", least=0,
        group=_MONITOR,
    )  # fmt: skip
    eval_tasks: int = setting(128, "Dev tasks of such an evaluation.", least=1, group=_MONITOR)
    eval_samples: int = setting(1, "Rollouts of each dev task.", least=1, group=_MONITOR)
    select: str = setting(
        "best",
        "Which policy is kept: best (the latest within one standard error of the highest outcome on dev "
        "tasks) or last.",
        choices=("best", "last"), group=_MONITOR,
    )  # fmt: skip
    test_tasks: int = setting(
        256, "Test tasks that the policy is measured on before and after; 0: none.", least=0, group=_MONITOR
    )
    test_samples: int = setting(
        4, "Rollouts of each test task, beside a greedy one.", least=1, group=_MONITOR
    )
    on_alarm: str = setting(
        "warn", "What follows when the alarm rings: warn, stop, or rollback (to the best dev result).",
        choices=("warn", "stop", "rollback"), group=_MONITOR,
    )  # fmt: skip
    rollback_factor: float = setting(
        0.5, "Factor of the learning rate after a rollback.", above=0, most=1, group=_MONITOR,
        recorded="changed",
    )  # fmt: skip
    max_rollbacks: int = setting(
        2, "Rollbacks of a run; the next alarm ends it.", least=1, group=_MONITOR, recorded="changed"
    )
    repeat_probe: int = setting(
        16, "Episodes in which the PRM is probed with a repeated action; 0: none.", least=0, group=_MONITOR
    )
    heartbeat_timeout: float = setting(
        600.0,
        "Seconds without life in another process that end the run; 0: no limit.",
        least=0, group=_MONITOR, recorded="never",
    )  # fmt: skip
    table_every: int = setting(
        10, "Iterations between tables of trajectories for the tracker; 0: none.", least=0, group=_KEEPING
    )
    log_artifacts: bool = setting(
        False, "Send the policy to the tracker as an artifact at the end.", group=_KEEPING
    )
    report_to: str = setting("none", "Tracker of metrics.", choices=TRACKERS, group=_KEEPING)
    save_every: int = setting(
        10, "Iterations between resumable checkpoints; 0: none.", least=0, group=_KEEPING
    )
    keep_checkpoints: int = setting(2, "Newest checkpoints that are kept.", least=1, group=_KEEPING)
    keep_rollouts: str = setting(
        "none", "Episodes kept in rollouts/: none, all, or last N (iterations).",
        group=_KEEPING, recorded="never",
    )  # fmt: skip
    save_on_preemption: bool = setting(
        True, "Save a checkpoint on SIGTERM and SIGINT.", group=_KEEPING, recorded="never"
    )
    output_dir: str = setting("runs/rl", "Where the policy, logs and checkpoints go.", group=_KEEPING)

    def __post_init__(self) -> None:
        """Check the settings one by one, then those that must agree, before any episode is run.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        check_agreement(self)

    def settled(self, *, parameters: int) -> RLConfig:
        """Return these settings with a value for each that depends on the size of the model.

        Args:
            parameters: weights of the policy.

        Raises:
            ConfigError: if a setting has no default for a model of this size.
        """
        is_large = parameters >= _LARGE
        if is_large and not self.max_new_tokens:
            raise ConfigError(
                f"max_new_tokens: got nothing, and a policy of {parameters / 1e6:.0f} million weights has no "
                "default; set it (actions alone: about 32, a thought and an action: 128 to 512)"
            )
        rate = 1e-4
        if parameters >= _SMALL:
            rate = 1e-6 if is_large and not self.lora_r else 1e-5
        differs = is_large or self.lora_r > 0 or self.max_staleness > 0
        corrects = differs and self.old_logprobs == "trainer"
        by_size: dict[str, Any] = {
            "learning_rate": rate,
            "max_new_tokens": _ACTION_TOKENS,
            # None is what runs of earlier versions have in their records.
            "importance_cap": 2.0 if corrects else None,
        }
        chosen = {name: value for name, value in by_size.items() if getattr(self, name) == _UNSET[name]}
        if chosen:
            log.info(
                "chosen for a policy of %s weights%s: %s",
                f"{parameters:,}", " with adapters" if self.lora_r else "",
                ", ".join(f"{name} {value or 0:g}" for name, value in chosen.items()),
            )  # fmt: skip
        low, high = _CLIPS[self.importance_level]
        clips: dict[str, Any] = {
            "clip_low": low if self.clip_low is None else self.clip_low,
            "clip_high": high if self.clip_high is None else self.clip_high,
        }
        return replace(self, **chosen, **clips)

    @property
    def rollouts_per_task(self) -> int:
        """Rollouts of each task in an iteration, those that are not learned from included."""
        return self.samples_per_task * self.best_of

    @property
    def step_size(self) -> float:
        """The policy's learning rate, once it is settled."""
        if self.learning_rate is None:
            raise RuntimeError("the learning rate has not been settled yet")
        return self.learning_rate

    @property
    def uses_prm(self) -> bool:
        """Whether what is learned depends on the PRM (it is read for diagnostics whenever it is given)."""
        from rlprm.rl import advantages, rewards

        needs = advantages.load(self.advantage).NEEDS
        pays = rewards.load(self.reward).NEEDS_VALUES
        return pays or "prm_values_BT1" in needs or self.best_of > 1

    @property
    def trains_critic(self) -> bool:
        """Whether the estimator learns from a critic's values."""
        from rlprm.rl import advantages

        return bool(advantages.load(self.advantage).NEEDS & {"values_BT", "values_BL"})

    @property
    def critic_only_iterations(self) -> int:
        """First iterations, in which only the critic learns; 0 without a critic."""
        return self.critic_warmup_iterations if self.trains_critic else 0

    @property
    def clones(self) -> bool:
        """Whether the policy learns by likelihood alone, without PPO's ratio."""
        from rlprm.rl import advantages

        return advantages.imitates(self.advantage)

    def sources(self) -> dict[str, Any]:
        """Return what the user's own code adds to a record, see :func:`rlprm.components.user_sources`."""
        from rlprm import labels
        from rlprm.rl import advantages, rewards

        used: dict[str, Any] = {
            "environment": envs.load(self.environment),
            "reward": rewards.load(self.reward),
            "advantage": advantages.load(self.advantage),
        }
        if self.refresh_every and (estimator := self.refresh_kwargs.get("label_estimator")):
            used["label_estimator"] = labels.load(estimator)
        return user_sources(**used)

    def credit_setting(self) -> CreditSetting:
        """Return the settings that decide how credit is assigned."""
        from rlprm.rl.credit import CreditSetting

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

    def unused(self) -> dict[str, str]:
        """Return settings that the chosen reward, advantage, critic or schedule leaves without effect."""
        found = super().unused()
        if not self.prm:
            found |= {"repeat_probe": "no prm"}
        if not self.trains_critic:
            names = (
                "critic", "critic_model", "critic_learning_rate_factor", "critic_warmup_iterations",
                "value_clip", "value_coef",
            )  # fmt: skip
            found |= dict.fromkeys(names, f"advantage {self.advantage} has no critic")
        elif self.critic == "shared":
            found |= {"critic_model": "critic shared"}
        if self.clones:
            of_ratio = ("importance_level", "importance_cap", "clip_low", "clip_high", "dual_clip")
            found |= dict.fromkeys(of_ratio, f"advantage {self.advantage} has no ratio")
        if not self.kl_coef:
            found |= dict.fromkeys(("kl_in", "kl_loss"), "kl_coef 0")
        elif self.kl_in == "reward":
            found |= {"kl_loss": "kl_in reward"}
        if self.lr_schedule == "constant":
            found |= {"min_learning_rate": "lr_schedule constant"}
        if self.on_alarm != "rollback":
            found |= dict.fromkeys(("rollback_factor", "max_rollbacks"), f"on_alarm {self.on_alarm}")
        if not self.refresh_every:
            found |= {"refresh_kwargs": "refresh_every 0"}
        if not self.eval_every:
            found |= dict.fromkeys(("eval_tasks", "eval_samples", "select"), "eval_every 0")
        if not self.test_tasks:
            found |= {"test_samples": "test_tasks 0"}
        if not self.save_every:
            found |= {"keep_checkpoints": "save_every 0"}
        if self.report_to == "none":
            found |= dict.fromkeys(("table_every", "log_artifacts"), "report_to none")
        return found
