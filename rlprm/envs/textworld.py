"""TextWorld: Microsoft's generated text adventures, with their words, commands and walkthroughs.

A game is generated and compiled (seconds) the first time it is needed and kept in the folder that
``RLPRM_CACHE`` names (``~/.cache/rlprm`` if unset); from then on it runs in a Z-machine in this process.
Partially observed: one room at a time. Needs ``pip install "textworld<1.8"``.

Two things differ from a game that TextWorld compiles itself: it does not tell that the quest is
completed or the score changed (the environment does, where ends are announced), and it can be played
on after that.
"""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlprm.envs import _openings
from rlprm.envs._checks import user_path
from rlprm.envs._openings import AGENTGYM_ACKNOWLEDGEMENT, Instructions
from rlprm.envs._splits import numbered
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Message, Outcome, Split, StopReason, Task, Turn

__all__ = [
    "CHALLENGES",
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "Game",
    "TextWorld",
    "demonstrate",
    "make",
    "normalize",
    "opening",
    "requirements",
    "tasks",
]

ROUND_LIMIT = 30

CHALLENGES = {"quest": 15, "coin_collector": 300, "treasure_hunter": 30}
"""Kinds of games and the highest level of each."""

_FORMAT = 1  # of the kept games; another one is another file
_ATTEMPTS = 20  # for some seeds no quest of the wanted length exists
_EMULATORS = 32  # about 4 MB each
_STARTS = 512  # about 40 KB each
_LONGEST_COMMAND = 150  # characters; the Z-machine cuts a line at 200

_WON, _LOST = "(quest completed)", "(quest failed)"
_WIN = "end the story finally; [Win]"
_ENDINGS = {_WIN: f'say "{_WON}";', "end the story; [Lost]": f'say "{_LOST}";'}

_FINISH = "finish"
_FINISHED = "You have finished."
_FINISH_LINE = "\nNobody tells you when the quest is completed: answer finish once it is."
_THE_END, _YOU_LOST = "*** The End ***", "*** You lost! ***"
_UNKNOWN = "That's not a verb I recognise."

# Verbs about the game rather than in it: they would end it, write files, or tell the score. After "oops"
# or "then" any of them could follow; "again" may repeat one that the environment itself gave.
_NOT_PLAYED = frozenset(
    {
        "quit", "q", "restart", "restore", "save", "undo", "script", "transcript", "notify",
        "score", "full", "verify", "version", "nouns", "pronouns", "superbrief", "short", "verbose",
        "long", "brief", "normal", "enable", "disable", "restrict", "oops", "o",
        "again", "g",
    }
)  # fmt: skip

_BANNER = re.compile(r"\A.*\$ *\n", re.DOTALL)
_PROMPT = re.compile(r"\n>[^\n]*\Z")
_TRACE = re.compile(r"^\[[^\]\n]*\]\n?", re.MULTILINE)
_CARRIED_OUT = re.compile(r"^\[(?!\()[^\]\n]* - succeeded\]", re.MULTILINE)
_SCORE = re.compile(r"Your score (?:has just gone up|changed) by [^\n]*points?\.")
_GAPS = re.compile(r"\s*\n\s*\n\s*")

_DEFINITIONS = {
    End.ON_SUCCESS: "textworld: quest completed",
    End.DECLARED: "textworld: quest completed, and not lost before, at any time",
}


FIXED_PHRASES: tuple[str, ...] = (
    # rooms
    "-= ",
    " =-\n",
    "There is an exit to the ",
    "There is an unblocked exit to the ",
    "There is an unguarded exit to the ",
    "Don't worry, it is unblocked.",
    "Don't worry, it is unguarded.",
    "You need an unblocked exit? You should try going ",
    "You need an unguarded exit? You should try going ",
    "You don't like doors? Why not try going ",
    ", that entranceway is unblocked.",
    ", that entranceway is unguarded.",
    " on the floor.",
    # answers
    "You are carrying: ",
    "You pick up the ",
    " from the ground.",
    "You take the ",
    "You open the ",
    "You close the ",
    "You unlock the ",
    "You lock the ",
    "You put the ",
    "You can't go that way.",
    "You can't see any such thing.",
    "Time passes.",
    _UNKNOWN,
    # ends
    _FINISH_LINE,
    _FINISH,
    _FINISHED,
    _THE_END,
    _YOU_LOST,
)
"""Parts of the text that are the same in many games."""

