"""The README and the documents tell the truth: their commands parse, their names exist, their files are there."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from mlcls.__main__ import COMMANDS
from mlcls.recipe import Recipe, flag_of, recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def command_lines() -> list[list[str]]:
    """Every `python -m mlcls.NAME ...` and `mlcls NAME ...` of the README's blocks, split into words."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("mlcls."):
                found.append([words[2].removeprefix("mlcls."), *words[3:]])
            elif words[:1] == ["mlcls"]:
                found.append(words[1:])
    return found


def test_the_first_lines_install_and_train_and_test() -> None:
    lines = [line for line in README.splitlines() if line.startswith("pip install -e . ")]
    assert "python -m mlcls.train --labels demo:digits --recipe demo" in lines[0]
    assert "-r requirements-dev.txt" in lines[1]
    assert "pytest" in lines[1]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_flag_of_a_command_line_exists(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert words[0] in COMMANDS
    module = importlib.import_module(f"mlcls.{words[0].replace('-', '_')}")
    with pytest.raises(SystemExit):
        module.main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_there_are_command_lines_for_every_command() -> None:
    assert {words[0] for words in command_lines()} == set(COMMANDS)


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_parses_and_its_names_exist(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mlcls"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_recipe_has_a_row() -> None:
    for name in recipe_names():
        assert re.search(rf"^\| `{name}` ", README, flags=re.M), f"no row for the recipe {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_linked_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+?)\)", text)
    assert all((ROOT / link).exists() for link in links if not link.startswith("http"))


def test_help_names_every_entry_of_every_registry() -> None:
    """A new loss, sampler, head ... is one line in its dict; the flag's help has to name it too."""
    checks = importlib.import_module("mlcls.workflows.checks")
    heads = importlib.import_module("mlcls.models.heads").HEADS
    helps = {name: field.metadata["help"] for name, field in Recipe.__dataclass_fields__.items()}
    for name, registry in {**checks.CHOICES, "head": heads}.items():
        for entry in registry:
            assert re.search(rf"\b{entry}\b", helps[name]), f"{flag_of(name)} does not name {entry}"
