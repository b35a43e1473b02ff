"""What holds of every driver, told once, beside the first that it was told of."""

from __future__ import annotations

from tests.integration.environments.sandbox.test_attacks_host import (
    intruder,
    test_no_network_is_none,
    test_nothing_but_three_descriptors_is_handed_in,
    test_proc_tells_no_secret,
    test_processes_and_files_of_a_neighbour_are_not_there,
    test_sockets_of_the_host_are_not_there,
    test_the_clock_is_the_hosts_and_stays,
)

__all__ = [
    "intruder",
    "test_no_network_is_none",
    "test_nothing_but_three_descriptors_is_handed_in",
    "test_proc_tells_no_secret",
    "test_processes_and_files_of_a_neighbour_are_not_there",
    "test_sockets_of_the_host_are_not_there",
    "test_the_clock_is_the_hosts_and_stays",
]
