"""The PRM as critic: GAE over turns on the PRM's own values, and no critic to train.

    δ_t = r_t + v_t - v_{t-1}   for t < T,     δ_T = r_T - v_{T-1},     Â_t = δ_t + λ Â_{t+1}

With the outcome as the only reward these are the progress labels of TD-GAE
(arXiv 2511.08325), computed for the policy instead of the PRM. λ = 0: an action is
credited with the progress the PRM sees in it; λ = 1: with the outcome minus the
PRM's expectation.

If the PRM reads states too, the chain is x_1, v_1, x_2, v_2, ..., x_T. Step t gets ``Â`` of
its action's link, ``δ = r_t + v_t - x_t``. The luck of the observation that follows is a link of
its own, ``x_{t+1} - v_t``. By default λ counts for each link, hence λ² from step to step. With
``lam_per: action`` λ counts for each step (``rlprm.functional.returns.td_gae_labels``): ``Â`` is
then the first formula's without the luck of the observation before, ``x_t - v_{t-1}``.

A PRM predicts the *undiscounted* outcome, so γ must be 1. It must be given rewards that
do not contain its values already (``outcome``): they would count twice.

Known danger: a PRM trained on another policy's episodes is wrong about this one's, and
for λ < 1 that is a bias no amount of data removes; refresh it as the policy drifts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional._checks import check_number, check_shape, check_values
from rlprm.functional.masking import length_mask
from rlprm.functional.returns import gae
from rlprm.rl.advantages.base import AdvantageInputs, Advantages, Level, Whitening, check_needs, end_values

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate"]

NEEDS = frozenset({"prm_values_BT1"})
LEVEL: Level = "step"
CAN_BOOTSTRAP = True
WHITENING: Whitening = "both"


def estimate(
    inputs: AdvantageInputs,
    *,
    gamma: float,
    lam: float = 0.95,
    lam_per: str = "link",
    v_min: float = 0.0,
    v_max: float = 1.0,
) -> Advantages:
    """Return the advantages of the steps (B, T); see ``AdvantageModule``.

    Args:
        inputs: with ``prm_values_BT1``, and ``prm_states_BT`` if states are read. A
            bootstrapped row goes on from ``v_T``.
        gamma: must be 1.
        lam: λ in [0, 1].
        lam_per: what λ counts once for, ``"link"`` or ``"action"``; the same unless states are read.
        v_min: values are clipped to [v_min, v_max] before differences are taken.
        v_max: see ``v_min``.
    """
    if gamma != 1.0:
        raise ConfigError(f"a PRM predicts the undiscounted outcome: prm_critic needs gamma 1, got {gamma!r}")
    if lam_per not in ("link", "action"):
        raise ConfigError(f"lam_per: got {lam_per!r}, allowed: link, action")
    check_needs(inputs, NEEDS, "prm_critic")
    assert inputs.prm_values_BT1 is not None
    v_min = check_number("v_min", v_min)
    v_max = check_number("v_max", v_max, above=v_min)
    rows, width = inputs.rewards_BT.shape
    lengths_B, rewards_BT = inputs.lengths_B, inputs.rewards_BT.detach()
    check_shape("prm_values_BT1", inputs.prm_values_BT1, (rows, width + 1))
    check_values(inputs.prm_values_BT1, length_mask(lengths_B + 1, width + 1), "v", 0)
    values_BT1 = inputs.prm_values_BT1.detach().clamp(v_min, v_max)
    ends_B = end_values(inputs, values_BT1.gather(1, lengths_B.unsqueeze(1)).squeeze(1))

    if inputs.prm_states_BT is None:
        advantages_BT = gae(rewards_BT, values_BT1[:, :-1], ends_B, lengths_B, gamma=1.0, lam=lam)
    else:
        check_shape("prm_states_BT", inputs.prm_states_BT, (rows, width))
        check_values(inputs.prm_states_BT, inputs.exists, "x", 1)
        states_BT = inputs.prm_states_BT.detach().clamp(v_min, v_max)
        chain_BC = _interleave(states_BT, values_BT1[:, 1:])
        rewards_BC = _interleave(rewards_BT, torch.zeros_like(rewards_BT))
        links_B = (2 * lengths_B - 1).clamp(min=0)
        per = 2 if lam_per == "action" else 1
        advantages_BC = gae(rewards_BC, chain_BC, ends_B, links_B, gamma=1.0, lam=lam, links_per_lam=per)
        advantages_BT = advantages_BC[:, ::2]
    return Advantages(advantages_BT, None, inputs.exists)


def _interleave(a_BT: Tensor, b_BT: Tensor) -> Tensor:
    """Return (B, 2T): a_1, b_1, a_2, b_2, ..."""
    return torch.stack([a_BT, b_BT.to(a_BT.dtype)], dim=2).flatten(1)
