"""Commands in the documents, and how the tests parse and run them."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from cyclopts import App

from mint.cli.app import command_line, main

ROOT = Path(__file__).resolve().parent.parent
# Installs mint, which the tests do not need.
_BEFORE = r"(pip install uv && )?uv run (--group benchmark )?"


def blocks(document: str, language: str, heading: str | None = None) -> list[str]:
    """Return the code blocks of a document in a language, of one section or of all."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if heading:
        (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands(document: str, heading: str | None = None) -> list[str]:
    """Return the commands of a document in order, without comments and without uv run."""
    lines = "".join(blocks(document, "sh", heading)).splitlines()
    found = [shlex.join(shlex.split(line, comments=True)).replace("'&&'", "&&") for line in lines]
    return [re.sub(rf"^{_BEFORE}", "", command) for command in found if command]


def mint_words(command: str) -> list[str] | None:
    """Return the words after mint; a script of sweeps/ is mint sweep; None for other programs."""
    words = shlex.split(re.sub(r"^python sweeps/(\w+)\.py", r"mint sweep \1", command))
    return words[1:] if words[0] == "mint" else None


def parse(words: list[str]) -> None:
    """Parse the words after mint; raise CycloptsError if they are not allowed."""
    command_line().parse_args(words, exit_on_error=False, print_error=False)


def known_options() -> set[str]:
    """Return the options of all commands."""
    return _options(command_line())


def _options(program: App) -> set[str]:
    found = {*program.help_flags, *program.version_flags}
    if program.default_command:
        for argument in program.assemble_argument_collection():
            if argument.parse:
                found |= set(argument.names)
    for name in program:
        if not name.startswith("-"):
            found |= _options(program[name])
    return found


def run(command: str, *more: str) -> int:
    """Run a command of mint or a script of this repository in this process; return its exit code.

    Args:
        command: without uv run.
        more: words to add to it.
    """
    words = mint_words(command)
    try:
        if words is not None:
            return main([*words, *more])
        python, script, *arguments = shlex.split(command)
        assert python == "python"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments, *more])
            patch.syspath_prepend(str((ROOT / script).parent))
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
