"""Labels, reward models and agent RL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlprm.api.acting import LoadedEnvironment, load_environment, load_prm
from rlprm.api.settings import build_config
from rlprm.data.store import TrajectoryStore, to_row
from rlprm.errors import ConfigError, DataError
from rlprm.labels import check_no_intermediate_reward, to_step_labels
from rlprm.labels.td_gae import label
from rlprm.prm.config import PRMConfig
from rlprm.rl.config import RLConfig
from rlprm.runtime.parsing.renames import CHANGED_DEFAULTS, with_old_defaults
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.stages import train_prm as prm_stage
from rlprm.stages import train_rl as rl_stage
from rlprm.types import StepLabels, StepScores, Trajectory

__all__ = ["td_gae_labels", "train_prm", "train_rl"]

_DEFAULTS: dict[str, Any] = {
    "env_kwargs": {},
    "round_limit": None,
    "prompt": "none",
    "action_format": "action_only",
}


def td_gae_labels(
    trajectories: Sequence[Trajectory],
    scores: Sequence[StepScores],
    *,
    lam: float = 0.95,
    outcome: str = "success",
) -> list[StepLabels]:
    """Return AgentPRM's labels of trajectories, from their outcomes and a model's current values.

        δ_t = v_t - v_{t-1}   (δ_T = r - v_{T-1}),     Â_t = δ_t + λ Â_{t+1},     Q̂_t = Â_t + v_{t-1}

    The labels are those of the chain ``v_0 ... v_T`` (arXiv 2511.08325); values that a PRM also read before
    actions are not used. :func:`rlprm.functional.returns.td_gae_labels` does the same on padded tensors.

    Args:
        trajectories: finished episodes, each with at least one action.
        scores: of each trajectory, from ``prm.score(trajectories)``.
        lam: λ in [0, 1]: 1 gives Monte-Carlo returns, 0 changes only the target of the last action.
        outcome: r is ``"success"`` (0 or 1) or ``"score"`` (graded).

    Returns:
        One ``StepLabels`` per trajectory: ``promise`` holds Q̂_0 ... Q̂_T, ``progress`` Â_1 ... Â_T.

    Raises:
        ConfigError: for λ outside of [0, 1] or another name of an outcome.
        DataError: if scores and trajectories do not belong together, a trajectory has no action or was
            rewarded before its last action.
    """
    if len(trajectories) != len(scores):
        raise DataError(f"got {len(scores)} scores for {len(trajectories)} trajectories")
    for trajectory, given in zip(trajectories, scores, strict=True):
        check_no_intermediate_reward(trajectory)
        steps, values = len(trajectory.steps), len(given.values)
        if not steps or steps != values:
            where = f"task {trajectory.task.id!r}, sample {trajectory.sample}"
            raise DataError(f"{where}: got {values} values for {steps} actions, allowed: as many, 1 or more")
    if not trajectories:
        return []
    lengths_B = torch.tensor([len(t.steps) for t in trajectories])
    values_BT1 = torch.zeros(len(trajectories), int(lengths_B.max()) + 1)
    for row, given in enumerate(scores):
        values_BT1[row, : len(given.values) + 1] = torch.tensor([given.initial, *given.values])
    outcomes_B = torch.tensor([t.outcome.value(outcome) for t in trajectories])
    return to_step_labels(label(values_BT1, outcomes_B, lengths_B, lam=lam), lengths_B)


def train_prm(
    trajectories: Sequence[Trajectory] | str | Path,
    *,
    model: str | Path,
    output_dir: str | Path,
    environment: LoadedEnvironment | str | None = None,
    round_limit: int | None = None,
    prompt: str = "none",
    action_format: str = "action_only",
    **settings: Any,
) -> CheckpointScorer:
    """Train a process reward model on trajectories, with TD-GAE labels unless the settings say otherwise.

    A finished PRM of the same trajectories and settings in the same folder is reused.

    Args:
        trajectories: of one policy in one environment, or a folder of them made by ``rlprm collect``.
        model: folder of the weights to start from: the policy or the model that the policy started from.
        output_dir: where the PRM goes; trajectories in memory are stored in its folder ``trajectories``.
        environment: of the tasks; its settings are kept with the PRM.
        round_limit: as in :func:`run_episodes`, to be kept with the PRM.
        prompt: as in :func:`run_episodes`, to be kept with the PRM.
        action_format: as in :func:`run_episodes`, to be kept with the PRM.
        **settings: of ``rlprm train-prm``, such as ``head``, ``beta``, ``label_estimator_kwargs``, ``seed``,
            and of ``transformers.TrainingArguments``, such as ``num_train_epochs``, ``learning_rate``.

    Returns:
        The trained PRM, as :func:`load_prm` returns it.

    Raises:
        ArtifactError: if the folder of trajectories or the weights are missing.
        ConfigError: for an unknown or impossible setting.
        DataError: if there is nothing to learn from.
        MismatchError: if the trajectories come from several policies, or the folder holds another PRM.
        TrainingError: if the loss is not finite.
    """
    if isinstance(environment, str):
        environment = load_environment(environment)
    how = {
        "env_kwargs": {} if environment is None else dict(environment.env_kwargs),
        "round_limit": round_limit,
        "prompt": prompt,
        "action_format": action_format,
    }
    folder = Path(output_dir, "trajectories")
    if isinstance(trajectories, (str, Path)):
        folder = Path(trajectories)
        if how != _DEFAULTS:
            raise ConfigError(
                "environment, round_limit, prompt, action_format: allowed for trajectories in memory only; a "
                "folder has its own"
            )
    config = build_config(
        PRMConfig,
        "train_prm",
        trajectories=str(folder),
        model=str(model),
        output_dir=str(output_dir),
        **settings,
    )
    if not isinstance(trajectories, (str, Path)):
        _store(trajectories, folder, how)
    prm_stage.run(config)
    return load_prm(output_dir)


def train_rl(
    policy: str | Path,
    *,
    environment: LoadedEnvironment | str,
    output_dir: str | Path,
    prm: CheckpointScorer | str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a policy by agent RL (PPO), with a PRM's values as the signal at every step.

    A finished run of the same settings in the same folder is reused, an unfinished one goes on.

    Args:
        policy: folder of the policy to start from.
        environment: where the policy acts; a name is loaded with the environment's own settings.
        output_dir: where the trained policy, its log and its checkpoints go.
        prm: the PRM or its folder; None for ``reward="outcome"``.
        **settings: of ``rlprm train-rl``, such as ``iterations``, ``reward``, ``advantage``, ``round_limit``,
            ``seed``.

    Returns:
        The summary: iterations, steps and tokens used, success on test tasks before and after. The trained
        policy is in ``output_dir``, see :func:`load_policy`.

    Raises:
        ArtifactError: if the policy or the PRM is missing.
        ConfigError: for an unknown or impossible setting.
        MismatchError: if the PRM was trained in another setting, or the folder holds another run.
        TrainingError: if a number is not finite.
    """
    where = environment if isinstance(environment, LoadedEnvironment) else load_environment(environment)
    config = build_config(
        RLConfig,
        "train_rl",
        model=str(policy),
        environment=where.name,
        env_kwargs=dict(where.env_kwargs),
        prm=_folder_of(prm),
        output_dir=str(output_dir),
        **settings,
    )
    return rl_stage.run(config)


