"""What administrators can ask about people, and about what people did."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from steward.audit.v1 import audit_pb2
from steward.audit.v1.audit_pb2_grpc import AuditServiceStub
from steward.gateway.v1 import options_pb2
from steward.users.v1 import users_pb2
from steward.users.v1.users_pb2_grpc import UserServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.values import (
    AuditEntry,
    AuditVerdict,
    Person,
    PersonState,
    Role,
    value_of,
)

PAGE_SIZE = 500


class Users(Resource[Manner]):
    """People who may sign in. Nobody changes their own account here."""

    @rpc
    def create(
        self,
        username: str,
        *,
        password: str,
        role: Role,
        email: str = "",
        must_change_password: bool = False,
    ) -> Call[Person]:
        """Let somebody in.

        Raises:
            Conflict: the name or the address is taken.
        """
        return Call(
            UserServiceStub,
            "CreateUser",
            users_pb2.CreateUserRequest(
                username=username,
                password=password,
                email=email,
                role=_role(role),
                must_change_password=must_change_password,
            ),
            read=first(_person),
        )

    @rpc
    def list(
        self, *, role: Role | None = None, state: PersonState | None = None, search: str = ""
    ) -> Call[tuple[Person, ...]]:
        """All people, newest first; `search` is looked for in names and addresses."""

        def page(token: str) -> users_pb2.ListUsersRequest:
            return users_pb2.ListUsersRequest(
                page_size=PAGE_SIZE,
                page_token=token,
                role=_role(role) if role else options_pb2.ROLE_UNSPECIFIED,
                state=users_pb2.UserState.Value(f"USER_STATE_{state.upper()}")
                if state
                else users_pb2.USER_STATE_UNSPECIFIED,
                search=search,
            )

        return Call(
            UserServiceStub,
            "ListUsers",
            page(""),
            read=every(lambda answer: [value_of(Person, each) for each in answer.users]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def get(self, user_id: str) -> Call[Person]:
        """One person."""
        request = users_pb2.GetUserRequest(user_id=user_id)
        return Call(UserServiceStub, "GetUser", request, read=first(_person), repeatable=True)

    @rpc
    def suspend(self, user_id: str, *, reason: str = "") -> Call[Person]:
        """Keep a person out, at once and everywhere.

        Raises:
            Conflict: they are suspended already, or the last active administrator.
        """
        request = users_pb2.SuspendUserRequest(user_id=user_id, reason=reason)
        return Call(UserServiceStub, "SuspendUser", request, read=first(_person))

    @rpc
    def activate(self, user_id: str) -> Call[Person]:
        """Let a suspended person in again.

        Raises:
            Conflict: they are not suspended.
        """
        request = users_pb2.ActivateUserRequest(user_id=user_id)
        return Call(UserServiceStub, "ActivateUser", request, read=first(_person))

    @rpc
    def set_role(self, user_id: str, role: Role) -> Call[Person]:
        """Let a person do more, or less; they sign in again.

        Raises:
            Conflict: the role is theirs already, or they are the last active administrator.
        """
        request = users_pb2.SetUserRoleRequest(user_id=user_id, role=_role(role))
        return Call(UserServiceStub, "SetUserRole", request, read=first(_person))

    @rpc
    def reset_password(
        self, user_id: str, password: str, *, force_change: bool = True
    ) -> Call[Person]:
        """Give a person another password; they sign in again, and change it if forced to."""
        request = users_pb2.ResetPasswordRequest(
            user_id=user_id, new_password=password, force_change=force_change
        )
        return Call(UserServiceStub, "ResetPassword", request, read=first(_person))

    @rpc
    def delete(self, user_id: str) -> Call[None]:
        """Delete a person for good; their agents are the caller's from then on, their keys end.

        Raises:
            Conflict: they are the last active administrator.
        """
        request = users_pb2.DeleteUserRequest(user_id=user_id)
        return Call(UserServiceStub, "DeleteUser", request, read=nothing)


class Audit(Resource[Manner]):
    """Who changed what, when and from where."""

    @rpc
    def list(
        self,
        *,
        action: str = "",
        resource_type: str = "",
        resource_id: str = "",
        actor_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        most: int = 100,
    ) -> Call[tuple[AuditEntry, ...]]:
        """The newest entries, newest first; `until` is not included."""

        def page(token: str, left: int) -> audit_pb2.ListAuditEntriesRequest:
            return audit_pb2.ListAuditEntriesRequest(
                page_size=min(left, PAGE_SIZE),
                page_token=token,
                action=action,
                resource_type=resource_type,
                resource_id=resource_id,
                actor_id=actor_id,
                since=_stamp(since),
                until=_stamp(until),
            )

        read = 0

        def next_page(answer: audit_pb2.ListAuditEntriesResponse) -> Any:
            nonlocal read
            read += len(answer.entries)
            if not answer.next_page_token or read >= most:
                return None
            return page(answer.next_page_token, most - read)

        return Call(
            AuditServiceStub,
            "ListAuditEntries",
            page("", most),
            read=every(lambda answer: [value_of(AuditEntry, each) for each in answer.entries]),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def verify(self, *, known_number: int = 0, known_hash: str = "") -> Call[AuditVerdict]:
        """Have the server read the whole log and check that nothing of it was altered.

        `known_number` and `known_hash` are the head of an earlier verdict, kept elsewhere.
        """
        request = audit_pb2.VerifyAuditRequest(known_number=known_number, known_hash=known_hash)
        return Call(
            AuditServiceStub,
            "VerifyAudit",
            request,
            read=first(lambda answer: value_of(AuditVerdict, answer)),
            repeatable=True,
        )


def _role(role: Role) -> options_pb2.Role.ValueType:
    return options_pb2.Role.Value(f"ROLE_{role.upper()}")


def _person(answer: Any) -> Person:
    return value_of(Person, answer.user)


def _stamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
