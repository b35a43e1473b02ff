"""Whether a command can be passed on as it was asked for, by drivers that pass it on. Pure."""

from __future__ import annotations

from steward_server.environments.driver import Command, Unusable

MOST_CHARACTERS = 1024 * 1024
MOST_BYTES_OF_ONE = 128 * 1024
"""MAX_ARG_STRLEN of the kernel. Others cut what is longer, or say nothing of it."""


def must_be_runnable(command: Command) -> None:
    """Refuse what could not be run, or not as it was meant.

    Raises:
        Unusable: reason NOT_EXECUTABLE.
    """
    if not command.argv or not command.argv[0]:
        raise Unusable("NOT_EXECUTABLE", "the command is empty; name a program")
    texts = [*command.argv, *command.env, *command.env.values(), command.working_dir]
    if any("\0" in text for text in texts):
        raise Unusable(
            "NOT_EXECUTABLE", "an argument, a variable or the folder has a byte of zero in it"
        )
    length, longest = sum(map(len, texts)), max(len(text.encode()) for text in texts)
    if length > MOST_CHARACTERS or longest >= MOST_BYTES_OF_ONE:
        raise Unusable(
            "NOT_EXECUTABLE",
            f"arguments and variables have {length} characters, the longest {longest} bytes, which "
            f"is more than {MOST_CHARACTERS} in all or {MOST_BYTES_OF_ONE} in one; pass what is "
            "long as a file or as input",
        )
