"""The scorer ``http`` scores as the PRM in this process does, and says in one line what is wrong."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from rlprm.api.acting import _setting_for
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError, DataError, MismatchError, RlprmError, ServiceError
from rlprm.models.loading import revision_of
from rlprm.scorers import _connection, build, canonical_setting, revision_of_setting
from rlprm.scorers import http as module
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.http import HttpScorer
from rlprm.types import StepScores, StopReason, Trajectory
from tests.data.templates import foreign
from tests.prm.toy import separable
from tests.scorers.test_checkpoint import prefix
from tests.toys.serving import save_prm, served
from tests.toys.trajectories import of_words


@pytest.fixture(scope="module")
def prm(tiny_folder: Path, renderer: ChatRenderer, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prm(tmp_path_factory.mktemp("prm") / "prm", tiny_folder, renderer)


@pytest.fixture(scope="module")
def url(prm: str) -> Iterator[str]:
    with served(prm) as found:
        yield found


def scorer_at(url: str, **settings: Any) -> HttpScorer:
    return module.build("remote", url=url, **settings)


def assert_same(found: list[StepScores], expected: list[StepScores], *, tokens: bool = True) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.initial == pytest.approx(b.initial, abs=1e-5)
        assert a.values == pytest.approx(b.values, abs=1e-5)
        assert a.states == pytest.approx(b.states, abs=1e-5)
        assert a.tokens == b.tokens or not tokens


# --- the same scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["scalar", "lm"])
@pytest.mark.parametrize("reads", ["action", "state_and_action"])
def test_scores_are_those_of_the_prm_in_this_process(
    head: str, reads: str, tiny_folder: Path, renderer: ChatRenderer, tmp_path: Path
) -> None:
    folder = save_prm(tmp_path / "prm", tiny_folder, renderer, head=head, value_reads=reads)
    data = [*separable(4), of_words(["right", "finish"], True)]
    forced = data[-1].steps[0].end  # the length limit closed this message
    mask = tuple(0 if i == forced else m for i, m in enumerate(data[-1].action_mask))
    data.append(replace(data[-1], action_mask=mask))
    expected = CheckpointScorer.load("prm", folder).score(data)
    assert head == "scalar" or expected[-1].values != expected[-2].values  # the mask reaches the head
    with served(folder) as url:
        assert_same(scorer_at(url).score(data), expected)


@pytest.mark.parametrize("head", ["scalar", "lm"])
def test_a_search_costs_the_same_tokens_and_scores_the_same(
    head: str, tiny_folder: Path, renderer: ChatRenderer, tmp_path: Path
) -> None:
    folder = save_prm(tmp_path / "prm", tiny_folder, renderer, head=head, value_reads="state_and_action")
    full = [t for t in separable(6) if len(t.steps) >= 3]
    with served(folder) as url:
        here, there = CheckpointScorer.load("prm", folder), scorer_at(url)
        with here.searching(), there.searching():
            for steps in (1, 2, 3):
                candidates = [prefix(t, steps) for t in full]
                found = there.score(candidates)
                assert_same(found, here.score(candidates))
    whole = here.score([replace(prefix(t, 3), stop=StopReason.DECLARED) for t in full])
    assert sum(s.tokens for s in found) < sum(s.tokens for s in whole) / 2
    assert_same(found, whole, tokens=False)


def test_a_round_of_several_requests_costs_the_same_tokens(prm: str) -> None:
    """Tasks stay in their requests while others end, and the candidates of one become more."""
    full = {task: of_words(["right", "left", "wait"], True, task=task) for task in "abcde"}
    rounds = [
        [prefix(full[task], 1) for task in "abcde" for _ in range(2)],
        [prefix(full[task], 2) for task in "eaabbd"],
        [prefix(full[task], 3) for task in "daab"],
    ]
    here = CheckpointScorer.load("prm", prm)
    with served(prm, max_trajectories=4) as url, here.searching(), (there := scorer_at(url)).searching():
        for candidates in rounds:
            assert_same(there.score(candidates), here.score(candidates))
        assert there._search is not None
        assert len(there._search.names) == 3


def test_two_searches_at_the_same_time_keep_what_they_have_read(prm: str, url: str) -> None:
    here = CheckpointScorer.load("prm", prm)
    first, second = scorer_at(url), scorer_at(url)
    one, two = (
        [prefix(of_words(["right", "left", word], True, task=word), n) for n in (1, 2, 3)]
        for word in ("wait", "finish")
    )
    with here.searching():
        expected = [here.score([candidate]) for candidate in one]
    with first.searching(), second.searching():
        for i in range(3):
            assert_same(first.score([one[i]]), expected[i])
            assert len(second.score([two[i]])[0].values) == i + 1


def test_a_round_above_the_servers_memory_is_read_whole(prm: str) -> None:
    full = [t for t in separable(3) if len(t.steps) >= 2]
    with served(prm, search_tokens=0) as url, (scorer := scorer_at(url)).searching():
        for steps in (1, 2):
            candidates = [prefix(t, steps) for t in full]
            whole = [replace(t, stop=StopReason.DECLARED) for t in candidates]
            assert_same(scorer.score(candidates), CheckpointScorer.load("prm", prm).score(whole))


def test_the_oldest_searches_are_forgotten_and_score_the_same(prm: str) -> None:
    t = of_words(["right", "left"], True)
    with served(prm, search_tokens=len(t.token_ids)) as url:
        first, second = scorer_at(url), scorer_at(url)
        with first.searching(), second.searching():
            first.score([prefix(t, 1)])
            second.score([prefix(t, 1)])  # no room for both
            found = first.score([t])
    assert_same(found, CheckpointScorer.load("prm", prm).score([t]))


def test_a_prm_with_another_tokenizer_gets_messages(
    foreign_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_prm(tmp_path / "foreign", foreign_folder, foreign(), head="lm")
    data = [
        of_words(["right", "left", "finish"], True),
        of_words(["wait <|im_end|>", "<think>no</think> thought"], False),
        prefix(of_words(["right", "left", "finish"], True), 2),
    ]
    forced = data[0].steps[1].end
    mask = tuple(0 if i == forced else m for i, m in enumerate(data[0].action_mask))
    data.append(replace(data[0], action_mask=mask))
    data[2] = replace(data[2], stop=StopReason.ROUND_LIMIT)
    expected = CheckpointScorer.load("prm", folder).score(data)
    assert expected[0].values != expected[3].values
    with served(folder) as url:
        scorer = scorer_at(url)
        with caplog.at_level(logging.WARNING):
            assert_same(scorer.score(data), expected)
            scorer.score(data[:1])
    (said,) = [r.message for r in caplog.records if r.name == "rlprm.scorers.http"]  # once
    assert foreign().template_hash in said


def test_another_template_is_refused_if_the_server_has_none(prm: str, tmp_path: Path) -> None:
    for file in Path(prm).iterdir():
        if "token" not in file.name and "template" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    with served(str(tmp_path)) as url:
        scorer = scorer_at(url)
        assert len(scorer.score([of_words(["right"], True)])) == 1
        with pytest.raises(
            MismatchError, match=r"x7 was rendered with template dead, .* has no chat template"
        ):
            scorer.score([replace(of_words(["right"], True, task="x7"), template="dead")])


def test_many_trajectories_are_several_requests_in_order(prm: str) -> None:
    data = [of_words(["right"] * (1 + i % 3), True, task=str(i)) for i in range(9)]
    expected = CheckpointScorer.load("prm", prm).score(data)
    with served(prm, max_trajectories=2) as url:
        assert_same(scorer_at(url).score(data), expected)
    with served(prm, max_body=2_000) as url:
        assert_same(scorer_at(url).score(data), expected)
        with pytest.raises(DataError, match=r"task x7 has \d+ bytes for remote, whose server takes 1800"):
            scorer_at(url).score([of_words(["right"] * 30, True, task="x7")])


def test_threads_share_a_scorer(prm: str, url: str) -> None:
    scorer, data = scorer_at(url), [of_words(["right"] * (1 + i % 5), True, task=str(i)) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda t: scorer.score([t])[0], data))
    assert_same(found, CheckpointScorer.load("prm", prm).score(data))


def test_nothing_is_asked_for_no_trajectories(url: str) -> None:
    assert scorer_at(url).score([]) == []


# --- settings -----------------------------------------------------------------------------------------------


def test_it_is_built_from_settings_and_its_revision_is_that_of_the_weights(prm: str, url: str) -> None:
    setting = canonical_setting("prm", {"kind": "http", "url": url})
    assert isinstance(setting, dict)
    scorer = build("prm", setting)
    assert isinstance(scorer, HttpScorer)
    assert (scorer.name, scorer.manifest.end) == ("prm", "declared")
    assert revision_of_setting(setting).endswith(f"-{revision_of(prm)}")


def test_the_functions_of_the_public_face_compare_its_manifest(url: str) -> None:
    scorer = scorer_at(url)
    assert _setting_for(scorer, {"prompt": "none"}).prompt == "none"
    with pytest.raises(MismatchError, match="prompt: trained with 'none', used with 'short'"):
        _setting_for(scorer, {"prompt": "short"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://x"}, "url: got 'ftp://x', allowed: http://host:port"),
        ({"url": "http://x/?a=1"}, "url: got"),
        ({"url": "http://x:99999"}, "url: got"),
        ({"url": "http://x\x1b[2J"}, r"url: got 'http://x\\x1b"),
        ({"url": "http://me:secret@x"}, "url: got one with a user or password"),
        ({"url": "http://x", "timeout": 0}, "timeout: got 0, allowed: seconds above 0"),
        ({"url": "http://x", "attempts": 0}, "attempts: got 0, allowed: 1 or more"),
        ({"url": "http://x", "api_key_env": "RLPRM_NO_SUCH_KEY"}, "api_key_env: the environment variable"),
        ({"url": "http://x", "api_key_env": "sk-secret"}, "api_key_env: the environment variable"),
    ],
)
def test_mistakes_in_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        module.build("prm", **settings)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_key_comes_from_the_environment(prm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPRM_TEST_KEY", "s3cret")
    with served(prm, api_key_env="RLPRM_TEST_KEY") as url:
        assert len(scorer_at(url, api_key_env="RLPRM_TEST_KEY").score([of_words(["right"], True)])) == 1
        with pytest.raises(ConfigError, match="HTTP 401: the server refuses the key"):
            scorer_at(url)
        monkeypatch.setenv("RLPRM_TEST_KEY", "another")
        with pytest.raises(ConfigError, match="HTTP 401") as caught:
            scorer_at(url, api_key_env="RLPRM_TEST_KEY")
        assert "another" not in str(caught.value)


# --- servers that fail --------------------------------------------------------------------------------------


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers what it is told to, in order; the last answer for ever."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int | None, bytes]]] = []
    seen: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append(f"{self.command} {self.path}")
        status, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status is None:  # the connection breaks
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*answers: tuple[int | None, bytes]) -> Iterator[str]:
    Scripted.answers, Scripted.seen = list(answers), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection.time, "sleep", lambda seconds: None)


@pytest.fixture
def info(url: str) -> bytes:
    return httpx.get(f"{url}/info").content


@pytest.mark.usefixtures("_no_pauses")
def test_a_busy_server_and_a_broken_connection_are_asked_again(info: bytes) -> None:
    t = of_words(["right", "left"], True)
    held = json.loads(info)
    row = {"initial": 0.1, "values": [0.2, 0.3], "states": [], "tokens": 9}
    good = json.dumps({**{n: held[n] for n in ("revision", "template")}, "scores": [row]}).encode()
    with scripted(
        (None, b""), (200, info), (503, b'{"error": "full"}'), (429, b""), (None, b""), (200, good)
    ) as url:
        assert scorer_at(url).score([t]) == [StepScores(0.1, (0.2, 0.3), 9)]
    assert Scripted.seen == ["GET /info"] * 2 + ["POST /score"] * 4


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ([(503, b'{"error": "full\\u001b[2J\\nnext"}')], ServiceError, "HTTP 503: full"),
        ([(500, b"\x1b]0;x\x07")], ServiceError, "HTTP 500: ]0;x"),
        ([(None, b"")], ServiceError, "GET http"),
        ([(404, b"<html>")], ServiceError, "HTTP 404: <html>"),
        ([(200, b"<html>")], ServiceError, "the answer is no JSON: <html>"),
        ([(200, b"[" * 100_000)], ServiceError, "the answer is no JSON"),
        ([(200, b"{}")], ServiceError, "is no server of rlprm serve-prm"),
        ([(200, b"[]")], ServiceError, "is no server of rlprm serve-prm"),
    ],
)
def test_what_a_server_does_wrong_at_the_start_is_one_line(
    answers: list[tuple[int | None, bytes]], error: type[RlprmError], message: str
) -> None:
    with scripted(*answers) as url, pytest.raises(error) as caught:
        scorer_at(url, attempts=3)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    if answers[0][0] in (503, 500, None):
        assert len(Scripted.seen) == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"revision": "new"}, MismatchError, "has another PRM than at the start (revision new now"),
        ({"scores": []}, ServiceError, "no scores of 1 trajectories"),
        ({"scores": [{"initial": 0.1}]}, ServiceError, "scores of another form"),
        (
            {"scores": [{"initial": 0, "values": [1], "states": [], "tokens": 1}]},
            ServiceError,
            "of the 2 steps",
        ),
        (
            {"scores": [{"initial": 0, "values": [1, float("nan")], "states": [], "tokens": 1}]},
            ServiceError,
            "no finite score",
        ),
    ],
)
def test_answers_that_cannot_be_right_are_refused(
    info: bytes, change: dict[str, Any], error: type[RlprmError], message: str
) -> None:
    held = json.loads(info)
    answer = {**{n: held[n] for n in ("revision", "template")}, "scores": [], **change}
    with scripted((200, info), (200, json.dumps(answer).encode())) as url, pytest.raises(error) as caught:
        scorer_at(url).score([of_words(["right", "left"], True)])
    assert message in str(caught.value)


def test_no_server_and_a_late_one(info: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_connection.time, "sleep", pauses.append)
    with pytest.raises(ServiceError, match=r"GET http://127.0.0.1:9/info: ConnectError"):
        scorer_at("http://127.0.0.1:9", attempts=4)
    assert pauses == [0.1, 0.2, 0.4]


def test_trajectories_that_cannot_be_scored_are_named(url: str) -> None:
    scorer = scorer_at(url)
    empty = replace(of_words(["right"], True), token_ids=(), steps=(), error="RuntimeError: down")
    with pytest.raises(DataError, match="no tokens to score: RuntimeError: down"):
        scorer.score([empty])
    with pytest.raises(DataError, match=r"task x7 has \d+ tokens for remote, which takes 512"):
        scorer.score([of_words(["right"] * 60, True, task="x7")])
    wrong = of_words(["right"], True)
    beyond: Trajectory = replace(wrong, token_ids=(10**6, *wrong.token_ids[1:]))
    with pytest.raises(
        DataError, match=r"HTTP 422: trajectories\.0\.token_ids\.0: got 1000000, allowed: 0 to"
    ):
        scorer.score([beyond])
