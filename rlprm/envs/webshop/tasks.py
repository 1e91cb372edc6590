"""The task lists, and what a task says: the generated shop's, and those of official data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlprm.envs._splits import numbered
from rlprm.envs.webshop import title_nouns
from rlprm.envs.webshop.environment import WebShop
from rlprm.envs.webshop.goal import Goal
from rlprm.envs.webshop.official.goals import GOAL_KINDS
from rlprm.envs.webshop.official.store import open_store
from rlprm.envs.webshop.settings import Setting, setting_from, spec_of
from rlprm.envs.webshop.shop.generated_goals import (
    ASKED_ATTRIBUTES,
    CATEGORY_NAMES,
    generated_goal,
    wishes_in,
)
from rlprm.envs.webshop.shop.shop import Shop, generated_shop
from rlprm.errors import ConfigError
from rlprm.types import End, Split, Task

__all__ = ["make", "shop_and_goal", "tasks"]

_OFFICIAL_SPLITS = {Split.TEST: (0, 500), Split.DEV: (500, 1500), Split.TRAIN: (1500, None)}
"""First and last goals in upstream's order."""


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    categories: Sequence[str] | None = None,
    attributes: str = "any",
    data: str | None = None,
    goals: str = "synthetic",
    products: int | None = None,
    cache: str | None = None,
    reward: str = "fixed",
    nouns: str = title_nouns.RULES,
    observations: str = "text",
    results_per_page: int = 10,
    show_attributes: bool = False,
    **unknown: Any,
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

    In the generated shop task ``i`` is wish ``i % n`` of the split's ``n`` wishes (a product's kind, two
    attributes and its options), with words and price cap by seed ``base(split) + i // n``. No wish is in
    two splits. Of official data, tasks are goals in upstream's order: 0 to 499 are for testing, 500 to
    1499 for development, the others for training.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        categories: Of the generated shop, from which wishes come; None for all. All are sold.
        attributes: Of the generated shop, which attributes wishes ask for. A search finds three of a
            product's four attributes, and only the features page shows the last one. All ``"hidden"``
            wishes, no ``"searchable"`` wish and one ``"any"`` wish of seven ask for it.
        data: Folder of WebShop's files, or its product file; None for the generated shop.
        goals: Of official data, ``"synthetic"``, or human instructions: ``"human"`` makes a goal of each, as
            princeton does, ``"human_agentgym"`` one for each of its price caps, as AgentGym does.
        products: Only so many of the product file, from its beginning.
        cache: Folder for the index of official data; None for one beside them or the user's cache folder.
        reward: ``"fixed"``, or ``"strict"`` for upstream's comparison of options.
        nouns: ``"rules"``, or the name of a spaCy model. Rewards differ between ``"rules"`` and
            upstream's spaCy, see docs/environments.md.
        observations: ``"text"`` or ``"rich"``.
        results_per_page: At least 1; upstream has 10.
        show_attributes: Whether the page of a product links to its attributes.
        unknown: Nothing; any other setting is an error.

    Raises:
        ConfigError: for an unknown or impossible setting, missing files, or a range the split does not have.
        DataError: for damaged files.
    """
    if unknown:
        raise ConfigError(f"unknown webshop setting {sorted(unknown)}; there are {', '.join(_SETTINGS)}")
    split = Split(split)
    setting = Setting(observations, results_per_page, show_attributes, reward, nouns)
    if goals not in GOAL_KINDS:
        raise ConfigError(f"webshop goals: got {goals!r}, allowed: {', '.join(GOAL_KINDS)}")
    if attributes not in ASKED_ATTRIBUTES:
        raise ConfigError(f"webshop attributes: got {attributes!r}, allowed: {', '.join(ASKED_ATTRIBUTES)}")
    if data is not None:
        if categories is not None:
            raise ConfigError(f"webshop categories: got {categories!r}, allowed with data: null")
        if attributes != "any":
            raise ConfigError(f"webshop attributes: got {attributes!r}, allowed with data: any")
        source = _checked_source({"data": data, "goals": goals, "products": products, "cache": cache})
        return _official(split, start, count, source, spec_of(setting))
    for name, value, default in (
        ("goals", goals, "synthetic"),
        ("products", products, None),
        ("cache", cache, None),
    ):
        if value != default:
            raise ConfigError(f"webshop {name}: got {value!r}, allowed without data: {default}")
    wished = wishes_in(split, _checked_categories(categories), attributes)
    drawn = numbered("webshop", split, start, count, kinds=wished, kind="wish")
    return [
        Task(
            "webshop",
            f"{wish.product.asin}-{wish.number}-{seed}",
            split,
            {"product": wish.product.asin, "wish": wish.number, "seed": seed, **spec_of(setting)},
        )
        for wish, seed in drawn
    ]


_SETTINGS = list(tasks.__kwdefaults__ or ())


def make(task: Task, *, end: End) -> WebShop:
    """Build the environment of a task (and, the first time in a process, its shop).

    Args:
        task: Of this environment.
        end: Makes no difference: the purchase ends an episode.

    Raises:
        ConfigError: if the task is not one of this environment, or its data are missing.
    """
    End(end)
    shop, goal = shop_and_goal(task)
    return WebShop(shop, goal, setting_from(task.spec))


def shop_and_goal(task: Task) -> tuple[Shop, Goal]:
    """Return where a task shops, and for what.

    Raises:
        ConfigError: if its ``spec`` is not one of this environment, or its data are missing.
    """
    spec = task.spec
    try:
        if "data" in spec:
            store = open_store(spec["data"], spec["products"], spec["cache"])
            return store.shop, store.goal(spec["goals"], spec["goal"])
        return generated_shop(), generated_goal(spec["product"], spec["wish"], spec["seed"])
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"not a webshop task: {task.id!r} with spec {dict(spec)!r}") from error


def _official(
    split: Split, start: int, count: int, source: Mapping[str, Any], spec: Mapping[str, Any]
) -> list[Task]:
    store = open_store(source["data"], source["products"], source["cache"])
    kind = source["goals"]
    every = store.goals(kind)
    first, behind = _OFFICIAL_SPLITS[split]
    available = max(0, (every if behind is None else min(behind, every)) - first)
    if start < 0 or count < 0:
        raise ConfigError(f"webshop tasks: start and count must be at least 0, got {start} and {count}")
    if start + count > available:
        raise ConfigError(
            f"webshop tasks: the {split.value} split has {available} of the {every} {kind} goals; "
            f"{start} ... {start + count - 1} reaches past its end"
        )
    return [
        Task("webshop", f"{kind}-{number}-{store.mark[:8]}", split, {**source, "goal": number, **spec})
        for number in range(first + start, first + start + count)
    ]


def _checked_categories(categories: Any) -> tuple[str, ...]:
    if categories is None:
        return CATEGORY_NAMES
    well_formed = not isinstance(categories, str) and isinstance(categories, Sequence)
    if not well_formed or not categories or any(name not in CATEGORY_NAMES for name in categories):
        raise ConfigError(
            f"webshop categories: got {categories!r}, allowed: a list of some of {', '.join(CATEGORY_NAMES)}"
        )
    return tuple(name for name in CATEGORY_NAMES if name in categories)


def _checked_source(source: dict[str, Any]) -> dict[str, Any]:
    for name in ("data", "cache"):
        if not isinstance(source[name], str | None):
            raise ConfigError(f"webshop {name}: got {source[name]!r}, allowed: a path")
    products = source["products"]
    if products is not None and (isinstance(products, bool) or not isinstance(products, int) or products < 1):
        raise ConfigError(f"webshop products: got {products!r}, allowed: 1 or more, or null for all")
    return source
