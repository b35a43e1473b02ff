"""What HTTP tells of a reason stands in the contracts."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from steward.gateway.v1 import options_pb2
from steward_gateway.contracts import ContractFault, load_contracts, statuses_of


def file(name: str, **statuses: int) -> FileDescriptorProto:
    made = FileDescriptorProto(name=name)
    for reason, status in statuses.items():
        made.options.Extensions[options_pb2.file].reasons.add(reason=reason, http_status=status)
    return made


def test_reasons_of_all_files_are_known() -> None:
    files = [file("a.proto", SPENT=402, FULL=507), file("b.proto"), file("c.proto", SPENT=402)]
    assert statuses_of(files) == {"SPENT": 402, "FULL": 507}


def test_files_that_disagree_are_told() -> None:
    with pytest.raises(ContractFault, match="SPENT: http_status 429 is 402 elsewhere"):
        statuses_of([file("a.proto", SPENT=402), file("b.proto", SPENT=429)])


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_status_that_is_no_failure_is_told(status: int) -> None:
    with pytest.raises(ContractFault, match=f"SPENT: http_status {status} is no failure"):
        statuses_of([file("a.proto", SPENT=status)])


def test_the_contracts_that_ship_tell_what_budgets_and_disks_refuse() -> None:
    statuses = load_contracts().statuses
    assert (statuses["BUDGET_EXCEEDED"], statuses["FILE_TOO_LARGE"]) == (402, 413)
    assert (statuses["DISK_FULL"], statuses["PORT_REFUSED"]) == (507, 502)
