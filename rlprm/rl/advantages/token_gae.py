"""GAE over the sampled tokens: each token is an action, a critic predicts the return before each.

    δ_l = r_l + γ_l V_{l'} - V_l,     A_l = δ_l + γ_l λ_l A_{l'},     R_l = A_l + V_l

l' is the next *sampled* token, in this step or, over the observation between them, in the
next. Tokens nobody sampled (prompt, observations, forced closing tokens) are no time
steps: they carry no value and no decay. The reward of a step sits on its last sampled
token. After the last one, V is 0 if the episode ended, and the critic's value of the
continuation if its truncation is bootstrapped.

Time passes between steps, not inside a message: ``γ_l = γ`` on the last token of a step and 1
on the others. (A discount per token would pay for short messages, and would undo the
telescoping of ``progress``, which counts in steps.) ``λ_l = λ`` on the last token of a step;
``token_lam`` on the others, the same λ by default. With one token per step
this is ``turn_gae``; with ``token_lam`` 1 the credit of a step's first token decays
as that of the turn does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlprm.functional._checks import check_shape, check_unit_interval
from rlprm.functional.returns import varying_suffix_sums
from rlprm.functional.tokens import put_on_last_tokens
from rlprm.rl.advantages.base import AdvantageInputs, Advantages, Level, Whitening, check_needs, end_values

__all__ = ["CAN_BOOTSTRAP", "LEVEL", "NEEDS", "WHITENING", "estimate"]

NEEDS = frozenset({"values_BL", "layout"})
LEVEL: Level = "token"
CAN_BOOTSTRAP = True
WHITENING: Whitening = "both"


def estimate(
    inputs: AdvantageInputs, *, gamma: float, lam: float = 0.95, token_lam: float | None = None
) -> Advantages:
    """Return advantages and λ-returns of the sampled tokens (B, L); see ``AdvantageModule``.

    Args:
        inputs: with ``values_BL`` and ``layout``, and ``end_values_B`` if a row is bootstrapped.
        gamma: γ, from step to step.
        lam: λ in [0, 1], from step to step.
        token_lam: λ from token to token inside a step; ``lam`` if None.
    """
    check_needs(inputs, NEEDS, "token_gae")
    assert inputs.values_BL is not None
    assert inputs.layout is not None
    gamma, lam = check_unit_interval("gamma", gamma), check_unit_interval("lam", lam)
    token_lam = lam if token_lam is None else check_unit_interval("token_lam", token_lam)
    layout = inputs.layout
    sampled_BL = layout.sampled
    check_shape("values_BL", inputs.values_BL, tuple(sampled_BL.shape))
    check_shape("layout.last_BT", layout.last_BT, tuple(inputs.rewards_BT.shape))
    dtype = torch.promote_types(inputs.values_BL.dtype, torch.float32)
    values_BL = inputs.values_BL.detach().to(dtype).where(sampled_BL, 0.0)

    is_last_BL = put_on_last_tokens(torch.ones_like(layout.last_BT, dtype=dtype), layout) > 0
    rewards_BL = put_on_last_tokens(inputs.rewards_BT.detach().to(dtype), layout)
    gammas_BL = torch.ones_like(values_BL).masked_fill(is_last_BL, gamma)
    decays_BL = gammas_BL * torch.full_like(values_BL, token_lam).masked_fill(is_last_BL, lam)
    next_BL = _next_sampled(values_BL, sampled_BL, end_values(inputs, inputs.end_values_B).to(dtype))
    residuals_BL = (rewards_BL + gammas_BL * next_BL - values_BL).where(sampled_BL, 0.0)
    # A factor of 1 lets credit pass through the tokens in between as if they were not there.
    sums_BL = varying_suffix_sums(residuals_BL, decays_BL.where(sampled_BL, 1.0))
    advantages_BL = sums_BL.where(sampled_BL, 0.0)
    return Advantages(advantages_BL, advantages_BL + values_BL, sampled_BL)


def _next_sampled(values_BL: Tensor, sampled_BL: Tensor, end_values_B: Tensor) -> Tensor:
    """Return the value at the next sampled token after each place, and the end value after the last."""
    width = values_BL.shape[1]
    positions_L = torch.arange(width, device=values_BL.device)
    here_BL = positions_L.expand_as(values_BL).where(sampled_BL, width)
    nearest_BL = here_BL.flip(1).cummin(dim=1).values.flip(1)  # the first sampled token at l or later
    after_BL = torch.cat([nearest_BL[:, 1:], torch.full_like(nearest_BL[:, :1], width)], dim=1)
    return torch.cat([values_BL, end_values_B.unsqueeze(1)], dim=1).gather(1, after_BL)
