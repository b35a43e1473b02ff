from __future__ import annotations

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import Resources
from steward_server.environments.sandbox.limits import (
    MEBIBYTE,
    Limits,
    limits,
    version_1,
    version_2,
)


def _limits(cpu: int = 500, memory: int = 512 * MEBIBYTE, storage: int = 1024 * MEBIBYTE) -> Limits:
    return limits(Resources(cpu, memory, storage), process_count=256)


def test_half_a_core_is_half_of_each_period() -> None:
    assert ("cpu", "cpu.cfs_quota_us", "50000") in version_1(_limits(cpu=500))
    assert ("cpu.max", "250000 100000") in version_2(_limits(cpu=2500))


def test_there_is_no_swap() -> None:
    memory = str(512 * MEBIBYTE)
    names = [(file, value) for _, file, value in version_1(_limits())]
    assert names.index(("memory.limit_in_bytes", memory)) < names.index(
        ("memory.memsw.limit_in_bytes", memory)
    )
    assert ("memory.swap.max", "0") in version_2(_limits())


def test_small_disks_are_in_memory_and_large_ones_are_not() -> None:
    assert _limits(storage=64 * MEBIBYTE).is_stored_in_memory
    assert not _limits(storage=65 * MEBIBYTE).is_stored_in_memory


def test_files_are_counted_by_the_size_of_the_disk() -> None:
    assert _limits(storage=MEBIBYTE).inode_count == 4096
    assert _limits(storage=1024 * MEBIBYTE).inode_count == 65_536
    assert _limits(storage=10**15).inode_count == 4_000_000


def test_shared_memory_is_a_part_of_the_memory() -> None:
    assert _limits(memory=64 * MEBIBYTE).shared_memory_bytes == 16 * MEBIBYTE
    assert _limits(memory=8192 * MEBIBYTE).shared_memory_bytes == 64 * MEBIBYTE


@pytest.mark.parametrize(("name", "value"), [("cpu", 9), ("memory", 1000), ("storage", 0)])
def test_too_little_is_refused_with_what_is_enough(name: str, value: int) -> None:
    with pytest.raises(Unusable) as refusal:
        _limits(**{name: value})

    assert refusal.value.reason == "LIMIT_TOO_SMALL"
    assert f"{value}" in str(refusal.value)
    assert name in str(refusal.value)