def _folder_of(prm: CheckpointScorer | str | Path | None) -> str:
    if isinstance(prm, CheckpointScorer):
        if prm.tokenizer is None:
            raise ConfigError("prm: got a model without a folder; name the folder it was loaded from")
        return prm.tokenizer  # the folder it was loaded from holds both
    return "" if prm is None else str(prm)


def _store(trajectories: Sequence[Trajectory], folder: Path, how: Mapping[str, Any]) -> None:
    """Save trajectories to disk, so that the training stage can read them.

    Raises:
        DataError: if there are none, or they are of several environments.
        MismatchError: if the folder holds other trajectories.
    """
    environments = {trajectory.task.environment for trajectory in trajectories}
    if len(environments) != 1:
        raise DataError(f"got trajectories of the environments {sorted(environments)}, allowed: of one")
    rows = [to_row(trajectory) for trajectory in trajectories]
    # What a finished PRM is compared by: the episodes themselves, not only how they were run.
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
    environment = environments.pop()
    # A task states a setting whose default has changed. Without the setting the task has the old default.
    names = CHANGED_DEFAULTS.get(environment, {})
    stated = {name: value for name, value in trajectories[0].task.spec.items() if name in names}
    meta = {"environment": environment, "digest": digest, **how, "env_kwargs": stated | how["env_kwargs"]}
    if not all(trajectory.exact for trajectory in trajectories):
        meta["exact"] = False
    TrajectoryStore.create(folder, with_old_defaults(meta)).write(0, trajectories)
