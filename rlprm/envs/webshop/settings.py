"""How episodes are shown and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rlprm.envs.webshop import pages, title_nouns
from rlprm.envs.webshop.reward import RULES
from rlprm.errors import ConfigError

__all__ = ["OBSERVATIONS", "Setting", "setting_from", "spec_of"]

OBSERVATIONS = ("text", "rich")


@dataclass(frozen=True)
class Setting:
    """What ``env_kwargs`` says about episodes, whatever is sold."""

    observations: str = "text"
    """``"text"`` or ``"rich"``, upstream's two text modes."""
    results_per_page: int = 10
    show_attributes: bool = False
    """Whether the page of a product has a button that shows its attributes."""
    reward: str = "fixed"
    """How options are compared, see :data:`rlprm.envs.webshop.reward.RULES`."""
    nouns: str = title_nouns.RULES
    """How the nouns of titles are found: ``"rules"``, or the name of a spaCy model.

    Rewards differ between ``"rules"`` and upstream's spaCy, see docs/environments.md."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        for name, allowed in (("observations", OBSERVATIONS), ("reward", RULES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"webshop {name}: got {getattr(self, name)!r}, allowed: {', '.join(allowed)}"
                )
        size = self.results_per_page
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"webshop results_per_page: got {size!r}, allowed: 1 or more")
        if not isinstance(self.show_attributes, bool):
            raise ConfigError(
                f"webshop show_attributes: got {self.show_attributes!r}, allowed: true or false"
            )
        if not isinstance(self.nouns, str):
            raise ConfigError(f"webshop nouns: got {self.nouns!r}, allowed: rules, or a model of spaCy's")
        title_nouns.noun_finder(self.nouns)

    @property
    def sub_pages(self) -> tuple[str, ...]:
        """Names of a product's sub pages."""
        return (*pages.SUB_PAGES, pages.ATTRIBUTES) if self.show_attributes else pages.SUB_PAGES

    @property
    def definition(self) -> str:
        """The rule behind success."""
        return f"webshop: reward 1.0 at the purchase (options: {self.reward}, nouns: {self.nouns})"


NAMES = tuple(field.name for field in fields(Setting))


def spec_of(setting: Setting) -> dict[str, Any]:
    """Return what a task has to say about its setting: what differs from the default."""
    default = asdict(Setting())
    return {name: value for name, value in asdict(setting).items() if value != default[name]}


def setting_from(spec: Mapping[str, Any]) -> Setting:
    """Return the setting of a task.

    Raises:
        ConfigError: for an impossible value.
    """
    return Setting(**{name: spec[name] for name in NAMES if name in spec})
