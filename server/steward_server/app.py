"""Where the parts meet: the one place that knows every room, and what starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import structlog
from grpc_interceptor.server import AsyncServerInterceptor

from steward.audit.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from steward.budget.v1.budget_pb2 import ReportRequest
from steward.budget.v1.budget_pb2_grpc import add_BudgetServiceServicer_to_server
from steward.budget.v1.prices_pb2_grpc import add_PriceServiceServicer_to_server
from steward.budget.v1.provider_key_pb2_grpc import add_ProviderKeyServiceServicer_to_server
from steward.events.v1.events_pb2 import CostUpdate
from steward.events.v1.events_pb2_grpc import add_EventServiceServicer_to_server
from steward.playbooks.v1.playbooks_pb2_grpc import add_PlaybookServiceServicer_to_server
from steward.system.v1.system_pb2_grpc import add_SystemServiceServicer_to_server
from steward_server import (
    agents,
    alerts,
    analytics,
    api_keys,
    auth,
    credentials,
    environments,
    executions,
    inference,
    limits,
    projects,
    providers,
    requests,
    tokens,
)
from steward_server.agents.directory import Directory
from steward_server.alerts.courier import SEALED as WEBHOOK_SECRETS
from steward_server.analytics.rollups import Rollups, Tidier, catch_up, oldest_hour
from steward_server.api_keys.room import ApiKeys
from steward_server.audit.service import AuditService
from steward_server.auth.administrator import ensure_first_administrator
from steward_server.auth.authenticator import Credentials, check_static_token
from steward_server.auth.keys import SEALED as SIGNING_KEYS
from steward_server.auth.passwords import Passwords
from steward_server.auth.people import People
from steward_server.auth.tasks import keep_sweeping
from steward_server.budget import allocations
from steward_server.budget.desk import Desk
from steward_server.budget.house import House
from steward_server.budget.price_service import PriceService
from steward_server.budget.pricing import PriceBook
from steward_server.budget.provider_keys import ProviderKeyService
from steward_server.budget.receipts import Receipts
from steward_server.budget.room import BudgetRoom
from steward_server.budget.service import BudgetService
from steward_server.budget.store import leased_by_agent
from steward_server.budget.tasks import Auditor, sweep_forever
from steward_server.budget.teller import Teller
from steward_server.calls import Call
from steward_server.credentials.room import SEALED as CREDENTIAL_PASSWORDS
from steward_server.credentials.room import CredentialRoom
from steward_server.db import now_us
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.dispatch import Dispatcher, Signature
from steward_server.doors import bracketed, open_doors
from steward_server.environments.keeper import env_context
from steward_server.events.hub import Hub
from steward_server.events.service import EventService, Publisher
from steward_server.executions.steps import all_work
from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.python import Machines
from steward_server.idempotency.answers import Answers
from steward_server.interceptors.authentication import Authentication, LiveStreams
from steward_server.interceptors.authorization import Authorization
from steward_server.interceptors.errors import Errors
from steward_server.interceptors.idempotency import Idempotency, applies
from steward_server.interceptors.metrics import Metrics
from steward_server.interceptors.rate_limit import RateLimit
from steward_server.interceptors.request_id import RequestId
from steward_server.limits.book import LimitBook
from steward_server.observation import Observation
from steward_server.peers import trusted_proxies
from steward_server.playbooks.library import Library
from steward_server.playbooks.service import PlaybookService
from steward_server.projects.room import ProjectRoom
from steward_server.providers.room import SEALED as PROVIDER_KEYS
from steward_server.providers.room import Providers
from steward_server.rates import Rates
from steward_server.resealing import Sealed, reseal
from steward_server.settings import Settings
from steward_server.starters import Starters
from steward_server.system.service import SystemService
from steward_server.tls import check_bind
from steward_server.tokens.room import Tokens
from steward_server.vault import Vault

log = structlog.get_logger(__name__)

ROOMS = [
    f"steward_server.{room}"
    for room in (
        "events",
        "audit",
        "auth",
        "tokens",
        "api_keys",
        "agents",
        "projects",
        "providers",
        "limits",
        "budget",
        "alerts",
        "requests",
        "analytics",
        "environments",
        "credentials",
        "executions",
        "idempotency",
    )
]

SEALED = [
    SIGNING_KEYS,
    PROVIDER_KEYS,
    CREDENTIAL_PASSWORDS,
    *WEBHOOK_SECRETS,
    Sealed("environment", "environment_id", "sealed_env", env_context),
]
"""What the vault has sealed for longer than answers are remembered."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Who owns what events are about: agents, and environments."""

    agents: Directory
    of_environment: Callable[[str], str | None]

    def owner_of(self, name: str) -> str | None:
        return self.agents.owner_of(name) or self.of_environment(name)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    host: str
    http_port: int
    grpc_port: int
    first_password: str | None
    """Of the first administrator, if it was generated by this start."""
    dispatcher: Dispatcher

    @property
    def grpc_address(self) -> str:
        return f"{bracketed(self.host)}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        return f"{bracketed(self.host)}:{self.http_port}"


