"""The command `mint`: its commands, its error messages and its exit codes."""

import errno
import os
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal

from cyclopts import App, CycloptsError, Group, UnknownCommandError, UnusedCliTokensError
from cyclopts.help import DefaultFormatter

from mint.cli import cache, report, trial
from mint.errors import InputError, WorkFailedError, allowed
from mint.orchestration.interruption import interruptible

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
_EXIT_BROKEN_PIPE = 141
# A full, read-only or broken disk: not a fault of the program.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class _Reflowed(DefaultFormatter):
    """Shows help whose lines were broken for the source."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        for entry in panel.entries:
            text = getattr(entry.description, "primary_renderable", None)
            if text is not None:
                entry.description.primary_renderable = type(text)(" ".join(text.plain.split()))
        super().__call__(console, options, panel)


SETTINGS: dict[str, Any] = {"help_format": "plaintext", "help_formatter": _Reflowed()}
_HELP = """Prune neural networks by mutual information, in single trials and in sweeps.

Example: mint run --experiment digits_mlp --smoke"""
_EPILOGUE = """mint COMMAND --help explains every option of a command. Exit codes: 0 done, 1 failed,
2 bad input and nothing was changed, 130 stopped by Ctrl-C."""
_GROUPS: dict[str, Sequence[Callable[..., int | None] | App]] = {
    "Stages of a trial": (trial.run, trial.train, trial.estimate, trial.prune, trial.retrain),
    "Sweeps": (),  # take long to import: mint.cli.sweep
    "Reports": (
        report.report,
        report.compare,
        report.ui,
        report.verify,
        trial.layers,
        trial.export,
    ),
    "Cleanup": (cache.sync, cache.app),
}


def command_line() -> App:
    """Return the parser of the command `mint`."""
    program = App("mint", help=_HELP, help_epilogue=_EPILOGUE, version=_version, **SETTINGS)
    number = count()
    for name, commands in _GROUPS.items():
        group = Group.create_ordered(name)
        if name == "Sweeps":
            help_text = "Run the trials of a sweep that have no result yet."
            program.command("mint.cli.sweep:app", "sweep", help=help_text, group=group)
        for command in commands:
            if isinstance(command, App):
                command.group, command.sort_key = (group,), next(number)
                program.command(command)
            else:
                program.command(command, group=group, sort_key=next(number))
    completion = partial(_print_completion, program)
    program.command(completion, name="completion", group=group, sort_key=next(number))
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `mint` and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return run_program(command_line(), words, ["mint", *words])


def run_program(program: App, arguments: Sequence[str], words: Sequence[str]) -> int:
    """Parse arguments, run their command and return the exit code.

    An error that the user can mend is one line. The provenance of results keeps the words.
    """
    chain, apps, _ = program.parse_commands(arguments)
    name, app = " ".join([program.name[0], *chain]), apps[-1]
    try:
        command, bound, ignored = program.parse_args(
            arguments, exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        return _refuse(name, _describe(error, app))
    if getattr(command, "__func__", None) is App.help_print and "--help" not in arguments:
        return _refuse(name, f"COMMAND: must be given; {allowed('', _names(app))}")
    try:
        with interruptible():  # a batch system's SIGTERM stops a command as Ctrl-C does
            code: int = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, words)) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # as in mint ... | head: Python must not write what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    except InputError as error:
        return _refuse(name, error.describe(_option(error.parameter, app)))
    except WorkFailedError as error:
        problem = str(error)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f": {error.filename}" if error.filename else ""
        problem = f"{error.strerror}{where}; finished work is kept, and the same command resumes"
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"{name}: failed: {problem}", file=sys.stderr)
    return EXIT_FAILED


def _refuse(name: str, problem: str) -> int:
    print(f"{name}: error: {problem.rstrip('.')}; see {name} --help", file=sys.stderr)
    return EXIT_INPUT


def _describe(error: CycloptsError, app: App) -> str:
    """Return a parsing error as one line that names the option, the value and what is allowed."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        return f"{word}: there is no such command; {allowed(word, _names(app))}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]}"
    return " ".join(str(error).split())


def _names(app: App) -> Collection[str]:
    return [name for name in app if name != "-h"]


def _option(parameter: str | None, app: App) -> str | None:
    """Return the option that sets a parameter, such as --seeds for seed; else the parameter."""
    if parameter is None:
        return None
    options = {name for argument in app.assemble_argument_collection() for name in argument.names}
    option = "--" + parameter.replace("_", "-")
    return next((name for name in (option, f"{option}s") if name in options), parameter)


def _print_completion(program: App, shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes mint in a shell.

    Example: eval "$(mint completion bash)" in ~/.bashrc

    Args:
        shell: Name of the shell.
    """
    print(program.generate_completion(prog_name="mint", shell=shell))


def _version() -> str:
    from importlib.metadata import version

    return f"mint {version('mint-pruning')}"


if __name__ == "__main__":
    sys.exit(main())
