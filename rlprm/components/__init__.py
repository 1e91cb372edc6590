"""Components (environments, label estimators, ...): how a name becomes a module, and what its code is.

There is no registry: a component is a module in its family's package, so adding
one is adding a file, and a wrong name can list the right ones. A component of the user's own is given as
the name of an importable module (``my_package.world``) or as the path of a file (``./world.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from rlprm.components.files import canonical
from rlprm.components.loading import (
    available_in,
    check_call,
    check_defined,
    check_kwargs,
    is_built_in,
)
from rlprm.components.loading import load_component as _load_component
from rlprm.components.sources import remember_source, source_of, user_sources

__all__ = [
    "available_in",
    "canonical",
    "check_call",
    "check_defined",
    "check_kwargs",
    "is_built_in",
    "load_component",
    "source_of",
    "user_sources",
]


def load_component(
    package: str,
    name: str,
    family: str,
    *,
    exclude: frozenset[str] = frozenset(),
    needs: Sequence[str] = (),
) -> ModuleType:
    """Import a component and remember its source; see :func:`rlprm.components.loading.load_component`."""
    module = _load_component(package, name, family, exclude=exclude, needs=needs)
    remember_source(module)
    return module
