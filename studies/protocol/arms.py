"""The reward models and searches that are compared; an arm changes one thing of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlprm.scorers.transcript import ACCEPTED

REFERENCE = "agentprm"
TRANSCRIPT = "transcript"
PRM, CLONE = "prm", "clone"


@dataclass(frozen=True)
class Arm:
    """A reward model: the reference's recipe with some settings changed."""

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = PRM
    """``prm``: made by ``rlprm train-prm``. ``clone``: the policy, trained further on successes."""
    labels: str = ""
    """File of Monte-Carlo labels to learn, of those that ``rlprm estimate`` writes."""
    rate: float = 1.0
    """Factor of the learning rate, beside :data:`RATES`."""


SHARED = {"head": "lm", "label_estimator": "td_gae", "beta": 1.0, "eval_strategy": "no"}
"""The reference on every environment; what else it has is in ``train_prm_tiny.yaml``."""
REFERENCE_ARM = Arm("AgentPRM: lm head, TD-GAE with λ 0.95, β 1")


@dataclass(frozen=True)
class Search:
    """A strategy of ``rlprm.search`` with its settings."""

    about: str
    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Without ``aggregation``, candidates are ranked by the rule of the reference's beam 4×4."""
    at_equal_steps: bool = False
    """Whether a task may take as many environment steps as the reference's beam 4×4 took on average."""
    by_transcript: bool = False
    """Whether the scorer ``transcript`` chooses; otherwise the reference does."""
    acts: str | None = None
    """The arm, a clone, that acts in place of the policy; the search runs once for each of its trainings."""


@dataclass(frozen=True)
class Group:
    """What one unit compares with the reference."""

    about: str
    arms: Mapping[str, Arm]
    trainings: int = 2
    """Trainings of each reward model, with different seeds; their results are averaged first."""
    reference: Arm = REFERENCE_ARM
    searches: Mapping[str, Search] = field(default_factory=dict)
    """On guidance tasks alone; elsewhere no beam is run that they could be compared with."""


RATES: Mapping[str, float] = {"lm": 1.0, "scalar": 1.0, CLONE: 1.0}
"""Factor of the recipe's learning rate for each head and kind of loss.

The group ``rates`` is to find these factors. Without a record of it they are 1 (docs/protocol.md says so)."""


PRIMARY = (CLONE, "outcome", "returns_beta0", "scalar")
"""Arms of the group ``primary`` whose comparisons are primary, unless ``REDUCED`` has the environment."""
REDUCED: Mapping[str, tuple[str, ...]] = {}
"""Environment → the arms that stay primary, if the first 3 seeds showed that 10 seeds detect too little. The
rule of docs/protocol.md allows ``(CLONE, "returns_beta0")`` and nothing else."""


def _beam(about: str, **settings: Any) -> Search:
    return Search(f"beam 4×4 by the {about}", "beam", {"n": 4, "m": 4, **settings})


_LAM = "label_estimator_kwargs.lam"
GROUPS: Mapping[str, Group] = {
    "primary": Group(
        "the four primary comparisons",
        {
            CLONE: Arm("a clone of the successes in its place", kind=CLONE),
            "outcome": Arm("outcome labels (ORM)", {"label_estimator": "outcome"}),
            "returns_beta0": Arm("returns, β 0", {"label_estimator": "returns", "beta": 0.0}),
            "scalar": Arm("a scalar head", {"head": "scalar"}),
        },
        searches={
            "clone_acts": Search(
                "the clone acts, sampled until `transcript` shows success, at most 16 episodes",
                "sample_until_accepted",
                {"n": 16, "threshold": ACCEPTED, "aggregation": "last"},
                by_transcript=True,
                acts=CLONE,
            )
        },
    ),
    "labels": Group(
        "other labels",
        {
            "pvm": Arm("Monte-Carlo labels (PVM)", {"beta": 0.0}, labels="labels.jsonl"),
            "pvm_hard": Arm("hard Monte-Carlo labels", {"beta": 0.0}, labels="labels_hard.jsonl"),
            "lam0.9": Arm("λ 0.9", {_LAM: 0.9}),
            "lam1": Arm("λ 1", {_LAM: 1.0}),
            "beta0": Arm("TD-GAE, β 0", {"beta": 0.0}),
        },
    ),
    "head": Group(
        "τ of the lm head",
        {"tau0.03": Arm("τ 0.03", {"lm_scale": 0.03}), "tau0.3": Arm("τ 0.3", {"lm_scale": 0.3})},
    ),
    "search": Group(
        "other searches by AgentPRM",
        {},
        searches={
            "beam_newest": _beam("newest value", aggregation="last"),
            "beam_lowest": _beam("lowest value", aggregation="min"),
            "beam_mean": _beam("mean value", aggregation="mean"),
            "beam_1_child": _beam("newest value, one child of a parent", aggregation="last", max_children=1),
            "beam_2_children": _beam("newest value, two children", aggregation="last", max_children=2),
            "halving": Search("halving", "halving", at_equal_steps=True),
            "resample": Search("resample", "resample", at_equal_steps=True),
            "step_best_of_4": Search("best of 4 at each step", "step_best_of_k", {"k": 4}),
            "step_best_of_4_until": Search(
                "best of 4 at each step, until `transcript` shows success",
                "step_best_of_k",
                {"k": 4, "n": 16, "accept": "transcript"},
                at_equal_steps=True,
            ),
            "puct": Search("tree search (PUCT)", "puct", {"aggregation": "last"}, at_equal_steps=True),
            "until_success_shows": Search(
                "sampling until `transcript` shows success",
                "sample_until_accepted",
                {"aggregation": "last", "threshold": ACCEPTED},
                at_equal_steps=True,
                by_transcript=True,
            ),
        },
    ),
    "pretrained": Group(
        "the paper's scalar head and others on a model that knows language, in the order of cutting",
        {
            "lm": Arm("an lm head", {"head": "lm"}),
            CLONE: Arm("a clone of the successes in its place", kind=CLONE),
            "outcome": Arm("outcome labels (ORM)", {"label_estimator": "outcome", "head": "scalar"}),
            "outcome_lm": Arm("outcome labels (ORM), an lm head", {"label_estimator": "outcome"}),
            "returns_beta0": Arm(
                "returns, β 0", {"label_estimator": "returns", "beta": 0.0, "head": "scalar"}
            ),
            "pvm": Arm("Monte-Carlo labels (PVM)", {"beta": 0.0, "head": "scalar"}, labels="labels.jsonl"),
        },
        reference=Arm("AgentPRM: scalar head, TD-GAE with λ 0.95, β 1", {"head": "scalar"}),
    ),
    "rates": Group(
        "three learning rates per head and loss, on a pilot seed",
        {
            "lm_low": Arm("lm head, a third of the rate", rate=1 / 3),
            "lm_high": Arm("lm head, three times the rate", rate=3.0),
            "scalar_low": Arm("scalar head, a third of the rate", {"head": "scalar"}, rate=1 / 3),
            "scalar": Arm("scalar head, the recipe's rate", {"head": "scalar"}),
            "scalar_high": Arm("scalar head, three times the rate", {"head": "scalar"}, rate=3.0),
            "clone_low": Arm("clone, a third of the rate", kind=CLONE, rate=1 / 3),
            CLONE: Arm("clone, the recipe's rate", kind=CLONE),
            "clone_high": Arm("clone, three times the rate", kind=CLONE, rate=3.0),
        },
        trainings=1,
    ),
}
