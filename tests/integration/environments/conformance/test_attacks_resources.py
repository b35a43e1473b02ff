"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_attacks_resources import (
    test_a_fork_bomb_can_be_deleted,
    test_escapes_for_a_terminal_arrive_as_they_are,
    test_many_small_eaters_are_killed_and_the_machine_goes_on,
    test_memory_in_files_is_memory_too,
    test_open_files_end_at_their_limit,
    test_what_ignores_every_signal_ends_all_the_same,
)

__all__ = [
    "test_a_fork_bomb_can_be_deleted",
    "test_escapes_for_a_terminal_arrive_as_they_are",
    "test_many_small_eaters_are_killed_and_the_machine_goes_on",
    "test_memory_in_files_is_memory_too",
    "test_open_files_end_at_their_limit",
    "test_what_ignores_every_signal_ends_all_the_same",
]