_SHORT = (
    "You play a text adventure: reach the objective. Answer each observation with one command and nothing "
    "else, for instance: go north, look, inventory, examine box, take key from table, drop key, open box, "
    "unlock box with key, put cup on table, insert cup into box, eat apple."
)
_SHORT_FINISH = " Nobody tells you when the quest is completed: answer finish once it is."

_AGENTGYM = """\
You play a text adventure. At the start you are told your objective.
In every round you receive an observation, and you reply with one command:
- look; inventory; examine <object>
- go north, go south, go east, go west
- take <object>; take <object> from <object>; drop <object>
- put <object> on <object>; insert <object> into <object>
- open <object>; close <object>; lock <object> with <object>; unlock <object> with <object>
- eat <object>
"""
_AGENTGYM_FINISH = """\
You are not told when the objective is reached: end the task with "finish" as soon as it is.
"""
_AGENTGYM_FORMAT = """\
Write every reply in this format:
Thought:
<Your Thought>

Action:
<Your Action>"""

_STYLES = {
    "short": Instructions(_SHORT, _SHORT_FINISH),
    "agentgym": Instructions(_AGENTGYM, _AGENTGYM_FINISH, _AGENTGYM_FORMAT, AGENTGYM_ACKNOWLEDGEMENT),
}


@dataclass(frozen=True)
class Game:
    """What a game is generated from."""

    challenge: str
    level: int
    rooms: int
    objects: int
    brief: bool
    seed: int

    @property
    def name(self) -> str:
        """Name of its task and of its files."""
        size = f"-{self.rooms}-{self.objects}" if self.challenge == "quest" else ""
        return f"{self.challenge}-{self.level}{size}{'-brief' if self.brief else ''}-{self.seed}"


