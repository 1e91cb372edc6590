"""The page in a real browser: opened, filtered, clicked through, with keys, and without an error."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlprm.report.finding import find_run
from rlprm.report.page import write_page
from tests.report.runs import HOSTILE, evaluation, rl

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytest.importorskip("selenium", reason="selenium is not installed (pip install 'rlprm[dev]')")
if BROWSER is None or DRIVER is None:
    pytest.skip(
        "no chromium with its driver is installed (scripts/install_browser.sh)", allow_module_level=True
    )
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"user-data-dir={profile}", "window-size=1300,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    evaluation(root / "evaluation")
    rl(root / "rl")
    write_page([find_run(root)], root / "report.html")
    return root / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    browser.get(report.as_uri())
    wait(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    wait(lambda: text(browser, "candidate"))
    yield browser
    assert browser.get_log("browser") == []  # no error, and nothing that the page's policy had to stop


def wait(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.02)
    return found


def text(browser: Any, name: str) -> str:
    return str(browser.find_element("id", name).text)


def choose(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'));",
        name, value,
    )  # fmt: skip


def test_a_page_opens_at_the_first_task_with_candidates_ranked(page: Any) -> None:
    assert text(page, "count") == "3 of 3 tasks, 6 trajectories"
    rows = page.find_elements("css selector", "#task tbody tr")
    assert [row.text.split()[1] for row in rows] == ["1", "0"]  # the success has the better value
    shown = text(page, "candidate")
    for part in ("✓ success", "▲", "probability under the policy", "before any action prm says 0.50"):
        assert part in shown
    assert f"say {HOSTILE}" in shown  # as text
    assert page.title != "owned"


def test_another_scorer_ranks_otherwise_and_the_filter_finds_where_they_disagree(page: Any) -> None:
    choose(page, "scorer", "other")
    wait(lambda: page.find_elements("css selector", "#task tbody tr")[0].text.split()[1] == "0")
    choose(page, "kind", "disagree")
    wait(lambda: text(page, "count") == "2 of 3 tasks, 4 trajectories")
    choose(page, "kind", "never")
    wait(lambda: text(page, "count") == "1 of 3 tasks, 2 trajectories")
    assert "task-1" in text(page, "tasks")
    choose(page, "query", "no such task")
    wait(lambda: text(page, "count") == "0 of 3 tasks, 0 trajectories")
    assert text(page, "candidate") == ""


def test_stop_reasons_and_lengths_filter(page: Any) -> None:
    choose(page, "stop", "round_limit")
    wait(lambda: text(page, "count").startswith("3 of 3"))
    choose(page, "shortest", "4")
    wait(lambda: text(page, "count").startswith("0 of 3"))


def test_keys_go_through_tasks_and_candidates(page: Any) -> None:
    body = page.find_element("tag name", "body")
    body.send_keys("j")
    wait(lambda: text(page, "candidate").startswith("task-1"))
    body.send_keys("k")
    wait(lambda: text(page, "candidate").startswith("task-0, sample 1"))
    body.send_keys("n")
    wait(lambda: text(page, "candidate").startswith("task-0, sample 0"))
    body.send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "query"


def test_tokens_come_on_demand(page: Any) -> None:
    button = page.find_element("css selector", "#candidate .step button")
    page.execute_script("arguments[0].click()", button)
    assert "-1.00" in page.find_element("css selector", "#candidate .tokens").text


def test_a_beam_is_a_tree_with_what_was_kept_and_chosen(page: Any) -> None:
    choose(page, "source", "1")
    tree = wait(lambda: page.find_elements("css selector", "#candidate .tree"))[0]
    found = page.execute_script("return arguments[0].textContent", tree)
    assert "right  0.30  (kept)" in found
    assert "stop  0.80  (chosen, declared ✓)" in found
    assert "left  0.10  (dropped)" in found


def test_episodes_of_agent_rl_show_one_task_over_iterations(page: Any) -> None:
    choose(page, "source", "2")
    wait(lambda: text(page, "count") == "1 of 1 tasks, 6 trajectories")
    iterations = [row.text.split()[1] for row in page.find_elements("css selector", "#task tbody tr")]
    assert iterations == ["0", "0", "1", "1", "2", "2"]


def test_light_and_dark_differ_and_text_stands_out_in_both(page: Any) -> None:
    seen = []
    for _ in range(2):
        colours = page.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
        ink, paper = (sum(map(int, c[c.index("(") + 1 : -1].split(",")[:3])) for c in colours)
        assert abs(ink - paper) > 400
        seen.append(paper)
        page.find_element("id", "theme").click()
    assert seen[0] != seen[1]


def test_a_hundred_thousand_trajectories_stay_usable(browser: Any, tmp_path: Path) -> None:
    from rlprm.report.packing import packed
    from rlprm.report.page import page_parts

    count, samples = 100_000, 16
    columns = {
        "task": [i // samples for i in range(count)], "sample": [i % samples for i in range(count)],
        "ok": [i % 3 == 0 for i in range(count)], "o": [0.5] * count, "stop": ["declared"] * count,
        "len": [i % 9 for i in range(count)], "portion": [0] * count, "place": [0] * count,
    }  # fmt: skip
    tasks = [f"task-{i}" for i in range(count // samples)]
    ranks = {"prm": [(7919 * i % 1000) / 1000 for i in range(count)]}
    index = {
        "title": "many", "kind": "pool", "rules": {}, "tokens": {}, "tasks": tasks, "goals": tasks,
        "columns": columns, "ranks": ranks, "count": count,
    }  # fmt: skip
    evaluation(tmp_path / "evaluation")
    page = "".join(page_parts([find_run(tmp_path)]))
    opening = '<script type="text/plain" id="index">'
    head, _, tail = page.rpartition(opening)
    path = tmp_path / "many.html"
    path.write_text(head + opening + packed([index]) + tail[tail.index("</script>") :])
    browser.get(path.as_uri())
    wait(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    assert text(browser, "count") == "6,250 of 6,250 tasks, 100,000 trajectories"
    choose(browser, "query", "task-4321")
    wait(lambda: text(browser, "count") == "1 of 6,250 tasks, 16 trajectories")
