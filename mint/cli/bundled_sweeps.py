"""The command `mint sweep NAME`: one command for each sweep in sweeps/."""

from cyclopts import App

from mint.cli.sweep import EPILOGUE, sweep_command
from mint.config.grid import bundled_sweeps

app = App("sweep", help_epilogue=EPILOGUE, group_commands="Sweeps")
for _name, _definition in bundled_sweeps().items():
    app.command(sweep_command(_definition), name=_name)
