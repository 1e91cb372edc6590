"""math-verify in a process of its own: hostile formulas, threads, forks, and who outlives whom."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from rlprm.envs import math
from rlprm.envs.math import flexible, grading
from rlprm.errors import ConfigError
from rlprm.types import End, Split

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "9^{9^{9^{9}}}",
    "9^{9^9}",
    "((9^9)^9)^9",
    "(9!)!",
    "10^{10^{10}} - 10^{10^{10}}",
    "(((9!)!)!)!",
    "\\sum_{n=1}^{10^9} n^{n}",
    "\\int x^{x^x} \\sin(x^{99}) dx",
    "\\binom{10^9}{10^8}",
    "(" * 90 + "18" + ")" * 90,
    "\\sqrt{" * 25 + "18" + "}" * 25,
    "\\frac{1}{" * 15 + "18" + "}" * 15,
    "^{" * 60 + "18" + "}" * 60,
    "\\prod_{k=1}^{10^8} (k^k+1)",
    "(x+y+z+w)^{99} 1",
    "\ud800 1",
]
EASY = ("2^{10}", "1024")


@pytest.fixture
def worker() -> Iterator[int]:
    """Return the process of a worker that runs."""
    grading.equals.cache_clear()
    assert grading.equals(*EASY)
    pid = grading.worker_pid()
    assert pid is not None
    yield pid
    grading.equals.cache_clear()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def seconds_of_children(pid: int) -> float:
    """Processor time of a process's children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def wait_until_gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


# ---------------------------------------------------------------------- hostile formulas


@pytest.mark.trap("time limit by signal")
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_trap_a_hostile_formula_costs_less_than_a_second_and_is_wrong(worker: int, number: int) -> None:
    # Processor time, because other processes of this machine take their share of the time on the wall.
    before, own = seconds_of_children(worker), time.process_time()
    assert not grading.equals(HOSTILE[number], "17")
    assert seconds_of_children(worker) - before + time.process_time() - own <= 1
    assert grading.worker_pid() == worker  # survives
    assert grading.equals("\\sqrt{324}", "18")


@pytest.mark.parametrize(
    "answer",
    [
        "9^9^9^9",
        "9^{9^{9^{9}}}",
        "{" * 5_000 + "18" + "}" * 5_000,
        "(" * 10_000 + "18" + ")" * 10_000,
        "(" * 10_000,
        "9" * 1_000_000,
        "9^" * 500_000 + "9",
        "\\frac{" * 10_000,
    ],
    ids=lambda answer: f"{answer[:8]}x{len(answer)}",
)
@pytest.mark.parametrize("form", ["\\boxed{{{}}}", "#### ${}$", "The answer is ${}$."])
def test_a_hostile_answer_is_wrong_in_an_episode(answer: str, form: str) -> None:
    task = math.Problem("q", ("#### 18",), "18", answers="flexible").task("t", Split.TRAIN)
    env = math.make(task, end=End.DECLARED)
    env.reset()
    started = time.process_time()
    assert env.step(form.format(answer)).reward == 0.0
    assert time.process_time() - started < 1
    assert env.outcome().score == 0.0


def test_a_long_answer_is_wrong_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flexible, "equals", lambda *_: pytest.fail("asked"))
    assert not flexible.same("2^{10}" + "+0" * 100, "1024")


def test_verdicts_are_remembered(worker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "_ask", lambda *_: pytest.fail("asked"))
    assert grading.equals(*EASY)


# ---------------------------------------------------------------------- what is imported and started


def python(code: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_neither_the_import_nor_plain_answers_load_algebra_or_start_a_process() -> None:
    code = """
import sys
from rlprm.envs import math
from rlprm.envs.math import grading
from rlprm.types import End, Split
for task in math.tasks(Split.TRAIN, 0, 20):
    answer = task.spec["answer"]
    for form in ("#### %s", "\\\\boxed{%s}", "The answer is $%s.", "\\\\boxed{\\\\frac{%s}{1}}"):
        env = math.make(task, end=End.DECLARED)
        env.reset()
        assert env.step("1 + 1 = 2").stop is None
        assert env.step(form % answer).reward == 1.0
        env = math.make(task, end=End.DECLARED)
        env.reset()
        assert env.step(form % "987654").reward == 0.0
assert grading.worker_pid() is None
print(sorted({"sympy", "math_verify", "latex2sympy2_extended", "antlr4"} & set(sys.modules)))
"""
    done = python(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "broken", ["raise ImportError('no\\nalgebra')", "import sys; sys.exit(3)", "parse = 1"]
)
def test_a_math_verify_that_does_not_work_is_one_line(tmp_path: Path, broken: str) -> None:
    (tmp_path / "math_verify.py").write_text(broken)
    code = """
from rlprm.envs.math import grading
from rlprm.errors import ConfigError
for _ in range(2):
    try:
        grading.equals("2^{10}", "1024")
    except ConfigError as error:
        print(error)
"""
    done = python(code, path=str(tmp_path))
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert "math answers: got 'flexible', but math-verify cannot be started" in line
        assert "choose 'strict'" in line


# ---------------------------------------------------------------------- threads and forks


@pytest.mark.trap("time limit by signal")
def test_trap_threads_get_their_own_verdicts(worker: int) -> None:
    questions = [(f"{n}+{n}", str(2 * n + wrong)) for n in range(2, 22) for wrong in (0, 1)]
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda question: grading.equals(*question), questions))
    assert verdicts == [True, False] * 20
    assert grading.worker_pid() == worker


