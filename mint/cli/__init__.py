"""The command line of mint; this file is what the command `mint` runs."""

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """Run the command `mint` and return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends imports and the exit without a word
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would take its place
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115

    from mint.cli import app

    return app.main()