def requirements() -> str | None:
    """Return why the environment cannot run here, or None."""
    if importlib.util.find_spec("textworld") and importlib.util.find_spec("jericho"):
        return None
    return 'the environment textworld needs the package textworld: pip install "textworld<1.8"'


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    challenge: str = "quest",
    levels: Sequence[int] = (2, 3, 4),
    rooms: int = 3,
    objects: int = 5,
    brief: bool = False,
    **unknown: Any,
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

    Task ``i`` is a game of ``levels[i % n]`` generated with seed ``base(split) + i // n``.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        challenge: ``"quest"`` (something to be done in a house), ``"coin_collector"`` or
            ``"treasure_hunter"``.
        levels: Of a quest: the number of commands it takes (1 to 15). Of the others: TextWorld's level.
        rooms: Of a quest's house, 1 to 20.
        objects: In a quest's house, 1 to 30; more where the quest needs them.
        brief: Whether the objective names the last thing to do rather than everything.
        unknown: Nothing; any other setting is an error.

    Raises:
        ConfigError: for an unknown or impossible setting or range.
    """
    if unknown:
        allowed = "challenge, levels, rooms, objects, brief"
        raise ConfigError(f"textworld has no setting {sorted(unknown)}; allowed: {allowed}")
    _check(challenge, levels, rooms, objects, brief)
    addresses = numbered("textworld", split, start, count, kinds=sorted(levels), kind="level")
    games = [Game(challenge, level, rooms, objects, brief, seed) for level, seed in addresses]
    return [Task("textworld", game.name, split, asdict(game)) for game in games]


def make(task: Task, *, end: End) -> TextWorld:
    """Build the environment of a task (and, the first time it is asked for, its game).

    Raises:
        ConfigError: if the task is not one of this environment, TextWorld is not installed, or it
            cannot make such a game.
    """
    return TextWorld(str(_files(_game_of(task))[0]), end=End(end))


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return the game's own walkthrough, tried out; with ``End.DECLARED`` it ends with ``finish``.

    Raises:
        ConfigError: as :func:`make`.
        DemonstrationError: where the walkthrough does not complete the quest within the round limit.
    """
    walkthrough = json.loads(_files(_game_of(task))[1].read_text(encoding="utf-8"))["walkthrough"]
    actions = [*walkthrough, _FINISH] if end is End.DECLARED else list(walkthrough)
    if len(actions) > ROUND_LIMIT:
        raise DemonstrationError(f"{task.id}: the walkthrough has {len(actions)} actions")
    episode = make(task, end=end)
    episode.reset()
    turns = [episode.step(action) for action in actions[:-1]]
    if (
        any(turn.stop for turn in turns)
        or not episode.step(actions[-1]).stop
        or not episode.outcome().success
    ):
        raise DemonstrationError(f"{task.id}: the walkthrough {walkthrough} does not complete the quest")
    return actions


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation.

    Args:
        end: With ``End.DECLARED`` the instructions explain ``finish``.
        style: ``"none"``, ``"short"`` (answer with the bare command) or ``"agentgym"`` (the
            Thought/Action format of AgentGym; it has no such environment of its own).

    Raises:
        ConfigError: for another style.
    """
    return _openings.opening(_STYLES, end=end, style=style)


def normalize(action: str) -> str:
    """Return the command in an action: a line of small letters, digits, hyphens and apostrophes."""
    return " ".join(re.sub(r"[^a-z0-9'-]+", " ", action.lower()).split())[:_LONGEST_COMMAND]


class TextWorld:
    """One episode: commands in, the game's words out.

    The state is a copy of the Z-machine's memory, so that any number of episodes share an emulator.
    """

    __slots__ = ("_achieved", "_declared", "_file", "_lost", "_state", "_stopped")

    def __init__(self, file: str, *, end: End) -> None:
        """Prepare an episode of a compiled game; ``reset`` begins it."""
        self._file = file
        self._declared = end is End.DECLARED
        self._state: Any = None
        self._achieved = False
        self._lost = False  # for good, even if the game would let it be put right
        self._stopped = False

    def reset(self) -> str:
        """Start the episode and return the objective and the first room."""
        shown, self._state = _start(self._file)
        return shown + (_FINISH_LINE if self._declared else "")

    def step(self, action: str) -> Turn:
        """Carry out one command; one that the game does not know or that cannot be done changes nothing.

        Raises:
            RuntimeError: after the end of the episode.
        """
        if self._stopped:
            raise RuntimeError("this episode is over")
        command = normalize(action)
        if self._declared and command == _FINISH:
            return self._end(StopReason.DECLARED, _FINISHED)
        words = command.split()
        if not words or words[0] in _NOT_PLAYED or words[0].startswith("tw-") or "then" in words:
            return Turn(_UNKNOWN, valid=False)
        emulator = _emulator(self._file)
        emulator.set_state(self._state)
        raw = emulator.step(command)[0]
        self._state = emulator.get_state()
        self._achieved = self._achieved or (_WON in raw and not self._lost)
        self._lost = self._lost or (_LOST in raw and not self._achieved)
        shown = _readable(raw)
        if not self._declared and self._achieved:
            return self._end(StopReason.SUCCESS, f"{shown}\n\n{_THE_END}")
        if not self._declared and self._lost:
            return self._end(StopReason.FAILURE, f"{shown}\n\n{_YOU_LOST}")
        return Turn(shown, valid=bool(_CARRIED_OUT.search(raw)))

    def outcome(self) -> Outcome:
        """Judge the episode as it stands."""
        end = End.DECLARED if self._declared else End.ON_SUCCESS
        return Outcome(float(self._achieved), self._achieved, _DEFINITIONS[end])

    def fork(self) -> TextWorld:
        """Return an independent copy in the same state; its memory is never written to."""
        return copy.copy(self)

    def _end(self, stop: StopReason, answer: str) -> Turn:
        self._stopped = True
        return Turn(answer, reward=float(self._achieved), stop=stop)


def _readable(raw: str) -> str:
    """Return what a game says without its prompt, trace and marks."""
    shown = _SCORE.sub("", _TRACE.sub("", _PROMPT.sub("", raw))).replace(_WON, "").replace(_LOST, "")
    return _GAPS.sub("\n\n", shown).strip()


@functools.lru_cache(maxsize=_EMULATORS)
def _emulator(file: str) -> Any:
    import jericho

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it knows the scores of published games only, and says so
        return jericho.FrotzEnv(file, seed=0)


@functools.lru_cache(maxsize=_STARTS)
def _start(file: str) -> tuple[str, Any]:
    """Return the first words of a game and the state in which it tells what became of each command."""
    emulator = _emulator(file)
    shown = _readable(_BANNER.sub("", emulator.reset()[0]))
    emulator.step("tw-trace-actions")
    return shown, emulator.get_state()


def _files(game: Game) -> tuple[Path, Path]:
    """Return the paths of the compiled game and of what is known about it; both are made if missing."""
    if reason := requirements():
        raise ConfigError(reason)
    folder = user_path("RLPRM_CACHE", os.environ.get("RLPRM_CACHE") or "~/.cache/rlprm")
    folder /= f"textworld-{importlib.metadata.version('textworld')}-{_FORMAT}"
    story, known = folder / f"{game.name}.z8", folder / f"{game.name}.json"
    if not (story.exists() and known.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may make the same game: each its own, and the last one to finish leaves it.
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            walkthrough = _compile(game, f"{workshop}/story.z8")
            (Path(workshop) / "known").write_text(json.dumps({"walkthrough": walkthrough}), encoding="utf-8")
            os.replace(f"{workshop}/known", known)
            os.replace(f"{workshop}/story.z8", story)
    return story, known


def _compile(game: Game, file: str) -> list[str]:
    """Generate a game, compile it without its announcements, and return its walkthrough."""
    from textworld.generator.inform7 import (
        CouldNotCompileGameError,
        compile_inform7_game,
        generate_inform7_source,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of every name that it uses twice
        made = _generate(game)
    source = generate_inform7_source(made)
    if source.count(_WIN) != 1:
        raise ConfigError("textworld: this version writes the end of a game in a way that is not known here")
    for announced, marked in _ENDINGS.items():
        source = source.replace(announced, marked)
    try:
        compile_inform7_game(source, file)
    except CouldNotCompileGameError as error:
        raise ConfigError(f"textworld cannot compile {game.name}; a smaller game may do") from error
    return list(made.metadata["walkthrough"])


def _generate(game: Game) -> Any:
    from textworld import GameOptions
    from textworld.challenges import CHALLENGES as MAKERS
    from textworld.generator import QuestGenerationError, make_game
    from textworld.generator.vtypes import NotEnoughNounsError
    from textworld.generator.world import NoFreeExitError

    for attempt in range(_ATTEMPTS):
        options = GameOptions()
        # Tasks have seeds below 2**31: what one turns to when its own does not do belongs to no other.
        options.seeds = game.seed if attempt == 0 else 2**31 + (game.seed * _ATTEMPTS + attempt) % 2**31
        options.grammar.only_last_action = game.brief
        options.nb_rooms, options.nb_objects, options.quest_length = game.rooms, game.objects, game.level
        try:
            if game.challenge == "quest":
                return make_game(options)
            return MAKERS[f"tw-{game.challenge}"][1]({"level": game.level}, options)
        except (QuestGenerationError, NotEnoughNounsError, NoFreeExitError):
            continue
    raise ConfigError(f"textworld cannot generate {game.name}: nothing was found with {_ATTEMPTS} seeds")


def _game_of(task: Task) -> Game:
    try:
        game = Game(**task.spec)
        _check(game.challenge, [game.level], game.rooms, game.objects, game.brief)
        _check_number("seed", game.seed, 2**31 - 1, low=0)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"not a textworld task: {task.id!r} with spec {dict(task.spec)!r}") from error
    return game


def _check(challenge: Any, levels: Any, rooms: Any, objects: Any, brief: Any) -> None:
    if not isinstance(challenge, str) or challenge not in CHALLENGES:
        raise ConfigError(f"textworld challenge: got {challenge!r}, allowed: {', '.join(CHALLENGES)}")
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ConfigError(f"textworld levels: got {levels!r}, allowed: a list of numbers")
    for level in levels:
        _check_number("levels", level, CHALLENGES[challenge])
    if len(set(levels)) < len(levels):
        raise ConfigError(f"textworld levels: got {list(levels)}, allowed: each number once")
    _check_number("rooms", rooms, 20)
    _check_number("objects", objects, 30)
    if not isinstance(brief, bool):
        raise ConfigError(f"textworld brief: got {brief!r}, allowed: true, false")


def _check_number(name: str, value: Any, high: int, low: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"textworld {name}: got {value!r}, allowed: whole numbers from {low} to {high}")
