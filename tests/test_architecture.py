"""The layout: imports point down, alternatives never import one another, folders and files stay small.

CONTRIBUTING's table of floors is written from ``FLOORS`` and ``NEVER`` (``python -m tests.docs.write``).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rlprm import envs, labels, search
from rlprm.data import formats
from rlprm.rl import advantages, rewards

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlprm"
LONGEST_FILE = 500
MOST_ROOMS = 23
MOST_MODULES_A_FOLDER = 15  # every .py counts except __init__.py

# A room is a folder or a module of the package. It imports from its own floor and the floors below.
FLOORS = (
    {"types", "errors", "functional"},
    {"components", "runtime", "envs", "data", "models", "training"},
    {"policies", "labels", "scorers"},
    {"rollouts", "sft", "prm", "serving"},
    {"search", "evaluation", "rl"},
    {"stages", "report"},
    {"api", "cli"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What a room never imports although the floors would allow it.
NEVER = {
    "labels": {"prm"},
    "search": {"prm", "evaluation", "rl"},
    "evaluation": {"prm", "rl"},
    "rl": {"prm"},
    "scorers": {"prm", "search"},
    "serving": {"prm"},
    "envs": {"models", "runtime"},
    "report": {"models", "prm", "rl", "stages"},
}
# A stage is imported by these rooms only.
ABOVE_STAGES = {"api", "cli", "stages"}
# Modules that import by a name that is a value of the program, and why each may.
IMPORTS_BY_NAME = {
    "rlprm": "the public face: names of its own __all__, imported when they are first used",
    "rlprm.cli": "the stages of the command line, from a table of its own",
    "rlprm.components": "the one place in which names from a config become objects",
    "rlprm.runtime.recipes": "the classes of the stages' settings, from a table of its own",
    "rlprm.envs.agentgym": "the environment that a server plays, one of three of its own",
    "rlprm.envs.webshop.title_nouns": "spaCy, which is optional",
}
# Folders whose modules are alternatives; what else is in the folder serves them all.
ALTERNATIVES = {
    "rlprm.data.formats": set(formats.FORMATS),
    "rlprm.envs": set(envs.available()),
    "rlprm.labels": set(labels.available()),
    "rlprm.search": set(search.available()),
    "rlprm.scorers": {path.stem for path in (PACKAGE / "scorers").glob("[a-z]*.py")} - {"base"},
    "rlprm.rl.rewards": set(rewards.available()),
    "rlprm.rl.advantages": set(advantages.available()),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name a file imports anywhere in it, as far as it names a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else str(node.module)


IMPORTS = {name: sorted(set(imported_names(path))) for name, path in SOURCES.items()}
OWN = {name: [other for other in imports if other in SOURCES] for name, imports in IMPORTS.items()}
OWN["rlprm"] = []  # the face imports a name when it is used: tests/api/test_public_face.py


def room_of(module: str) -> str | None:
    """The second part of a module's name; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def edges() -> Iterator[tuple[str, str, str, str]]:
    """Importer, its room, imported, its room; the package itself, which imports lazily, is left out."""
    for module, imports in OWN.items():
        for other in imports:
            here, there = room_of(module), room_of(other)
            if here and there:
                yield module, here, other, there


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """A way from a node back to itself; an empty list if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_the_tests_of_this_file_see_the_package() -> None:
    assert len(SOURCES) > 50
    assert "rlprm.data.store" in OWN["rlprm.stages.collect"]
    assert "rlprm.envs" in OWN["rlprm.rollouts.episode"]
    assert "torch" in IMPORTS["rlprm.policies.hf"]
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}}) == []


def test_every_room_stands_on_one_floor() -> None:
    rooms = {room_of(module) for module in SOURCES} - {None}
    assert rooms <= set(FLOOR_OF), "a new room needs a floor here"
    assert len(FLOOR_OF) == sum(map(len, FLOORS))


def test_the_house_has_few_rooms_and_no_folder_has_many_modules() -> None:
    assert len({room_of(module) for module in SOURCES} - {None}) <= MOST_ROOMS
    folders = Counter(path.parent for path in SOURCES.values() if path.stem != "__init__")
    assert sum(folders.values()) > 150
    crowded = {str(folder): modules for folder, modules in folders.items() if modules > MOST_MODULES_A_FOLDER}
    assert crowded == {}


def test_imports_point_down_or_sideways() -> None:
    upwards = [f"{a} -> {b}" for a, here, b, there in edges() if FLOOR_OF[there] > FLOOR_OF[here]]
    assert upwards == []


def test_there_is_no_circle_of_modules_or_of_rooms() -> None:
    modules = {module: set(imports) - {"rlprm"} for module, imports in OWN.items()}
    assert cycle_in(modules) == []
    rooms: dict[str, set[str]] = {}
    for _, here, _, there in edges():
        if here != there:
            rooms.setdefault(here, set()).add(there)
    assert cycle_in(rooms) == []


def test_pure_maths_needs_only_itself_and_errors() -> None:
    assert {there for _, here, _, there in edges() if here == "functional"} <= {"functional", "errors"}
    others = {
        name.split(".")[0] for m, names in IMPORTS.items() if room_of(m) == "functional" for name in names
    }
    assert not others & {"transformers", "trl", "datasets", "accelerate", "wandb", "tokenizers"}


@pytest.mark.parametrize("room", ["types", "errors", "components", "envs"])
def test_plain_values_and_environments_need_no_model_library(room: str) -> None:
    heavy = ("torch", "transformers", "trl", "accelerate", "rlprm.policies")
    found = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        if room_of(module) == room
        for name in names
        if name.startswith(heavy)
    ]
    assert found == []


@pytest.mark.parametrize("room", ["types", "errors", "components", "envs"])
def test_the_hubs_data_sets_are_imported_only_by_the_function_that_reads_one(room: str) -> None:
    eager = []
    for module, path in SOURCES.items():
        if room_of(module) == room:
            statements = ast.parse(path.read_text(encoding="utf-8")).body
            statements = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
            eager += [
                module for node in statements if re.match(r"(import|from) datasets\b", ast.unparse(node))
            ]
    assert eager == []


def test_what_is_handed_a_scorer_never_imports_the_reward_model() -> None:
    forbidden = [f"{a} -> {b}" for a, here, b, there in edges() if there in NEVER.get(here, ())]
    assert forbidden == []
    assert set(NEVER) <= set(FLOOR_OF)


def test_stages_are_imported_by_the_command_line_the_public_face_and_one_another_alone() -> None:
    importers = {here for _, here, _, there in edges() if there == "stages"}
    assert importers <= ABOVE_STAGES
    assert importers  # the rule sees something


def test_inside_the_package_only_the_version_is_taken_from_the_public_face() -> None:
    taken = [
        f"{module}: {alias.name}"
        for module, path in SOURCES.items()
        if module != "rlprm"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "rlprm"
        for alias in node.names
        if f"rlprm.{alias.name}" not in SOURCES and alias.name != "__version__"
    ]
    assert taken == []


def test_names_from_a_config_become_objects_in_one_place() -> None:
    by_name = re.compile(r"\b(import_module|__import__|spec_from_file_location|run_path|run_module)\(")
    found = {m for m, path in SOURCES.items() if by_name.search(path.read_text(encoding="utf-8"))}
    rooms = set(IMPORTS_BY_NAME) - {"rlprm"}
    strangers = {m for m in found if not any(m == room or m.startswith(f"{room}.") for room in rooms)}
    assert strangers <= {"rlprm"}
    unused = [
        room for room in IMPORTS_BY_NAME if not any(m == room or m.startswith(f"{room}.") for m in found)
    ]
    assert unused == []


def test_alternatives_never_import_one_another() -> None:
    meetings = []
    for folder, family in ALTERNATIVES.items():
        for module, others in OWN.items():
            for other in others:
                mine, theirs = (name.removeprefix(f"{folder}.").split(".")[0] for name in (module, other))
                if mine in family and theirs in family and mine != theirs:
                    meetings.append(f"{module} -> {other}")
    assert meetings == []
    assert all(len(family) > 0 for family in ALTERNATIVES.values())
    assert {"beam", "greedy"} <= ALTERNATIVES["rlprm.search"]
    assert {"outcome", "progress"} <= ALTERNATIVES["rlprm.rl.rewards"]


@pytest.mark.parametrize("folder", ["rewards", "advantages"])
def test_step_rewards_and_advantages_are_pure_maths(folder: str) -> None:
    modules = [module for module in SOURCES if module.startswith(f"rlprm.rl.{folder}")]
    assert len(modules) > 5
    allowed = (f"rlprm.rl.{folder}", "rlprm.functional", "rlprm.types", "rlprm.errors", "rlprm.components")
    assert [f"{m} -> {other}" for m in modules for other in OWN[m] if not other.startswith(allowed)] == []
    others = {name.split(".")[0] for m in modules for name in IMPORTS[m]}
    assert not others & {"transformers", "trl", "datasets", "accelerate", "wandb", "tokenizers"}


@pytest.mark.parametrize("folder", ["rlprm", "scripts", "studies", "tests"])
def test_no_file_is_long(folder: str) -> None:
    files = {path: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert files
    assert {str(path): lines for path, lines in files.items() if lines > LONGEST_FILE} == {}


def test_nothing_names_a_place_on_one_machine() -> None:
    place = re.compile(r"(?<![\w.~}/-])/(home|root|work|Users|mnt|tmp|opt|scratch|media)/")
    kinds = {".py", ".yaml", ".yml", ".json", ".toml", ".md", ".sh", ".txt", ".cfg", ".jsonl"}
    folders = ("rlprm", "recipes", "ds_configs", "examples", "scripts", "studies", "tests", "docs")
    files = [p for name in folders for p in (ROOT / name).rglob("*")] + list(ROOT.glob("*"))
    found = []
    for path in files:
        if path.suffix in kinds and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if place.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert place.search("see " + "/".join(["", "home", "me"]))
    assert found == []