@asynccontextmanager
async def serving(settings: Settings, clock: Callable[[], int] = now_us) -> AsyncIterator[Running]:
    """Start a server, and stop it in order at the end of the block.

    Raises:
        BadSetting: a setting is wrong.
        DatabaseInUse: another server has the data.
        SchemaError: the data was written by a newer version.
    """
    config = settings.server
    check_bind(config)
    development = config.profile == "development"
    check_static_token(config.static_token, development=development)
    proxies = trusted_proxies(config.trusted_proxies)
    async with AsyncExitStack() as stack:
        database = await Sqlite.open(config.data_dir / "steward.db")
        stack.push_async_callback(database.close)
        for name in await migrate(database, ROOMS):
            log.info("database.migrated", migration=name)
        since_hour = oldest_hour(clock(), settings.analytics.trace_retention_us)
        if counted := await catch_up(database, since_hour):
            log.info("analytics.caught_up", entry_count=counted)
        key_file = config.master_key_file or config.data_dir / "master.key"
        vault = Vault.open(key_file, create=config.master_key_file is None)
        await reseal(database, vault, SEALED)
        observation = Observation()
        streams = LiveStreams()
        hub = Hub(database)

        # The rooms, in the order they need each other.
        directory = await Directory.load(database)
        limit_book = LimitBook(directory, leased_by_agent)
        desk = Desk(settings.budget.policy(), limit_book)
        token_room = Tokens(database, streams, directory, desk, clock)
        key_room = ApiKeys(
            database, streams, People(), max_per_user=settings.api_keys.max_per_user, clock=clock
        )
        provider_room = Providers(database, vault, directory, clock)
        credential_room = CredentialRoom(database, vault, clock)
        library = Library(database, settings.playbooks, config.data_dir, clock)
        stack.callback(library.close)
        project_room = ProjectRoom(database, desk, directory, clock)
        passwords = Passwords(
            workers=settings.auth.password_workers, queue=settings.auth.password_queue
        )
        stack.callback(passwords.close)
        sessions = await auth.open_sessions(database, vault, streams, settings.auth, clock)
        prices = PriceBook(database)
        await prices.start(clock())
        publisher = Publisher(database, directory, clock)
        teller = Teller(database, directory, desk.policy, clock, [Rollups(), limit_book])
        alert_room = alerts.open_room(
            database,
            vault=vault,
            journal=hub,
            registry=observation.registry,
            config=settings.alerts,
            clock=clock,
        )
        budget = BudgetRoom(
            database,
            desk,
            teller,
            prices,
            provider_room,
            directory,
            publisher,
            hub,
            clock,
            limit_book,
            alert_room.alarm,
        )
        auditor = Auditor(database, clock, observation.registry)
        await auditor.audit()
        answers = Answers(
            database, vault, kept_us=round(settings.idempotency.kept_s * 1e6), clock=clock
        )
        tickets = environments.Tickets(clock)
        previews = environments.Previews(clock)
        client_tokens = inference.ClientTokens(settings.inference, development=development)
        authenticator = Credentials(
            sessions=sessions,
            tokens=token_room,
            keys=key_room,
            tickets=tickets,
            previews=previews,
            clients=client_tokens,
            people=database,
            clock=clock,
            static_token=config.static_token,
            local_single_user=config.local_single_user,
        )

        rates = Rates(settings.rates, logins_per_minute=settings.auth.logins_per_minute)

        def interceptors(signature: Signature) -> Sequence[AsyncServerInterceptor]:
            """The links of one method, outermost first."""
            name, rule = signature.name, signature.rule
            rate_limit = RateLimit(rates.of(rule.rate_category), clock)
            links: list[AsyncServerInterceptor] = [
                RequestId(),
                Metrics(signature, observation.rpcs.of(name), observation.open_streams),
                Errors(signature),
                Authentication(signature, authenticator, streams, rate_limit),
            ]
            if rate_limit.is_needed:
                links.append(rate_limit)
            links.append(Authorization(rule))
            if applies(rule):
                links.append(Idempotency(name, rule, answers))
            return links

        methods: Any = Dispatcher(interceptors, proxies)
        add_AuditServiceServicer_to_server(AuditService(database), methods)
        tokens.register(methods, tokens=token_room, clock=clock)
        api_keys.register(methods, keys=key_room)
        people = People()
        driver, images = environments.open_driver(config.data_dir, settings.environments)
        environment_room = await stack.enter_async_context(
            environments.open_room(
                database,
                driver=driver,
                agents=directory,
                vault=vault,
                config=settings.environments,
                clock=clock,
            )
        )
        environment_health = await stack.enter_async_context(
            environments.register(
                methods,
                database,
                room=environment_room,
                people=people,
                images=images,
                vault=vault,
                tickets=tickets,
                previews=previews,
                registry=observation.registry,
                config=settings.environments,
                clock=clock,
            )
        )
        request_room = requests.register(
            methods,
            database,
            agents=directory,
            people=people,
            purse=desk,
            allocations=allocations,
            config=settings.requests,
            clock=clock,
        )
        browsers = Browsers(settings.browser)
        stack.push_async_callback(browsers.aclose)
        browsers.tell_what_is_missing()
        run_engine = await stack.enter_async_context(
            executions.open_engine(
                methods,
                database,
                library=library,
                credentials=credential_room,
                starters=Starters(database, people, key_room, token_room),
                work=all_work(settings.ignition, browsers, _python_machines(settings)),
                registry=observation.registry,
                config=settings.executions,
                data_dir=config.data_dir,
                clock=clock,
            )
        )
        execution_room = executions.register(
            methods,
            database,
            engine=run_engine,
            library=library,
            people=people,
            agents=directory,
            config=settings.executions,
            clock=clock,
        )
        streams.follow(execution_room.on_credential_ended)
        auth.register(
            methods,
            database,
            sessions=sessions,
            passwords=passwords,
            config=settings.auth,
            name_key=vault.derive("auth/stranger-names"),
            belongings=(
                directory,
                request_room,
                key_room,
                environment_room,
                credential_room,
                execution_room,
            ),
            on_rights_changed=(key_room.drop_of, execution_room.on_rights_changed),
            clock=clock,
        )
        agents.register(
            methods,
            database,
            directory=directory,
            purse=desk,
            tokens=token_room,
            providers=provider_room,
            people=people,
            projects=project_room,
            requests=request_room,
            on_stopped=(environment_room.on_agent_stopped,),
            config=settings.agents,
            clock=clock,
        )
        projects.register(methods, project_room)
        providers.register(methods, providers=provider_room, development=development)
        credentials.register(methods, credentials=credential_room)
        add_PlaybookServiceServicer_to_server(PlaybookService(library), methods)
        add_BudgetServiceServicer_to_server(BudgetService(budget), methods)
        add_PriceServiceServicer_to_server(PriceService(prices, clock), methods)
        provider_keys = ProviderKeyService(database, provider_room, directory, clock)
        add_ProviderKeyServiceServicer_to_server(provider_keys, methods)
        limit_room = limits.register(
            methods,
            database,
            book=limit_book,
            purse=desk,
            people=people,
            projects=project_room,
            clock=clock,
        )
        await limit_room.start()
        alerts.register(methods, alerts=alert_room)
        analytics.register(
            methods,
            database,
            agents=directory,
            purse=desk,
            ledger=Receipts(),
            providers=provider_room,
            projects=project_room,
            config=settings.analytics,
            clock=clock,
        )
        engine = await stack.enter_async_context(
            inference.open_engine(
                database,
                House(budget, "steward"),
                settings.inference,
                config.data_dir,
                observation.registry,
                clock,
            )
        )
        inference.register(
            methods,
            database,
            engine=engine,
            tokens=client_tokens,
            authenticate=authenticator.authenticate,
            config=settings.inference,
            clock=clock,
        )
        await engine.start()
        sweeper = environments.Sweeper(database, environment_room, settings.environments, clock)
        tidier = Tidier(database, clock, settings.analytics.trace_retention_us)

        async def report(call: Call, told: CostUpdate) -> None:
            await budget.report(call, _report_of(told))

        owners = Owners(directory, environment_room.owner_of)
        events = EventService(hub, publisher, owners, report, settings.events, clock)
        add_EventServiceServicer_to_server(events, methods)
        system = SystemService(
            database,
            observation.registry,
            lambda: auditor.newest,
            clock,
            await _notices(settings, provider_room),
            lambda: engine.trouble,
        )
        add_SystemServiceServicer_to_server(system, methods)

        await run_engine.start()
        last_uses = [
            room.last_use for room in (token_room, key_room, provider_room, environment_room.uses)
        ]
        background = [
            _load_late(),
            library.read_all(),
            hub.run(),
            sweep_forever(database, desk, clock, settings.budget.sweep_interval_s),
            auditor.run(settings.budget.audit_interval_s),
            keep_sweeping(database, settings.auth.sweep_interval_s, clock),
            limit_room.keep_sweeping(settings.limits.sweep_interval_s),
            alert_room.tail.run(),
            alert_room.courier.run(),
            tidier.keep_tidying(settings.analytics.tidy_interval_s),
            sweeper.keep_sweeping(),
            environments.clear(images),
            environment_health.keep_measuring(settings.environments.stats_interval_s),
            engine.keep_looking(),
            run_engine.feed.run(),
            executions.keep_tidying(execution_room),
            answers.keep_sweeping(settings.idempotency.sweep_interval_s),
            *(each.keep_writing(settings.tokens.last_use_interval_s) for each in last_uses),
        ]
        await stack.enter_async_context(_in_background(background))
        for each in last_uses:
            stack.push_async_callback(each.write)

        ports = await stack.enter_async_context(
            open_doors(
                config,
                methods,
                streams,
                heartbeat_s=settings.events.heartbeat_s,
                observe=observation.request,
            )
        )
        # Last: a start that fails must not leave an administrator whose password nobody was told.
        first_password = await ensure_first_administrator(
            database,
            passwords,
            username=config.admin_user,
            password=config.admin_password,
            development=development,
            clock=clock,
        )
        yield Running(config.host, ports.http, ports.grpc, first_password, methods)


