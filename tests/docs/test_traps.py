"""Every trap has a test that pins it, and every such test says which trap it is."""

from __future__ import annotations

from tests.docs import traps


def test_every_trap_is_pinned_and_every_mark_names_a_trap() -> None:
    assert {name for name, _, _ in traps.marked_tests()} == set(traps.names())


def test_a_test_is_marked_if_its_name_says_trap() -> None:
    found = list(traps.marked_tests())
    assert len(found) > 50
    for path in sorted({path for _, path, _ in found} | set((traps.ROOT / "tests").rglob("test_*.py"))):
        text = (traps.ROOT / path).read_text(encoding="utf-8")
        assert text.count("def test_trap_") == text.count("@pytest.mark.trap("), path


def test_sources_are_links() -> None:
    page = traps.page()
    assert "[trl#5224](https://github.com/huggingface/trl/issues/5224)" in page
    assert "[PURE](https://arxiv.org/abs/2504.15275)" in page
