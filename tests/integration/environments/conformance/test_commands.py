"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_commands import (
    test_a_command_has_its_folder_variables_and_user,
    test_a_command_of_a_machine_that_ends_is_killed,
    test_a_command_reads_what_it_is_given,
    test_a_command_that_is_closed_in_a_paused_machine_is_gone_when_it_goes_on,
    test_a_paused_machine_can_be_deleted,
    test_a_paused_machine_stands_still_and_goes_on,
    test_a_signal_is_128_and_its_number,
    test_a_terminal_is_a_terminal,
    test_arguments_and_variables_may_be_long,
    test_by_itself_it_works_in_the_workspace_as_user_1000,
    test_closing_a_command_ends_whatever_it_started,
    test_commands_run_at_the_same_time,
    test_every_byte_of_a_large_output_arrives,
    test_input_to_a_command_that_has_ended_is_ignored,
    test_it_ends_although_a_child_holds_its_output,
    test_one_cannot_run_a_command_in_a_machine_that_is_not_there,
    test_what_a_command_writes_is_told_apart,
    test_what_cannot_run_is_refused,
    test_who_reads_is_told_when_the_command_is_closed,
)

__all__ = [
    "test_a_command_has_its_folder_variables_and_user",
    "test_a_command_of_a_machine_that_ends_is_killed",
    "test_a_command_reads_what_it_is_given",
    "test_a_command_that_is_closed_in_a_paused_machine_is_gone_when_it_goes_on",
    "test_a_paused_machine_can_be_deleted",
    "test_a_paused_machine_stands_still_and_goes_on",
    "test_a_signal_is_128_and_its_number",
    "test_a_terminal_is_a_terminal",
    "test_arguments_and_variables_may_be_long",
    "test_by_itself_it_works_in_the_workspace_as_user_1000",
    "test_closing_a_command_ends_whatever_it_started",
    "test_commands_run_at_the_same_time",
    "test_every_byte_of_a_large_output_arrives",
    "test_input_to_a_command_that_has_ended_is_ignored",
    "test_it_ends_although_a_child_holds_its_output",
    "test_one_cannot_run_a_command_in_a_machine_that_is_not_there",
    "test_what_a_command_writes_is_told_apart",
    "test_what_cannot_run_is_refused",
    "test_who_reads_is_told_when_the_command_is_closed",
]
