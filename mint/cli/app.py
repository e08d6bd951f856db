"""The command `mint`: its commands, its error messages and its exit codes."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from itertools import count
from typing import Any, Literal

from cyclopts import App, CycloptsError, Group, UnknownCommandError, UnusedCliTokensError
from cyclopts.help import DefaultFormatter

from mint.cli import cache, report, trial
from mint.errors import InputError, WorkFailedError, allowed, error_line, without_secrets
from mint.orchestration.interruption import interruptible, requested

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
_EXIT_BROKEN_PIPE = 141
# What takes the place of an option that is not given.
_VARIABLES = {"--tracking-uri": "MLFLOW_TRACKING_URI", "--ray-address": "RAY_ADDRESS"}


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
        report.trials,
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
            help_text = """Compare criteria on several networks, one after the other, and rank them.

Example: mint benchmark --networks digits_mlp_connected --dry-run"""
            program.command("mint.cli.sweep:benchmark", "benchmark", help=help_text, group=group)
            help_text = """Find how much of a network can be pruned at a stated loss; write a page.

Trains the network, or takes the weights of --init; prunes it by each criterion at several shares;
recommends a share; exports that network. The same command again goes on.

Example: mint study --model my_module:build --data imagefolder:photos --budget 30m"""
            program.command("mint.cli.study:study", "study", help=help_text, group=group)
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

    Every error is one line on stderr; with MINT_TRACEBACK set, after its traceback. The provenance
    of results keeps the words.
    """
    name, app = program.name[0], program
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that is not UTF-8 stops no command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interruptible():  # a batch system's SIGTERM stops a command as Ctrl-C does
            chain, apps, _ = program.parse_commands(arguments)
            name, app = " ".join([program.name[0], *chain]), apps[-1]
            command, bound, ignored = program.parse_args(
                arguments, exit_on_error=False, print_error=False
            )
            if getattr(command, "__func__", None) is App.help_print and "--help" not in arguments:
                raise InputError(f"COMMAND: must be given; {allowed('', _names(app))}")
            code: int = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, words)) or 0
            print(end="", flush=True)
            return code
    except (Exception, KeyboardInterrupt) as error:
        _print_rest()
        if isinstance(error, BrokenPipeError):  # as in mint ... | head
            return _EXIT_BROKEN_PIPE
        code, line = _explain(error, name, app, arguments)
        with suppress(OSError):  # nobody reads it
            if os.environ.get("MINT_TRACEBACK"):
                traceback.print_exception(error)
            print(f"{name}: {' '.join(line.split())}", file=sys.stderr)
        return code


def _print_rest() -> None:
    """Print what is buffered; if that fails, drop it, or Python would complain at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(
    error: BaseException, name: str, app: App, arguments: Sequence[str]
) -> tuple[int, str]:
    """Return the exit code of an error, and what is said about it."""
    # What fails after a signal fails because of it, such as a library whose import was cut off.
    if isinstance(error, KeyboardInterrupt) or requested():
        return EXIT_INTERRUPTED, "stopped; the same command resumes"
    problem = _input_problem(error, app, arguments)
    if problem is not None:
        return EXIT_INPUT, f"error: {problem.rstrip('.')}; see {name} --help"
    if isinstance(error, WorkFailedError):
        return EXIT_FAILED, f"failed: {error}"
    problem = error_line(error)
    if isinstance(error, OSError) and error.strerror:  # such as a full disk: no fault of mint
        where = f": {error.filename}" if error.filename else ""
        problem = without_secrets(f"{error.strerror}{where}")
        if error.errno == errno.ENAMETOOLONG:  # only users give such names
            return EXIT_INPUT, f"error: {problem}; see {name} --help"
    return EXIT_FAILED, f"failed: {problem}; finished work is kept, and the same command resumes"


def _input_problem(error: BaseException, app: App, arguments: Sequence[str]) -> str | None:
    """Return what is wrong with the input, where, and what is allowed; None for other errors."""
    if isinstance(error, InputError):
        return error.describe(_place(error, app, arguments))
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        return f"{word}: there is no such command; {allowed(word, _names(app))}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]}"
    return str(error) if isinstance(error, CycloptsError) else None


def _names(app: App) -> Collection[str]:
    return [name for name in app if name != "-h"]


def _place(error: InputError, app: App, arguments: Sequence[str]) -> str | None:
    """Return what the user gave a value by: an option, such as --seeds for seed, or a variable."""
    if error.parameter is None:
        return None
    options = {name for argument in app.assemble_argument_collection() for name in argument.names}
    named = "--" + error.parameter.replace("_", "-")
    option = next((name for name in (named, f"{named}s") if name in options), None)
    if option is None:
        return error.parameter
    if error.value is None or any(word.split("=")[0] == option for word in arguments):
        return option
    variable = _VARIABLES.get(option, "")
    return variable if os.environ.get(variable) else f"default of {option}"


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
