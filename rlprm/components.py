"""Find components (environments, label estimators, ...) by module name or dotted path.

There is no registry: a component is a module in its family's package, so adding
one is adding a file, and a wrong name can list the right ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from rlprm.errors import UnknownComponentError


def available_in(package: str, *, exclude: frozenset[str] = frozenset()) -> list[str]:
    """Names of the component modules in a package, sorted."""
    path = importlib.import_module(package).__path__
    names = (module.name for module in pkgutil.iter_modules(path))
    return sorted(name for name in names if name not in exclude and not name.startswith("_"))


def load_component(
    package: str, name: str, family: str, *, exclude: frozenset[str] = frozenset()
) -> ModuleType:
    """Import component ``name`` of a package, or a user's own given as a dotted path.

    Raises:
        UnknownComponentError: if there is none of that name; says which there are.
    """
    if name in available_in(package, exclude=exclude):
        return importlib.import_module(f"{package}.{name}")
    if "." in name.strip("."):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise  # the module exists and misses something of its own
            raise UnknownComponentError(f"no {family} at the dotted path {name!r}: {error}") from error
    known = ", ".join(available_in(package, exclude=exclude))
    raise UnknownComponentError(
        f"unknown {family} {name!r}; known: {known} (or the dotted path of a module of your own)"
    )
