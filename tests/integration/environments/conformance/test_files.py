"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_files import (
    test_a_file_is_written_and_read_back,
    test_a_named_pipe_does_not_hold_a_reader,
    test_changes_below_a_directory_are_watched,
    test_directories_are_made_listed_moved_and_removed,
    test_faults_have_their_names,
    test_files_are_used_as_the_machines_user,
    test_half_a_file_is_never_seen,
    test_many_files_are_listed,
    test_writing_through_a_link_writes_inside,
)

__all__ = [
    "test_a_file_is_written_and_read_back",
    "test_a_named_pipe_does_not_hold_a_reader",
    "test_changes_below_a_directory_are_watched",
    "test_directories_are_made_listed_moved_and_removed",
    "test_faults_have_their_names",
    "test_files_are_used_as_the_machines_user",
    "test_half_a_file_is_never_seen",
    "test_many_files_are_listed",
    "test_writing_through_a_link_writes_inside",
]
