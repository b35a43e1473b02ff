"""PlaybookService over a real port: the library of a server, and what people do with it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from steward.gateway.v1 import faults_pb2
from steward.playbooks.v1 import playbooks_pb2 as pb
from steward.playbooks.v1.playbooks_pb2_grpc import PlaybookServiceStub
from steward_server.auth.accounts import Role
from steward_server.errors import InvalidArgument, NotFound, StewardError, Unavailable
from steward_server.playbooks import threads
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.config import PlaybooksConfig
from steward_server.playbooks.folders import SHIPPED
from steward_server.playbooks.library import Library
from steward_server.playbooks.shelves import Shelves
from steward_server.playbooks.threads import Threads
from steward_server.principals import ANONYMOUS
from tests.integration.conftest import Metadata, Server, refusal

SHIPPED_PATHS = sorted(file.relative_to(SHIPPED).as_posix() for file in SHIPPED.rglob("*.yaml"))
HEALTH_CHECK = "gateway/health_check.yaml"
TEXT = """# mine
name: Nap
version: "1"
parameters:
  - {name: s, type: integer, default: 2}
steps:
  - id: nap
    name: Nap
    type: utility.sleep
    parameters: {seconds: "{{ s }}"}
"""
BROKEN = "name: 5\nversion: 1\nsteps: [{id: a}]\n"


def service(server: Server) -> Any:
    return PlaybookServiceStub(server.channel)


async def call(server: Server, method: str, caller: Metadata | None = None, **fields: Any) -> Any:
    request = getattr(pb, f"{method}Request")(**fields)
    return await getattr(service(server), method)(request, metadata=caller or server.admin)


async def errors_of(calling: Any) -> tuple[faults_pb2.TextError, ...]:
    """What a refusal says of a text."""
    refused = await refusal(calling)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "VALIDATION_ERROR",
    )
    return refused.errors


async def changes(server: Server) -> list[tuple[str, str, Any, Any]]:
    rows = await server.database.fetch_all(
        "SELECT action, resource_id, before, after FROM audit_entry"
        " WHERE resource_type = 'playbook' ORDER BY number"
    )
    return [
        (
            row["action"],
            row["resource_id"],
            json.loads(row["before"] or "null"),
            json.loads(row["after"] or "null"),
        )
        for row in rows
    ]


def own(server: Server) -> Path:
    return server.folder / "playbooks"


async def test_every_shipped_playbook_is_listed_and_has_details(server: Server) -> None:
    listed = (await call(server, "ListPlaybooks")).playbooks
    assert [each.path for each in listed] == SHIPPED_PATHS
    assert len(SHIPPED_PATHS) >= 7
    for each in listed:
        assert (each.error_count, each.error, each.pending) == (0, "", False)
        assert each.origin == pb.ORIGIN_BUILT_IN
        shown = await call(server, "GetPlaybook", path=each.path)
        assert (shown.name, shown.version, shown.domain) == (each.name, each.version, each.domain)
        assert shown.description == each.description != ""
        assert len(shown.parameters) == each.parameter_count
        steps = [*shown.steps, *shown.finally_steps]
        assert len(steps) + sum(len(step.undo) for step in steps) == each.step_count
        assert all(step.type in CATALOGUE and step.line > 1 for step in steps)
        source = await call(server, "GetPlaybookSource", path=each.path)
        assert source.text == (SHIPPED / each.path).read_text()
        assert source.digest == shown.digest


async def test_a_list_has_one_domain_if_that_is_asked_for(server: Server) -> None:
    listed = (await call(server, "ListPlaybooks", domain="gateway")).playbooks
    assert {each.path.partition("/")[0] for each in listed} == {"gateway"}
    assert (await call(server, "ListPlaybooks", domain="none")).playbooks == []


async def test_details_have_defaults_and_what_steps_are(server: Server) -> None:
    shown = await call(server, "GetPlaybook", path="gateway/module_upgrade.yaml")
    parameters = {each.name: each for each in shown.parameters}
    assert not parameters["gateway_url"].HasField("default")
    assert parameters["restart"].default.bool_value is False
    assert parameters["restart"].HasField("default")
    login = shown.steps[0]
    assert (login.id, login.timeout_s, login.on_failure) == ("login", 60, "abort")
    assert [*login.needs] == ["gateway"]
    text = (SHIPPED / "gateway/module_upgrade.yaml").read_text().splitlines()
    assert text[login.line - 1].strip().startswith("- id: login")


async def test_a_playbook_is_saved_shown_replaced_and_deleted(server: Server) -> None:
    _, ann = await server.enter("ann", Role.USER)
    _, bob = await server.enter("bob", Role.USER)
    saved = await call(server, "SavePlaybook", ann, path="ann/nap.yaml", text=TEXT)
    assert (saved.message, saved.path) == ("Playbook saved successfully", "ann/nap.yaml")
    assert saved.created
    assert (own(server) / "ann" / "nap.yaml").read_text() == TEXT
    shown = await call(server, "GetPlaybook", bob, path="ann/nap.yaml")
    assert (shown.name, shown.origin, shown.digest) == ("Nap", pb.ORIGIN_USER, saved.digest)
    assert shown.parameters[0].default.number_value == 2

    other = TEXT.replace("Nap", "Rest")
    again = await call(server, "SavePlaybook", bob, path="ann/nap.yaml", text=other)
    assert not again.created
    assert (await call(server, "GetPlaybook", ann, path="ann/nap.yaml")).name == "Rest"

    deleted = await call(server, "DeletePlaybook", bob, path="ann/nap.yaml")
    assert deleted.message == "Playbook deleted successfully"
    gone = await refusal(call(server, "GetPlaybook", ann, path="ann/nap.yaml"))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "PLAYBOOK_NOT_FOUND")
    assert gone.message == "Playbook 'ann/nap.yaml' not found"

    first = {"digest": saved.digest, "origin": "user"}
    second = {"digest": again.digest, "origin": "user"}
    assert await changes(server) == [
        ("playbook.created", "ann/nap.yaml", None, first),
        ("playbook.updated", "ann/nap.yaml", first, second),
        ("playbook.deleted", "ann/nap.yaml", second, None),
    ]


async def test_ones_own_in_place_of_a_shipped_one_is_used_until_it_is_deleted(
    server: Server,
) -> None:
    refused = await refusal(call(server, "DeletePlaybook", path=HEALTH_CHECK))
    assert refused.reason == "PLAYBOOK_BUILT_IN"
    saved = await call(server, "SavePlaybook", path=HEALTH_CHECK, text=TEXT)
    assert saved.created
    assert (await call(server, "GetPlaybook", path=HEALTH_CHECK)).name == "Nap"
    await call(server, "DeletePlaybook", path=HEALTH_CHECK)
    shown = await call(server, "GetPlaybook", path=HEALTH_CHECK)
    assert (shown.name, shown.origin) == ("Gateway Health Check", pb.ORIGIN_BUILT_IN)


async def test_a_change_is_made_to_what_was_read_and_nothing_else(server: Server) -> None:
    saved = await call(server, "SavePlaybook", path="a.yaml", text=TEXT, expected_digest="")
    taken = call(server, "SavePlaybook", path="a.yaml", text=TEXT, expected_digest="")
    refused = await refusal(taken)
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "VERSION_PASSED")
    assert refused.facts == {"path": "a.yaml", "digest": saved.digest}
    other = TEXT.replace("Nap", "Rest")
    right = {"path": "a.yaml", "text": other, "expected_digest": saved.digest}
    again = await call(server, "SavePlaybook", **right)
    assert (await refusal(call(server, "SavePlaybook", **right))).reason == "VERSION_PASSED"
    old = call(server, "DeletePlaybook", path="a.yaml", expected_digest=saved.digest)
    assert (await refusal(old)).reason == "VERSION_PASSED"
    await call(server, "DeletePlaybook", path="a.yaml", expected_digest=again.digest)
    never = call(server, "DeletePlaybook", path="a.yaml", expected_digest=again.digest)
    assert (await refusal(never)).reason == "VERSION_PASSED"
    gone = call(server, "DeletePlaybook", path="a.yaml")
    assert (await refusal(gone)).reason == "PLAYBOOK_NOT_FOUND"


async def test_what_has_faults_is_told_all_of_them_and_not_saved(server: Server) -> None:
    told = await errors_of(call(server, "SavePlaybook", path="a/b.yaml", text=BROKEN))
    assert [(each.line, each.column, each.path, each.message) for each in told] == [
        (1, 7, "a/b.yaml", "'name' must be text; put it in quotes"),
        (3, 9, "a/b.yaml", "a step needs the key 'name'"),
        (3, 9, "a/b.yaml", "a step needs the key 'type'"),
    ]
    assert not own(server).exists()
    assert await changes(server) == []


async def test_a_broken_file_is_listed_told_and_read_for_whoever_mends_it(server: Server) -> None:
    own(server).mkdir()
    (own(server) / "broken.yaml").write_text(BROKEN)
    (own(server) / "latin.yaml").write_bytes(b"name: \xfc\n")
    listed = {each.path: each for each in (await call(server, "ListPlaybooks")).playbooks}
    assert listed["broken.yaml"].error_count == 3
    assert listed["broken.yaml"].error == "1:7: 'name' must be text; put it in quotes"
    shown = call(server, "GetPlaybook", path="broken.yaml")
    assert len(await errors_of(shown)) == 3
    checked = await call(server, "CheckPlaybook", path="broken.yaml")
    assert (checked.valid, len(checked.errors)) == (False, 3)
    source = await call(server, "GetPlaybookSource", path="broken.yaml")
    assert source.text == BROKEN
    saved = await call(
        server, "SavePlaybook", path="broken.yaml", text=TEXT, expected_digest=source.digest
    )
    assert not saved.created
    (bad,) = await errors_of(call(server, "GetPlaybookSource", path="latin.yaml"))
    assert "not UTF-8" in bad.message


async def test_of_many_faults_a_refusal_tells_what_it_can_carry(server: Server) -> None:
    text = "name: x\nversion: 1\nsteps:\n" + "  - {id: a, name: b, type: c.d}\n" * 100
    refused = await refusal(call(server, "SavePlaybook", path="a.yaml", text=text))
    assert refused.facts == {"path": "a.yaml", "error_count": "199"}
    checked = await call(server, "CheckPlaybook", path="a.yaml", text=text)
    assert len(checked.errors) == 199
    assert 20 < len(refused.errors) < 100
    assert [*refused.errors] == checked.errors[: len(refused.errors)]


TRAVERSALS = [
    "../secret.yaml",
    "a/../../secret.yaml",
    "/etc/secret.yaml",
    "..\\secret.yaml",
    "~/secret.yaml",
    "a//b.yaml",
    "./a.yaml",
    "a\x00.yaml",
    "a\n.yaml",
    "C:/a.yaml",
    "..%2fsecret.yaml",
    "%2Fetc%2Fsecret.yaml",
    "a.txt",
    "a",
    "",
    "x" * 500 + ".yaml",
]


async def test_no_method_takes_a_path_out_of_the_library(server: Server) -> None:
    (server.folder / "secret.yaml").write_text(TEXT)
    (server.folder / "playbooks").mkdir()
    for path in TRAVERSALS:
        await refused_everywhere(server, path)
    assert [each.name for each in server.folder.rglob("*.yaml")] == ["secret.yaml"]


async def refused_everywhere(server: Server, path: str) -> None:
    methods: dict[str, dict[str, Any]] = {
        "GetPlaybook": {},
        "GetPlaybookSource": {},
        "SavePlaybook": {"text": TEXT},
        "DeletePlaybook": {},
    }
    for method, fields in methods.items():
        refused = await refusal(call(server, method, path=path, **fields))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_PATH",
        ), (method, path)
    others: dict[str, dict[str, Any]] = {
        "DuplicatePlaybook": {"source_path": path, "new_name": "Copy"},
        "CheckPlaybook": {"path": path},
        "PlanPlaybook": {"path": path},
    }
    for method, fields in others.items():
        refused = await refusal(call(server, method, **fields))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, (method, path)


async def test_links_out_are_invalid_paths_and_never_written_through(
    server: Server, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.yaml").write_text(TEXT)
    own(server).mkdir()
    (own(server) / "file.yaml").symlink_to(outside / "secret.yaml")
    (own(server) / "folder").symlink_to(outside)
    for path in ("file.yaml", "folder/secret.yaml"):
        for method in ("GetPlaybook", "GetPlaybookSource", "DeletePlaybook"):
            refused = await refusal(call(server, method, path=path))
            assert refused.reason == "INVALID_PATH", (method, path)
        copying = call(server, "DuplicatePlaybook", source_path=path, new_name="Copy")
        assert (await refusal(copying)).reason == "INVALID_PATH"
    saving = call(server, "SavePlaybook", path="folder/new.yaml", text=TEXT)
    assert (await refusal(saving)).reason == "INVALID_PATH"
    assert [each.name for each in outside.iterdir()] == ["secret.yaml"]


async def test_hidden_files_and_overlong_names_are_not_made(server: Server) -> None:
    for path in (".a.yaml", "a/.b/c.yaml", "a.backup.yaml", f"{'x' * 300}.yaml"):
        refused = await refusal(call(server, "SavePlaybook", path=path, text=TEXT))
        assert refused.reason == "INVALID_PATH", path


async def test_a_copy_has_the_new_name_and_every_comment(server: Server) -> None:
    text = TEXT.replace("name: Nap\n", "name: Nap  # what it does\nverified: true\n", 1)
    await call(server, "SavePlaybook", path="a/original.yml", text=text)
    copied = await call(
        server, "DuplicatePlaybook", source_path="a/original.yml", new_name=" My Custom Playbook "
    )
    assert copied.message == "Playbook duplicated successfully"
    assert copied.new_path == "a/my-custom-playbook.yaml"
    assert (own(server) / copied.new_path).read_text() == text.replace(
        "name: Nap  #", 'name: "My Custom Playbook"  #'
    ).replace("verified: true", "verified: false")
    (_, made) = await changes(server)
    assert made[:2] == ("playbook.created", copied.new_path)
    assert made[3]["copy_of"] == "a/original.yml"


async def test_copies_at_once_have_paths_of_their_own(server: Server) -> None:
    (own(server) / "gateway" / "copy-3.yaml").mkdir(parents=True)  # it is in no list
    made = await asyncio.gather(
        *(
            call(server, "DuplicatePlaybook", source_path=HEALTH_CHECK, new_name="Copy")
            for _ in range(8)
        )
    )
    numbers = ("", "-1", "-2", "-4", "-5", "-6", "-7", "-8")
    paths = [f"gateway/copy{number}.yaml" for number in numbers]
    assert sorted(each.new_path for each in made) == sorted(paths)
    listed = [each.path for each in (await call(server, "ListPlaybooks")).playbooks]
    assert {*paths} <= {*listed}


async def test_a_copy_is_made_once_for_one_request_id(server: Server) -> None:
    fields: dict[str, Any] = {
        "source_path": HEALTH_CHECK,
        "new_name": "Copy",
        "request_id": "r-1",
    }
    first = await call(server, "DuplicatePlaybook", **fields)
    assert await call(server, "DuplicatePlaybook", **fields) == first
    assert len([*(own(server) / "gateway").iterdir()]) == 1


async def test_a_name_that_cannot_be_is_a_wrong_field(server: Server) -> None:
    for name in ("", " ", "a/b", "a\\b", "../x", "!!", "x" * 256, "a\x07b"):
        copying = call(server, "DuplicatePlaybook", source_path=HEALTH_CHECK, new_name=name)
        refused = await refusal(copying)
        assert refused.reason == "VALIDATION_ERROR", name
        assert [*refused.fields] == ["new_name"], name
    assert not own(server).exists()


async def test_a_text_is_checked_with_the_others_of_the_library(server: Server) -> None:
    assert (await call(server, "CheckPlaybook", text=TEXT)).valid
    running = TEXT.replace("utility.sleep", "playbook.run").replace(
        '{seconds: "{{ s }}"}', "{playbook: gateway/health_chek.yaml}"
    )
    (wrong,) = (await call(server, "CheckPlaybook", text=running, path="a.yaml")).errors
    assert wrong.message == (
        "there is no playbook 'gateway/health_chek.yaml'; did you mean 'gateway/health_check.yaml'?"
    )
    circle = running.replace("gateway/health_chek.yaml", "a.yaml")
    (wrong,) = (await call(server, "CheckPlaybook", text=circle, path="a.yaml")).errors
    assert "in a circle" in wrong.message
    empty = await call(server, "CheckPlaybook", text="")
    assert not empty.valid
    nothing = await refusal(call(server, "CheckPlaybook"))
    assert [*nothing.fields] == ["path"]
    missing = await refusal(call(server, "CheckPlaybook", path="none.yaml"))
    assert missing.reason == "PLAYBOOK_NOT_FOUND"


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


async def test_a_plan_tells_what_would_be_done(server: Server) -> None:
    made = await call(server, "PlanPlaybook", text=TEXT, parameters=struct(s=5))
    (step,) = made.plan.steps
    assert step.will == pb.WILL_RUN
    assert MessageToDict(step.parameters) == {"seconds": 5.0}
    assert MessageToDict(made.plan.parameters) == {"s": 5.0}
    restart = await call(
        server,
        "PlanPlaybook",
        path="gateway/restart_and_wait.yaml",
        parameters=struct(reason="new licence", ask_first=False),
        gateway_url="http://localhost:8088",
        credential_name="my-gateway",
    )
    assert "gateway" in restart.needs
    assert {each.id: each.will for each in restart.plan.steps}["approval"] == pb.WILL_SKIP
    assert restart.plan.steps[-1].child.name == "Gateway Health Check"


async def test_a_plan_with_wrong_values_names_them(server: Server) -> None:
    refused = await refusal(call(server, "PlanPlaybook", text=TEXT, parameters=struct(s="5", z=1)))
    assert refused.reason == "VALIDATION_ERROR"
    assert {*refused.fields} == {"parameters.s", "parameters.z"}
    half = await refusal(call(server, "PlanPlaybook", text=TEXT, parameters=struct(s=1.5)))
    assert [*half.fields] == ["parameters.s"]
    url = await refusal(call(server, "PlanPlaybook", text=TEXT, gateway_url="ftp://g"))
    assert url.reason == "VALIDATION_ERROR"
    assert len(await errors_of(call(server, "PlanPlaybook", text=BROKEN))) == 3


async def test_secrets_that_are_written_out_are_masked_in_plans(server: Server) -> None:
    text = TEXT.replace("utility.sleep", "gateway.login").replace(
        '{seconds: "{{ s }}"}', "{username: admin, password: canary-5e0c}"
    )
    made = await call(server, "PlanPlaybook", text=text)
    assert "canary-5e0c" not in str(made)
    await call(server, "SavePlaybook", path="a.yaml", text=text)
    assert "canary-5e0c" not in str(await call(server, "GetPlaybook", path="a.yaml"))


async def test_every_type_of_step_is_listed_with_its_fields(server: Server) -> None:
    listed = (await call(server, "ListStepTypes")).step_types
    assert [each.name for each in listed] == [*CATALOGUE]
    for each in listed:
        own_type = CATALOGUE[each.name]
        assert [field.name for field in each.parameters] == [
            field.name for field in own_type.parameters
        ]
        assert all(field.description and field.type for field in each.parameters)
        assert each.description == own_type.doc


def library(server: Server, **settings: Any) -> Library:
    """What the engine is handed."""
    return Library(server.database, PlaybooksConfig(**settings), server.folder, server.clock)


async def test_a_run_opens_a_playbook_and_its_text(server: Server) -> None:
    opening = library(server)
    await call(server, "SavePlaybook", path="nap.yaml", text=TEXT)
    playbook, text = await opening.opened("nap.yaml")
    assert (playbook.name, text) == ("Nap", TEXT)
    assert opening.view.find("nap.yaml") == playbook
    with pytest.raises(NotFound) as missing:
        await opening.opened("none.yaml")
    assert missing.value.reason == "PLAYBOOK_NOT_FOUND"
    with pytest.raises(InvalidArgument) as unsafe:
        await opening.opened("../nap.yaml")
    assert unsafe.value.reason == "INVALID_PATH"
    (own(server) / "nap.yaml").write_text(BROKEN)
    with pytest.raises(InvalidArgument) as faulty:
        await opening.opened("nap.yaml")
    assert faulty.value.reason == "VALIDATION_ERROR"
    (errors,) = faulty.value.details
    assert isinstance(errors, faults_pb2.TextErrors)
    assert len(errors.errors) == 3
    opening.close()


async def test_a_library_that_is_full_takes_no_more(server: Server) -> None:
    full = library(server, max_playbooks=1)
    await call(server, "SavePlaybook", path="a.yaml", text=TEXT)
    who = (await refusal_of_save(full, "b.yaml"))[0]
    assert who == "LIBRARY_FULL"
    assert await refusal_of_save(full, "a.yaml") == ("", True)
    full.close()


async def refusal_of_save(kept: Library, path: str) -> tuple[str, bool]:
    try:
        saved = await kept.save(ANONYMOUS, path, TEXT, expected_digest=None)
    except StewardError as error:
        return error.reason, False
    return "", not saved.is_new


async def test_a_folder_that_cannot_be_written_is_told_without_its_path(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    closed = library(server, folder=tmp_path / "file" / "playbooks")
    assert (await refusal_of_save(closed, "b.yaml"))[0] in (
        "LIBRARY_NOT_WRITABLE",
        "INVALID_PATH",
    )
    assert len((await closed.listing()).summaries) == len(SHIPPED_PATHS)
    closed.close()


async def test_a_list_does_not_wait_for_what_somebody_has_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()

    def slowly(*_given: Any, **_around: Any) -> tuple[None, tuple[()]]:
        going.wait(10)
        return None, ()

    monkeypatch.setattr("steward_server.playbooks.library.examine", slowly)
    busy = library(server)
    checking = asyncio.ensure_future(busy.check("a.yaml", TEXT))
    listing = await asyncio.wait_for(busy.listing(), 30)
    assert len(listing.summaries) == len(SHIPPED_PATHS)
    assert not checking.done()
    going.set()
    assert await checking == ()
    busy.close()


async def test_everything_is_read_once_before_anybody_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = library(server)
    with monkeypatch.context() as without_time:
        without_time.setattr("steward_server.playbooks.library.AHEAD_S", -1.0)
        without_time.setattr(Shelves.listing, "__defaults__", (-1.0,))
        await asyncio.wait_for(early.read_all(), 10)
        assert all(each.pending for each in (await early.listing()).summaries)
    await asyncio.wait_for(early.read_all(), 10)
    monkeypatch.setattr(Shelves.listing, "__defaults__", (-1.0,))
    assert not any(each.pending for each in (await early.listing()).summaries)
    early.close()


async def test_more_work_than_can_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_WAITING", 1)
    going = threading.Event()
    few = Threads(1, "test")
    first = asyncio.ensure_future(few.run(going.wait))
    second = asyncio.ensure_future(few.run(lambda: True))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="try again"):
        await few.run(lambda: True)
    going.set()
    assert [await first, await second] == [True, True]
    assert await few.run(lambda: "again") == "again"
    few.close()