async def _load_late() -> None:
    """Load what takes long and is first needed by a caller, while none waits for the start."""
    await asyncio.to_thread(import_module, "jwt")


@asynccontextmanager
async def _in_background(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    """Run coroutines until the end of the block; they handle their own faults."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    for task in tasks:
        task.add_done_callback(_report_fault)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _report_fault(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background.ended", task=repr(task.get_coro()), exc_info=error)


async def _notices(settings: Settings, provider_room: Providers) -> list[str]:
    notices = [
        f"the key of provider {name!r} cannot be decrypted: restore the master key, or delete the "
        "provider and create it again"
        for name in await provider_room.unusable_names()
    ]
    if settings.server.local_single_user:
        notices.append("callers on this machine need no credential (STEWARD_LOCAL_SINGLE_USER)")
    return notices


def _python_machines(settings: Settings) -> Machines | None:
    """In what playbooks may run Python."""
    if not settings.executions.python:
        return None
    limits = settings.environments
    return Machines(
        settings.executions.python_image,
        longest_s=min(limits.max_exec_timeout_s, limits.max_timeout_s),
    )


def _report_of(told: CostUpdate) -> ReportRequest:
    """A usage told as an event, as the budget call it stands for."""
    report = ReportRequest(
        lease_id=told.lease_id,
        request_id=told.request_id,
        model=told.model,
        provider=told.provider,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
    )
    if told.HasField("cost_nanousd"):
        report.cost_nanousd = told.cost_nanousd
    return report
