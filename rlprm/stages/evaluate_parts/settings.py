"""Settings of ``rlprm evaluate``; without torch, so that help is quick."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlprm import envs, scorers
from rlprm.components import canonical, user_sources
from rlprm.errors import ConfigError
from rlprm.policies.config import PolicyConfig
from rlprm.runtime.settings import own_settings, setting
from rlprm.runtime.tracking import TRACKERS, require_tracker
from rlprm.stages.evaluate_parts.search_settings import CHOSEN, Search, beam, named
from rlprm.types import End, Split

__all__ = ["FREE_SCORERS", "EvaluateConfig"]

_DATA = "Data"
FREE_SCORERS = ("policy_confidence", "shortest", "random", "transcript", "declared")
"""Scorers without a model of their own, which every evaluation has beside those of its settings."""
_BEAM = re.compile(r"(\d+)x(\d+)")
_ADDED = ("searches", "search_scorers")
"""Settings that 0.1.0 did not have. An empty one is no part of a run's identity."""


@dataclass
class EvaluateConfig(PolicyConfig):
    """Settings of ``rlprm evaluate``."""

    STAGE: ClassVar[str] = "evaluate"

    scorers: dict[str, Any] = setting(
        {},
        "Name -> folder of a PRM or ORM, e.g. scorers.agentprm runs/prm; or a scorer of your own: the path "
        "of a .py file, or {kind: path or name, its settings}.",
        group="Scorers",
    )
    main_scorer: str = setting(
        "", "The scorer that is compared with the others; the first if unset.", group="Scorers"
    )
    with_confidence: bool = setting(
        True, "Search with every reward model's values weighed by the policy's probabilities, too.",
        group="Scorers",
    )  # fmt: skip
    confidence_per: str = setting(
        "action", "Which probability: of a whole action, or of its token (mean).",
        choices=("action", "token"), group="Scorers",
    )  # fmt: skip
    split: str = setting(
        "test", "Task list that is reported: test, or dev while choosing.", choices=("test", "dev"),
        group=_DATA,
    )  # fmt: skip
    first_task: int = setting(0, "First task of that split.", least=0, group=_DATA)
    num_tasks: int = setting(128, "Number of tasks.", least=1, group=_DATA)
    first_dev_task: int = setting(0, "First dev task.", least=0, group=_DATA)
    num_dev_tasks: int = setting(
        64, "Dev tasks on which each scorer's aggregation is chosen.", least=1, group=_DATA
    )
    action_probe: str = setting(
        "", "Folder of probed actions (made by rlprm probe-actions) to tell apart.", group=_DATA
    )
    report_to: str = setting(
        "none", "Tracker for the final numbers and plots.", choices=TRACKERS, group=_DATA
    )
    output_dir: str = setting("runs/evaluation", "Where table, summary and plots go.", group=_DATA)
    budgets: list[int] = setting(
        [1, 2, 4, 8, 16, 32], "N of best-of-N; the largest is the size of the pool.", least=1,
        required=True, group="Search",
    )  # fmt: skip
    chosen_at: int = setting(
        16, "N at which aggregations are chosen and scorers are compared.", least=1, group="Search"
    )
    beams: list[str] = setting(
        ["4x4"], "Beam searches as NxM, run with every checkpoint scorer.", group="Search"
    )
    beam_aggregation: str = setting(
        CHOSEN,
        "What a beam ranks candidates by: chosen (each scorer's rule of best-of-N, chosen on dev tasks), "
        "last (the newest value, the paper's), min, mean or product.",
        choices=(CHOSEN, "last", "min", "mean", "product"),
        group="Search",
    )
    searches: dict[str, Any] = setting(
        {},
        "More searches, name -> {strategy: halving, n: 8, budget: 200, aggregation: last, scorers: "
        "[agentprm]}. The strategy is a name or the path of a .py file; budget is the most environment steps "
        "of a task; without scorers, those of the beams search; with policy: <folder or hub id>, another "
        "policy acts; temperature is that of sampling in this search.",
        group="Search",
    )
    search_scorers: list[str] = setting(
        [],
        "Free scorers that search beside the checkpoints, such as policy_confidence or random.",
        choices=FREE_SCORERS,
        group="Search",
    )

    def __post_init__(self) -> None:
        """Check the settings one by one, then those that must agree.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        super().__post_init__()
        require_tracker(self.report_to)
        self._check_scorers()
        if len(set(self.budgets)) < len(self.budgets):
            raise ConfigError(f"budgets: got {self.budgets}, allowed: a list of different numbers from 1 on")
        if self.chosen_at not in self.budgets:
            raise ConfigError(f"chosen_at: got {self.chosen_at}, allowed: one of the budgets {self.budgets}")
        self._check_searches()
        self._refuse_other_policies()
        if self.endpoint:
            self._refuse_what_needs_probabilities()
        if self.temperature == 0:
            raise ConfigError("temperature: got 0, allowed: above 0 (N greedy samples would be one N times)")
        own_tasks = range(self.first_task, self.first_task + self.num_tasks)
        dev_tasks = range(self.first_dev_task, self.first_dev_task + self.num_dev_tasks)
        if self.split == Split.DEV and set(own_tasks) & set(dev_tasks):
            raise ConfigError("the dev tasks reported must not be those the aggregation is chosen on; "
                              "set first_task behind them")  # fmt: skip

    def _check_scorers(self) -> None:
        if not self.scorers:
            raise ConfigError("scorers: nothing given; name at least one, e.g. --scorers.agentprm runs/prm")
        self.scorers = {name: scorers.canonical_setting(name, value) for name, value in self.scorers.items()}
        for name in self.scorers:
            if name in FREE_SCORERS:
                raise ConfigError(f"scorers.{name}: that name belongs to the baseline; choose another")
            if self.with_confidence and name.removesuffix("_x_policy") in set(self.scorers) - {name}:
                raise ConfigError(f"scorers.{name}: that name belongs to another scorer; choose another")
        self.main_scorer = self.main_scorer or next(iter(self.scorers))
        if self.main_scorer not in self.scorers:
            raise ConfigError(f"main_scorer: got {self.main_scorer!r}, allowed: {', '.join(self.scorers)}")

    def _refuse_what_needs_probabilities(self) -> None:
        """Refuse what an endpoint's text is not enough for."""
        why = "but an endpoint gives no probabilities"
        if self.with_confidence and self._products():
            raise ConfigError(f"with_confidence: got True, {why}; set it to false")
        for name, value in self.scorers.items():
            if isinstance(value, Mapping) and value["kind"] == "policy_confidence":
                raise ConfigError(f"scorers.{name}.kind: got policy_confidence, {why}")
        for search in self.all_searches():
            if getattr(search.module, "NEEDS_PROBABILITIES", False):
                raise ConfigError(f"searches.{search.name}.strategy: got {search.strategy}, {why}")

    def _refuse_other_policies(self) -> None:
        """Refuse a search with a policy of its own where one model acts from outside."""
        where = "endpoint" if self.endpoint else "server" if self.server else ""
        for search in self.all_searches() if where else ():
            if search.policy is not None and (self.endpoint or search.policy != self.model):
                raise ConfigError(
                    f"searches.{search.name}.policy: got {search.policy!r}, allowed with {where}: none (the "
                    f"policy of all searches is the {where}'s)"
                )

    def revisions(self) -> dict[str, str]:
        """Return what identifies the policies and each scorer: its weights, or its kind and settings.

        Raises:
            ArtifactError: if there are no weights.
        """
        from rlprm.models.loading import revision_of

        found = {role: revision_of(path) for role, path in self._policies().items() if role != "policy"}
        found = {"policy": self.policy_revision(), **found}
        for name, value in self.scorers.items():
            if not isinstance(value, Mapping):
                found[name] = revision_of(value)
                continue
            found[name] = scorers.revision_of_setting(value)
            for path in _weights_of(value).values():
                found[name] += f"-{revision_of(path)}"
        return found

    def models(self) -> dict[str, str]:
        """Return the models of policies and scorers by role."""
        found = {**self._policies(), "policy": self.policy_folder()}
        for name, value in self.scorers.items():
            if isinstance(value, Mapping):
                found |= {f"{key} of {name}": path for key, path in _weights_of(value).items()}
            else:
                found[name] = value
        return found

    def _policies(self) -> dict[str, str]:
        others = {f"policy of {s.name}": s.policy for s in self.all_searches() if s.policy is not None}
        return {"policy": self.model, **others}

    def sources(self, *names: str) -> dict[str, Any]:
        """Return what the user's own code adds to a record, see :func:`rlprm.components.user_sources`.

        Args:
            *names: of the scorers whose code counts; all of them if none is given.
        """
        used: dict[str, Any] = {"environment": envs.load(self.environment)}
        for name, value in self.scorers.items():
            if isinstance(value, Mapping) and name in (names or self.scorers):
                used[f"scorer {name}"] = scorers.load(value["kind"])
        for search in self.all_searches():
            if not search.is_beam and (not names or search.name in names):
                used[f"search {search.name}"] = search.module
        return user_sources(**used)

    def identity(self) -> dict[str, Any]:
        """Return the settings that a result depends on, without those added since 0.1.0 that are empty."""
        own = own_settings(self)
        return {name: value for name, value in own.items() if value or name not in _ADDED}

    def beam_sizes(self) -> list[tuple[int, int]]:
        """Return (N, M) of each of ``beams``.

        Raises:
            ConfigError: for one that is not written as NxM.
        """
        matched = [_BEAM.fullmatch(str(beam)) for beam in self.beams]
        sizes = [(int(match[1]), int(match[2])) for match in matched if match]
        if len(sizes) < len(self.beams) or any(n * m == 0 for n, m in sizes):
            raise ConfigError(f"beams: got {self.beams}, allowed: a list of sizes such as 4x4")
        return sizes

    def all_searches(self) -> list[Search]:
        """Return the searches that ``beams`` and ``searches`` ask for, in order.

        Raises:
            ConfigError: for one that cannot be run.
        """
        beams = [beam(n, m, self.beam_aggregation) for n, m in self.beam_sizes()]
        return [
            *beams,
            *(named(name, value, self.beam_aggregation) for name, value in self.searches.items()),
        ]

    def _check_searches(self) -> None:
        for name, value in self.searches.items():
            if isinstance(value, Mapping) and isinstance(value.get("strategy"), str):
                self.searches = {**self.searches, name: {**value, "strategy": canonical(value["strategy"])}}
        allowed = (*self.scorers, *self._products(), *self.free_scorers())
        taken = set[str]()
        for search in self.all_searches():
            where = "beams" if search.is_beam else f"searches.{search.name}"
            if search.settings.get("accept") == "transcript" and "transcript" not in allowed:
                raise ConfigError(
                    f"{where}.accept: got 'transcript', but {self.environment} has no rule (read_transcript)"
                )
            for name in search.scorers or self.scorers_of_beams():
                if search.scorers and name not in allowed:
                    raise ConfigError(f"{where}.scorers: got {name!r}, allowed: {', '.join(allowed)}")
                if (file := search.file_name(name)) in taken:
                    raise ConfigError(
                        f"{where}: got two searches whose results go to {file}, allowed: different names, "
                        "each scorer once"
                    )
                taken.add(file)
        for name in self.search_scorers:
            if name not in allowed:
                why = f"{self.environment} has no rule (read_transcript)"
                if name == "declared":
                    why = f"with end: {self.end} the agent ends no episode"
                if name == "policy_confidence":
                    why = "an endpoint gives no probabilities"
                raise ConfigError(f"search_scorers: got {name!r}, but {why}")

    def scorers_of_beams(self) -> list[str]:
        """Return the names of the scorers of every search that names none itself."""
        return [*self.scorers, *self._products(), *self.search_scorers]

    def _products(self) -> list[str]:
        weighed = [name for name in self.scorers if self.with_confidence and name not in self.clones()]
        return [f"{name}_x_policy" for name in weighed]

    def free_scorers(self) -> tuple[str, ...]:
        """Return the names of the scorers without a model that this environment and its end allow."""
        allowed = {
            "policy_confidence": not self.endpoint,
            "transcript": hasattr(envs.load(self.environment), "read_transcript"),
            "declared": self.end == End.DECLARED,
        }
        return tuple(name for name in FREE_SCORERS if allowed.get(name, True))

    def baselines(self) -> tuple[str, ...]:
        """Return the names of the free baselines: the free scorers, and those that read another policy."""
        return (*self.free_scorers(), *self.clones())

    def clones(self) -> tuple[str, ...]:
        """Return the names of the scorers that are another policy's probabilities."""
        others = {name: value for name, value in self.scorers.items() if isinstance(value, Mapping)}
        return tuple(name for name, value in others.items() if value["kind"] == "model_confidence")

    def unused(self) -> dict[str, str]:
        """Return the settings of searches if no search takes them."""
        searches = self.all_searches()
        found = super().unused()
        if not searches:
            found |= {"beam_aggregation": "no beams"}
        if not any(search.scorers is None for search in searches):
            why = "every search names its scorers" if searches else "no searches"
            found |= {"search_scorers": why}
        return found


def _weights_of(setting: Mapping[str, Any]) -> dict[str, str]:
    """Return the models that a scorer's setting names; a user's scorer may read weights undeclared."""
    declared = scorers.weights_of_setting(setting)
    return {
        key: path
        for key, path in setting.items()
        if isinstance(path, str) and (key in declared or (Path(path) / "config.json").is_file())
    }