def test_a_thread_may_start_the_worker_and_end_before_it() -> None:
    grading.stop_worker()
    grading.equals.cache_clear()
    verdicts: list[bool] = []
    for formula in ("9^{9^9}", "2^{10}"):
        thread = threading.Thread(target=lambda f=formula: verdicts.append(grading.equals(f, "1024")))
        thread.start()
        thread.join()
    assert verdicts == [False, True]
    assert grading.equals("2^{11}", "2048")


def test_signals_that_the_asking_thread_blocks_do_not_save_a_hostile_formula() -> None:
    grading.stop_worker()
    grading.equals.cache_clear()
    signals = {signal.SIGPROF, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ignored = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        assert not grading.equals("9^{9^9}", "18")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGPROF, ignored)


def _pid_after(question: tuple[str, str, bool]) -> tuple[bool, int | None, int]:
    """Answer in another process: the verdict, the worker's process, and the asking process."""
    formula, number, daemonic = question
    assert multiprocessing.current_process().daemon is daemonic
    return grading.equals(formula, number), grading.worker_pid(), os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_process_has_a_worker_of_its_own(worker: int, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        asked = [("3^{4}", "81", True), ("3^{4}", "80", True), ("9^{9^9}", "1", True), ("3^{5}", "243", True)]
        found = pool.map(_pid_after, asked, chunksize=1)
        others = {pid for _, pid, _ in found}
        assert [verdict for verdict, _, _ in found] == [True, False, False, True]
        assert worker not in others
        assert None not in others
        assert len(others) == len({asking for _, _, asking in found})
    assert grading.equals("2^{12}", "4096")
    assert grading.worker_pid() == worker
    assert all(wait_until_gone(pid) for pid in others if pid is not None)


def test_processes_of_a_pool_that_were_forked_while_a_thread_asked(worker: int) -> None:
    """The lock that the thread holds is not held in the fork."""
    thread = threading.Thread(target=grading.equals, args=("9^{9^{9}}", "2"))
    thread.start()
    while grading._lock.acquire(blocking=False):
        grading._lock.release()
        time.sleep(0.001)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(_pid_after, ("3^{6}", "729", False)).result(timeout=60)[0]
    thread.join()
    assert grading.worker_pid() == worker


# ---------------------------------------------------------------------- the worker's end


def test_a_killed_worker_is_started_again(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    assert wait_until_gone(worker)
    assert grading.equals("2^{11}", "2048")
    assert grading.worker_pid() not in (None, worker)


def test_a_worker_that_is_killed_while_it_works_is_asked_again(worker: int) -> None:
    timer = threading.Timer(0.05, os.kill, (worker, signal.SIGKILL))
    timer.start()
    assert not grading.equals("9^{9^{9}}", "3")
    timer.join()
    assert grading.equals("2^{11}", "2048")
    assert grading.worker_pid() not in (None, worker)


def test_a_worker_that_was_suspended_is_replaced(worker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "_ANSWER_SECONDS", 3.0)
    os.kill(worker, signal.SIGSTOP)
    assert grading.equals("2^{11}", "2048")
    assert grading.worker_pid() not in (None, worker)
    assert not is_running(worker)


def test_a_reply_that_nobody_waited_for_is_not_the_next_ones(
    worker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = grading._read_line

    def interrupt(*_: object) -> bytes | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(grading, "_read_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        grading.equals("2^{11}", "2048")
    monkeypatch.setattr(grading, "_read_line", read)
    assert not grading.equals("2^{11}", "2047")


STARTS = """
import os, signal, sys, time
from rlprm.envs.math import grading
assert grading.equals("2^{10}", "1024")
print(grading.worker_pid(), os.getpid(), flush=True)
"""


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(1)", "os._exit(0)", "raise RuntimeError", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_the_worker_ends_with_its_process(ending: str) -> None:
    done = python(STARTS + ending)
    assert wait_until_gone(int(done.stdout.split()[0])), done.stderr


def test_the_worker_ends_with_its_process_when_a_fork_of_the_process_lives_on() -> None:
    """The fork did not run Python's hooks, and holds the worker's pipe open."""
    code = f"""
{STARTS}
import ctypes
libc = ctypes.CDLL(None)
if libc.fork() == 0:
    print("fork", os.getpid(), flush=True)
    os.close(1); os.close(2)
    time.sleep(60)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = python(code)
    words = done.stdout.split()
    worker, fork = int(words[0]), int(words[words.index("fork") + 1])
    try:
        assert is_running(fork)
        assert wait_until_gone(worker)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_ctrl_c_at_the_terminal_leaves_the_worker_to_its_process(worker: int) -> None:
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    assert grading.equals("2^{11}", "2048")
    assert grading.worker_pid() == worker


def test_a_worker_that_ends_at_every_question_makes_it_wrong(
    worker: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(grading, "_ask", lambda *_: None)
    assert not grading.equals("2^{11}", "2048")
    assert "ended twice at '2^{11}', which counts as wrong" in caplog.text


def test_a_worker_that_cannot_be_started_is_an_error_every_time(
    worker: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grading.stop_worker()
    monkeypatch.setattr(grading, "_SCRIPT", tmp_path / "none.py")
    for _ in range(2):
        with pytest.raises(ConfigError, match="math-verify cannot be started"):
            grading.equals("2^{11}", "2048")
