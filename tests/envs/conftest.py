"""What is made once (compiled games) is kept with pytest's own cache, and not in the user's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _kept_in_pytests_cache(pytestconfig: pytest.Config) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLPRM_CACHE", str(pytestconfig.cache.mkdir("rlprm")))
        yield
