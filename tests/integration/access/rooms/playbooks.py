"""The library of playbooks."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.playbooks.v1 import playbooks_pb2 as pb
from tests.integration.access.tables import PEOPLE, WRITERS, Recorded
from tests.integration.access.world import World

SERVICE = "steward.playbooks.v1.PlaybookService"
HEALTH_CHECK = "gateway/health_check.yaml"

ACCESS = {
    SERVICE: {
        "ListPlaybooks": PEOPLE,
        "GetPlaybook": PEOPLE,
        "GetPlaybookSource": WRITERS,
        "SavePlaybook": WRITERS,
        "DeletePlaybook": WRITERS,
        "DuplicatePlaybook": WRITERS,
        "CheckPlaybook": PEOPLE,
        "PlanPlaybook": PEOPLE,
        "ListStepTypes": PEOPLE,
    }
}

TEXT = """name: Nap
version: "1"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 1}}
"""


async def _save(world: World) -> Message:
    return pb.SavePlaybookRequest(path=f"{world.name()}.yaml", text=TEXT)


async def _duplicate(world: World) -> Message:
    return pb.DuplicatePlaybookRequest(source_path=HEALTH_CHECK, new_name=world.name())


async def _delete(world: World) -> Message:
    return pb.DeletePlaybookRequest(path=await world.playbook())


_READS = "it changes nothing"
RECORDED = {
    SERVICE: {
        "SavePlaybook": Recorded(_save, ("playbook.created",)),
        "DuplicatePlaybook": Recorded(_duplicate, ("playbook.created",)),
        "DeletePlaybook": Recorded(_delete, ("playbook.deleted",)),
        "CheckPlaybook": _READS,
        "PlanPlaybook": _READS,
    }
}
