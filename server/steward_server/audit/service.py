"""AuditService: translates between protos and the log."""

from __future__ import annotations

import re

import orjson
from google.protobuf.struct_pb2 import Struct

from steward.audit.v1 import audit_pb2 as pb
from steward.audit.v1 import audit_pb2_grpc as rpc
from steward_server.audit import store
from steward_server.audit.trail import Link
from steward_server.audit.verification import verify_log
from steward_server.calls import Context
from steward_server.checks import Checks
from steward_server.clock import microseconds, timestamp
from steward_server.db import Reader
from steward_server.pages import from_page_token, page_size, to_page_token

MAX_NUMBER = 2**63 - 1
HASH = re.compile(r"[0-9a-f]{64}")


class AuditService(rpc.AuditServiceServicer):
    """Shows the log to administrators."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, _context: Context
    ) -> pb.ListAuditEntriesResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            last = from_page_token(checks, "page_token", request.page_token)
            for field in ("action", "resource_type", "resource_id", "actor_id"):
                checks.text(field, getattr(request, field), 0, 255)
            since_us = microseconds(request.since) if request.HasField("since") else None
            until_us = microseconds(request.until) if request.HasField("until") else None
            if since_us is not None and until_us is not None and until_us <= since_us:
                checks.add("until", "is not later than `since`")
        wanted = store.Wanted(
            request.action,
            request.resource_type,
            request.resource_id,
            request.actor_id,
            since_us,
            until_us,
        )
        before = None if last is None else last[0]
        links = await store.page(self._reader, wanted, before=before, limit=size + 1)
        response = pb.ListAuditEntriesResponse(entries=[_to_proto(each) for each in links[:size]])
        if len(links) > size:
            response.next_page_token = to_page_token(links[size - 1][0].number, "")
        return response

    async def VerifyAudit(
        self, request: pb.VerifyAuditRequest, _context: Context
    ) -> pb.VerifyAuditResponse:
        known_hash = request.known_hash.lower()
        with Checks() as checks:
            checks.between("known_number", request.known_number, 0, MAX_NUMBER)
            if request.known_number and not HASH.fullmatch(known_hash):
                checks.add("known_hash", "must be the 64 hexadecimal digits of a `head_hash`")
            if known_hash and not request.known_number:
                checks.add("known_number", "is missing; it is the `head_number` of the hash")
        known = (request.known_number, bytes.fromhex(known_hash)) if known_hash else None
        verdict = await verify_log(self._reader, known)
        return pb.VerifyAuditResponse(
            verified=verdict.broken is None,
            entries=verdict.number,
            head_number=verdict.number,
            head_hash=verdict.hash.hex(),
            broken_at=verdict.broken.number if verdict.broken else 0,
            what=verdict.broken.what if verdict.broken else "",
        )


def _to_proto(link: Link) -> pb.AuditEntry:
    entry, digest = link
    return pb.AuditEntry(
        number=entry.number,
        at=timestamp(entry.at_us),
        action=entry.action,
        resource_type=entry.resource_type,
        resource_id=entry.resource_id,
        actor_kind=entry.actor_kind,
        actor_id=entry.actor_id,
        actor_role=entry.actor_role,
        credential=entry.credential,
        address=entry.address,
        user_agent=entry.user_agent,
        request_id=entry.request_id,
        method=entry.method,
        before=_struct(entry.before),
        after=_struct(entry.after),
        reason=entry.reason,
        hash=digest.hex(),
    )


def _struct(text: str | None) -> Struct | None:
    if text is None:
        return None
    struct = Struct()
    struct.update(orjson.loads(text))
    return struct
