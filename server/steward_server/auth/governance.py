"""What administrators may do to people: nobody to themselves, and one always stays. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from steward_server.auth.accounts import Role, User, UserState


class Forbidden(Exception):
    """A rule said no; the message is for the caller."""

    reason = "FORBIDDEN"


class SelfModification(Forbidden):
    """Somebody would change their own account."""

    reason = "SELF_MODIFICATION_FORBIDDEN"


class LastAdministrator(Forbidden):
    """Nobody would be left to administer."""

    reason = "LAST_ADMIN_PROTECTED"


class NothingToDo(Forbidden):
    """It is so already."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Authority:
    """Whoever changes somebody, as things stand in the transaction of the change."""

    user_id: str
    active_admin_count: int

    def suspend(self, user: User, reason: str, now_us: int) -> User:
        """Keep them out.

        Raises:
            Forbidden: see the subclasses.
        """
        self._check(user, "suspended", takes_admin=True)
        if user.state is UserState.SUSPENDED:
            raise NothingToDo(f"{user.username!r} is suspended already", "USER_SUSPENDED")
        return replace(
            user, state=UserState.SUSPENDED, suspended_at_us=now_us, suspend_reason=reason
        )

    def activate(self, user: User) -> User:
        """Let them in again.

        Raises:
            Forbidden: see the subclasses.
        """
        if user.state is UserState.ACTIVE:
            raise NothingToDo(f"{user.username!r} is not suspended", "USER_ACTIVE")
        return replace(user, state=UserState.ACTIVE, suspended_at_us=None, suspend_reason="")

    def give_role(self, user: User, role: Role) -> User:
        """Let them do more, or less.

        Raises:
            Forbidden: see the subclasses.
        """
        self._check(user, "given another role", takes_admin=role is not Role.ADMIN)
        if user.role is role:
            raise NothingToDo(
                f"{user.username!r} has the role {role.value} already", "ROLE_UNCHANGED"
            )
        return replace(user, role=role)

    def reset_password(self, user: User, password_hash: str, *, must_change: bool) -> User:
        """Give them another password.

        Raises:
            Forbidden: see the subclasses.
        """
        instead = "change yours with POST /api/v1/auth/password"
        self._check(user, "given another password", instead=instead)
        return user.with_password(password_hash, must_change=must_change)

    def check_delete(self, user: User) -> None:
        """Say no where they may not be deleted.

        Raises:
            Forbidden: see the subclasses.
        """
        self._check(user, "deleted", takes_admin=True)

    def _check(
        self,
        user: User,
        what: str,
        *,
        takes_admin: bool = False,
        instead: str = "ask another administrator",
    ) -> None:
        if takes_admin and user.is_active_admin and self.active_admin_count <= 1:
            raise LastAdministrator(
                f"{user.username!r} is the last active administrator and cannot be {what}; "
                "make another administrator first"
            )
        if user.user_id == self.user_id:
            raise SelfModification(f"you cannot be {what} by yourself; {instead}")
