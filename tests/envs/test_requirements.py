"""An environment that needs more than the package says so, before anything else fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlprm import envs


@pytest.mark.parametrize("name", ["babyai", "textcraft"])
def test_what_the_package_brings_is_never_missing(name: str) -> None:
    assert envs.missing(name) is None


@pytest.mark.parametrize("reason", [None, "pip install thing"])
def test_a_module_of_ones_own_says_what_it_needs(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(requirements=lambda: reason)
    monkeypatch.setattr(envs, "load", lambda name: module)
    assert envs.missing("of.my.own") == reason


def test_every_reason_is_one_line() -> None:
    reasons = [envs.missing(name) for name in envs.available()]
    assert all(reason is None or (reason and "\n" not in reason) for reason in reasons)
