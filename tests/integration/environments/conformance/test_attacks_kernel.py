"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_attacks_kernel import (
    test_a_crash_calls_no_handler_of_the_host,
    test_a_setuid_program_gives_nothing,
    test_calls_of_attackers_are_refused,
    test_no_rights_are_left_and_none_come_back,
    test_the_doors_of_other_architectures_kill,
    test_what_programs_need_is_allowed,
)

__all__ = [
    "test_a_crash_calls_no_handler_of_the_host",
    "test_a_setuid_program_gives_nothing",
    "test_calls_of_attackers_are_refused",
    "test_no_rights_are_left_and_none_come_back",
    "test_the_doors_of_other_architectures_kill",
    "test_what_programs_need_is_allowed",
]
