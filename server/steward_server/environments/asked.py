"""Whether a command can be run as it was asked for, by whichever driver. Pure."""

from __future__ import annotations

from steward_server.environments.driver import Command, Unusable

DEFAULT_ID = 1000
"""Of a user, where neither the image nor the caller names one."""
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


def must_not_be_root(user: int, *, wanted: bool) -> None:
    """Hold what `run_as_non_root` promises.

    Raises:
        Unusable: reason RUN_AS_NON_ROOT.
    """
    if wanted and user == 0:
        raise Unusable(
            "RUN_AS_NON_ROOT",
            "run_as_non_root is set and the command would run as user 0; set run_as_user to "
            f"another, such as {DEFAULT_ID}",
        )
