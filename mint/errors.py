"""Errors that are shown to the user as one line."""


class InputError(Exception):
    """The user asked for something that cannot be done; nothing was changed. Exit code 2."""


class TrainingDivergedError(Exception):
    """The training loss stopped being a finite number, so the trial cannot go on."""
