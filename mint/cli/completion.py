"""Completion of the command line in a shell."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from mint.config.loading import experiment_names
from mint.config.schema import CRITERIA
from mint.store.cleanup import LEFTOVERS, STAGES


def completion(program: argparse.ArgumentParser, shell: str) -> str:
    """Return a script that makes a shell complete commands, options and the names they take.

    Args:
        program: whose command line it is; of no use for parsing afterwards.
        shell: bash, zsh or tcsh.
    """
    import shtab

    names = {
        "experiment": experiment_names(),
        "criterion": CRITERIA,
        "criteria": CRITERIA,
        "stages": (*STAGES, LEFTOVERS),
    }
    for action in _actions(program):
        if action.dest in names:
            action.choices = list(names[action.dest])
        elif action.type is Path:
            complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = complete  # type: ignore[attr-defined]
    return shtab.complete(program, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
