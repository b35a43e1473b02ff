"""The drivers that fulfil the protocol, and what each of them does not promise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from steward_server.environments.container import ContainerDriver
from steward_server.environments.driver import Driver
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.kubernetes import Cluster, KubernetesDriver
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.container.podman import IMAGE, KnownEngine, Podman
from tests.integration.environments.kubernetes.standin import standing_in

Opener = Callable[[Path], Driver]

KUBECONFIG = os.environ.get("STEWARD_TEST_KUBECONFIG", "")
"""Of a cluster to run on for real, in which `steward-test:1` can be had; else a stand-in is one."""


@dataclass(frozen=True)
class Kind:
    """How a driver is made, an image that it has, and one that it has not."""

    opener: Opener
    image: str
    absent_image: str
    runtime_class: str = ""


def sandbox(catalogue: Catalogue) -> Kind:
    return Kind(lambda folder: SandboxDriver(folder, catalogue), "host", "no-such:1")


def gvisor(catalogue: Catalogue) -> Kind:
    """The same driver, with the machines of a class that is not its own."""
    return replace(
        sandbox(catalogue),
        opener=lambda folder: SandboxDriver(folder, catalogue, runsc="runsc"),
        runtime_class="gvisor",
    )


def container(podman: Podman) -> Kind:
    return Kind(lambda folder: ContainerDriver(folder, KnownEngine(podman.url)), IMAGE, "no-such:1")


@asynccontextmanager
async def kubernetes(folder: Path) -> AsyncIterator[Kind]:
    """A cluster for the block: one that is there, or a stand-in."""

    def opener(config: Path) -> Opener:
        def made(place: Path) -> Driver:
            # Namespaces go slowly: no two tests take the same.
            prefix = f"steward-{hashlib.sha256(os.fsencode(place)).hexdigest()[:10]}-"
            return KubernetesDriver(
                place, Cluster(config), namespace_prefix=prefix, start_timeout_s=30
            )

        return made

    if KUBECONFIG:
        yield Kind(opener(Path(KUBECONFIG)), IMAGE, "registry.invalid/not-there:1")
        return
    folder = folder / "cluster"
    folder.mkdir()
    async with standing_in(folder) as (standin, kubeconfig):
        yield Kind(opener(kubeconfig), IMAGE, "registry.invalid/not-there:1")
        assert standin.schema_faults == []


_NO_PAUSE = "it does not pause"
_ONE_USER = "all commands of an environment run as one user"
_NO_TUNNEL = "it does not listen inside"
_NO_LIST = "which images it may pull, a cluster does not say"
_ALLOWED = "it is allowed"
_RUNTIMES = "filters, masks and limits beyond those of pods are the runtime's of its nodes"

_CLUSTER: dict[str, str] = {
    "test_a_command_has_its_folder_variables_and_user": _ONE_USER,
    "test_a_command_that_is_closed_in_a_paused_machine_is_gone_when_it_goes_on": _NO_PAUSE,
    "test_a_connection_ends_with_its_machine": _NO_TUNNEL,
    "test_a_listener_ends_with_its_machine": _NO_TUNNEL,
    "test_a_machine_that_is_not_there_is_gone[kubernetes-pause]": _NO_PAUSE,
    "test_a_paused_machine_can_be_deleted": _NO_PAUSE,
    "test_a_paused_machine_stands_still_and_goes_on": _NO_PAUSE,
    "test_a_port_inside_leads_out_of_a_machine_without_a_network": _NO_TUNNEL,
    "test_a_port_is_listened_on_once_and_free_again_after_that": _NO_TUNNEL,
    "test_an_unknown_image_is_refused_with_those_there_are": _NO_LIST,
    "test_a_crash_calls_no_handler_of_the_host": _RUNTIMES,
    "test_a_fork_bomb_can_be_deleted": "how many processes there may be is the nodes' setting",
    "test_calls_of_attackers_are_refused": _RUNTIMES,
    "test_no_network_is_none": "it is as closed as its plugin keeps it",
    "test_open_files_end_at_their_limit": _RUNTIMES,
    "test_proc_tells_no_secret": _RUNTIMES,
    "test_the_doors_of_other_architectures_kill": _RUNTIMES,
    "test_a_setuid_program_gives_nothing": _ONE_USER,
    "test_changes_below_a_directory_are_watched": "its files are looked at now and then",
    "test_faults_have_their_names": "what is in /proc can be read as a file",
    "test_closing_a_command_ends_whatever_it_started": "one that hides its mark goes on",
    "test_memory_in_files_is_memory_too": _RUNTIMES,
    "test_a_network_that_cannot_be_had_is_refused": "a cluster has one, closed by policies",
    "test_the_end_of_each_direction_is_told_apart": _NO_TUNNEL,
    "test_what_cannot_be_made_leaves_nothing[kubernetes--PRIVILEGE_ESCALATION]": _ALLOWED,
    "test_whoever_must_not_be_root_is_not": _ONE_USER,
    "test_who_does_not_read_holds_up_who_writes": _NO_TUNNEL,
    "test_who_reads_is_told_when_the_command_is_closed": _NO_PAUSE,
}
_OWN_KERNEL = "gVisor's kernel refuses it in another way; see test_gvisor.py"
_OLD_STAT = "a runsc of 2022 refuses what `stat` and `ls -l` ask; see test_gvisor.py"
_WHOLE = "where memory ends the whole machine does; see test_gvisor.py"
_GVISOR: dict[str, str] = {
    "test_a_crash_calls_no_handler_of_the_host": "a crash inside is none of the host's",
    "test_a_file_is_written_and_read_back": _OLD_STAT,
    "test_a_machine_may_have_a_larger_disk_than_memory": _OLD_STAT,
    "test_a_named_pipe_does_not_hold_a_reader": "its named pipes are not seen from outside",
    "test_a_setuid_program_gives_nothing": _OLD_STAT,
    "test_a_terminal_is_a_terminal": "its terminal has no name inside; see test_gvisor.py",
    "test_calls_of_attackers_are_refused": _OWN_KERNEL,
    "test_commands_run_as_the_user_and_group_that_are_asked_for": _OLD_STAT,
    "test_commands_run_at_the_same_time": "each costs a runsc of the machine's memory",
    "test_directories_are_made_listed_moved_and_removed": "its named pipes are not seen outside",
    "test_faults_have_their_names": "its devices are not seen from outside",
    "test_many_small_eaters_are_killed_and_the_machine_goes_on": _WHOLE,
    "test_memory_in_files_is_memory_too": _OLD_STAT,
    "test_no_rights_are_left_and_none_come_back": _OWN_KERNEL,
    "test_proc_tells_no_secret": "its /proc tells of itself alone",
    "test_the_doors_of_other_architectures_kill": "they lead to its own kernel",
}
_GVISOR_MODULES = (
    "test_logs",
    "test_ports",
)  # the supervisor's and the network's, whichever kernel
_NO_MACHINE = "a pod of the stand-in is a process of this machine"
_STAND_IN: dict[str, str] = {
    "test_a_read_only_root_is_one": _NO_MACHINE,
    "test_a_terminal_is_a_terminal": _NO_MACHINE,
    "test_by_itself_it_works_in_the_workspace_as_user_1000": _NO_MACHINE,
    "test_commands_run_as_the_user_and_group_that_are_asked_for": _NO_MACHINE,
    "test_the_root_of_a_machine_owns_its_files_and_has_no_power": _NO_MACHINE,
    "test_machines_outlive_their_server": _NO_MACHINE,
    "test_long_lines_are_cut_and_bad_bytes_replaced": _NO_MACHINE,
}
_STAND_IN_MODULES = (
    "test_attacks_host",  # its pods are processes of this machine
    "test_attacks_kernel",
    "test_attacks_resources",
    "test_files",  # of this machine; those of the driver are tried beside it
)
_NODES_TIME = "a node has its own times"
_REAL: dict[str, str] = {
    "test_a_main_command_that_will_not_stop_is_killed_after_the_grace": _NODES_TIME,
    "test_one_that_obeys_is_gone_at_once": _NODES_TIME,
    "test_what_cannot_be_made_leaves_nothing[kubernetes--UNKNOWN_IMAGE]": "registries may be away",
}


def is_left_out(item: pytest.Item) -> bool:
    """Whether a test is of what its driver does not promise."""
    if not isinstance(item, pytest.Function) or not item.path.is_relative_to(Path(__file__).parent):
        return False
    names = {item.name, item.originalname}
    if item.callspec.params.get("source") == "gvisor":
        return item.path.stem in _GVISOR_MODULES or not names.isdisjoint(_GVISOR)
    if item.callspec.params.get("source") != "kubernetes":
        return False
    if not names.isdisjoint(_CLUSTER):
        return True
    if KUBECONFIG:
        return not names.isdisjoint(_REAL)
    return item.path.stem in _STAND_IN_MODULES or not names.isdisjoint(_STAND_IN)
