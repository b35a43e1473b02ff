"""What holds of the native back end and without root too, told once, beside that."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_ports import (
    test_a_connection_ends_with_its_machine,
    test_a_listener_ends_with_its_machine,
    test_a_port_inside_leads_out_of_a_machine_without_a_network,
    test_a_port_is_listened_on_once_and_free_again_after_that,
    test_the_end_of_each_direction_is_told_apart,
    test_who_does_not_read_holds_up_who_writes,
)

__all__ = [
    "test_a_connection_ends_with_its_machine",
    "test_a_listener_ends_with_its_machine",
    "test_a_port_inside_leads_out_of_a_machine_without_a_network",
    "test_a_port_is_listened_on_once_and_free_again_after_that",
    "test_the_end_of_each_direction_is_told_apart",
    "test_who_does_not_read_holds_up_who_writes",
]
