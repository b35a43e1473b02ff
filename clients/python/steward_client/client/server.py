"""What both clients have: the resources, and the methods of the server itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from google.protobuf.message import Message

from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.system.v1 import system_pb2
from steward.system.v1.system_pb2_grpc import SystemServiceStub
from steward_client.channels import Address, server_address
from steward_client.client.analytics import Analytics, Traces, Usages
from steward_client.client.api_keys import ApiKeys
from steward_client.client.calls import (
    Call,
    Manner,
    Resource,
    first,
    nothing,
    rpc,
)
from steward_client.client.conversation import Manners, growing_delays_s, renewal
from steward_client.client.credentials import Credentials, SignIn
from steward_client.client.environments import Environments
from steward_client.client.environments_images import Images
from steward_client.client.events import Feed
from steward_client.client.executions import Executions
from steward_client.client.gateway_credentials import GatewayCredentials
from steward_client.client.guards import Limits, Webhooks
from steward_client.client.holding import Holder
from steward_client.client.inference import Inference
from steward_client.client.methods import call_of
from steward_client.client.people import Audit, Users
from steward_client.client.playbooks import Playbooks
from steward_client.client.policies import Policies
from steward_client.client.projects import Organisations, Projects
from steward_client.client.requests import BudgetRequests
from steward_client.client.resources import Agents, Budgets, Prices, Providers, Tokens
from steward_client.client.values import Health, Me, value_of


class Server(Resource[Manner], Generic[Manner]):
    """A server, as it is called through one client."""

    def __init__(
        self,
        performer: Holder,
        credentials: Credentials,
        *,
        patience_s: float,
        attempts: int | None,
    ) -> None:
        super().__init__(performer)
        self._credentials = credentials
        self.manners = Manners(credentials, patience_s, growing_delays_s, attempts)
        self.agents: Agents[Manner] = Agents(performer)
        self.tokens: Tokens[Manner] = Tokens(performer)
        self.api_keys: ApiKeys[Manner] = ApiKeys(performer)
        self.providers: Providers[Manner] = Providers(performer)
        self.credentials: GatewayCredentials[Manner] = GatewayCredentials(performer)
        self.projects: Projects[Manner] = Projects(performer)
        self.organisation: Organisations[Manner] = Organisations(performer)
        self.budget: Budgets[Manner] = Budgets(performer)
        self.budget_requests: BudgetRequests[Manner] = BudgetRequests(performer)
        self.prices: Prices[Manner] = Prices(performer)
        self.users: Users[Manner] = Users(performer)
        self.audit: Audit[Manner] = Audit(performer)
        self.limits: Limits[Manner] = Limits(performer)
        self.webhooks: Webhooks[Manner] = Webhooks(performer)
        self.analytics: Analytics[Manner] = Analytics(performer)
        self.usage: Usages[Manner] = Usages(performer)
        self.traces: Traces[Manner] = Traces(performer)
        self.environments: Environments[Manner] = Environments(performer)
        self.images: Images[Manner] = Images(performer)
        self.playbooks: Playbooks[Manner] = Playbooks(performer)
        self.executions: Executions[Manner] = Executions(performer)
        self.policies: Policies[Manner] = Policies(performer)
        self.inference: Inference[Manner] = Inference(performer)
        self.events: Feed[Manner] = Feed(performer)

    @rpc
    def login(self, user: str, password: str) -> Call[SignIn]:
        """Sign in, by user name or e-mail address; from now on the client calls as that person.

        Raises:
            Unauthorized: no such user, or another password.
            RateLimited: too many attempts; `retry_after_s` says when the next may be made.
        """
        by = "email" if "@" in user else "username"
        request = auth_pb2.LoginRequest(**{by: user}, password=password)
        keep = self._credentials.keep
        return Call(AuthServiceStub, "Login", request, read=first(keep), public=True)

    @rpc
    def refresh(self) -> Call[SignIn]:
        """Renew the sign-in now; calls do so by themselves before it ends.

        Raises:
            Unauthorized: there is none, or it can no longer be renewed.
        """
        return renewal(self._credentials)

    @rpc
    def logout(self) -> Call[None]:
        """End the sign-in, here and at the server, on open streams too."""

        def forget(_answers: Sequence[Any]) -> None:
            self._credentials.forget()

        return Call(AuthServiceStub, "Logout", auth_pb2.LogoutRequest(), read=forget)

    @rpc
    def me(self) -> Call[Me]:
        """Who is signed in."""
        return Call(
            AuthServiceStub,
            "GetMe",
            auth_pb2.GetMeRequest(),
            read=first(lambda answer: value_of(Me, answer)),
            repeatable=True,
        )

    @rpc
    def change_password(self, current: str, new: str) -> Call[None]:
        """Change one's own password; every other sign-in of the same person ends.

        Raises:
            InvalidRequest: `current` is not the password, or `new` is too weak.
            RateLimited: too many attempts.
        """
        request = auth_pb2.ChangePasswordRequest(current_password=current, new_password=new)
        return Call(AuthServiceStub, "ChangePassword", request, read=nothing)

    @rpc
    def call(self, method: str, request: Message, *, timeout_s: float | None = None) -> Call[Any]:
        """Call any method that gives one answer, such as "steward.budget.v1.BudgetService/Return".

        It is tried again as its contract allows; an identity of the request is made up if none is
        given. `timeout_s` is how long it may take in all, with every attempt.

        Raises:
            LookupError: there is no such method.
            TypeError: the request is no message of that method.
            StewardError: the server refused, or cannot be reached.
        """
        return call_of(method, request, timeout_s=timeout_s)

    @rpc
    def health(self) -> Call[Health]:
        """How the server is. Needs no credential."""
        return Call(
            SystemServiceStub,
            "GetHealth",
            system_pb2.GetHealthRequest(),
            read=first(lambda answer: value_of(Health, answer)),
            repeatable=True,
            public=True,
        )


class Stubs:
    """The generated stubs over one channel, each made once."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._made: dict[type[Any], Any] = {}

    def method(self, call: Call[Any]) -> Any:
        if call.service not in self._made:
            self._made[call.service] = call.service(self._channel)
        return getattr(self._made[call.service], call.method)


def address_of(given: str | Address | None, ca_file: str | None) -> Address:
    if isinstance(given, Address):
        return given
    return Address.parse(given, ca_file=ca_file) if given and ca_file else server_address(given)
