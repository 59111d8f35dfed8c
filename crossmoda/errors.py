"""The two ways in which work ends early without being a bug."""


class InputError(Exception):
    """What the user gave cannot be used.

    The message is one sentence in the user's words: what is wrong, with which file or value, and what to do about it.
    Each door (command, CLI module, panel) shows it as it is, without a traceback. Everything else is a bug.
    """


class Cancelled(Exception):
    """The user asked to stop. Raised by a progress callback (see :mod:`crossmoda.progress`)."""


#: What a command or CLI module exits with: a bug, bad input, interrupted by the user.
BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130
