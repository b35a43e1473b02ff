"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_logs import (
    test_a_log_is_followed_as_it_is_written,
    test_following_ends_with_the_machine,
    test_lines_of_commands_stand_beside_those_of_the_main_one,
    test_long_lines_are_cut_and_bad_bytes_replaced,
    test_ten_followers_lose_nothing,
    test_the_end_or_what_comes_after_a_line_is_read,
)

__all__ = [
    "test_a_log_is_followed_as_it_is_written",
    "test_following_ends_with_the_machine",
    "test_lines_of_commands_stand_beside_those_of_the_main_one",
    "test_long_lines_are_cut_and_bad_bytes_replaced",
    "test_ten_followers_lose_nothing",
    "test_the_end_or_what_comes_after_a_line_is_read",
]
