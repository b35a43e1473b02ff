"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_specs import (
    test_a_machine_may_have_a_larger_disk_than_memory,
    test_a_network_that_cannot_be_had_is_refused,
    test_a_read_only_root_is_one,
    test_allowed_ports_are_reached_without_a_network,
    test_commands_run_as_the_user_and_group_that_are_asked_for,
    test_the_root_of_a_machine_owns_its_files_and_has_no_power,
    test_whoever_must_not_be_root_is_not,
)

__all__ = [
    "test_a_machine_may_have_a_larger_disk_than_memory",
    "test_a_network_that_cannot_be_had_is_refused",
    "test_a_read_only_root_is_one",
    "test_allowed_ports_are_reached_without_a_network",
    "test_commands_run_as_the_user_and_group_that_are_asked_for",
    "test_the_root_of_a_machine_owns_its_files_and_has_no_power",
    "test_whoever_must_not_be_root_is_not",
]
