"""Runs: the calls of the guide, and what else may come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tests.e2e.curl import TIME
from tests.e2e.ignition.shapes import NO_CREDENTIAL, NOT_ALLOWED, invalid, refused
from tests.e2e.iron.shapes import Row

RUNS = "$url$api/executions"
UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


OVER = {
    "execution_id": UUID,
    "playbook_name": "Short",
    "status": "completed",
    "started_at": TIME,
    "current_step_index": 2,
    "total_steps": 2,
    "created_at": TIME,
    "completed_at": TIME,
    "playbook_path": "runs/short.yaml",
    "debug_mode": False,
    "owner_id": str,
}


def started(name: str) -> dict[str, Any]:
    return {
        "execution_id": UUID,
        "playbook_name": name,
        "status": "started",
        "message": re.compile(f"Execution started with ID: {UUID.pattern}"),
    }


def told(message: str) -> dict[str, Any]:
    return {"message": message, "execution_id": UUID}


def no_run(execution_id: str = UNKNOWN) -> dict[str, Any]:
    text = f"Execution '{execution_id}' not found"
    return refused("execution_not_found", text, execution_id=execution_id)


FOREIGN = refused("execution_not_found", execution_id=UUID)
"""Somebody else's run does not exist."""


def wrong_state(*words: str, **details: Any) -> dict[str, Any]:
    return refused("resource_conflict", *words, reason="WRONG_STATE", **details)


def once(rows: Iterable[Row]) -> list[Row]:
    """Rows that are called by `/api` alone: what they try is the same by the other path."""
    return [
        (name, text.replace("$api", "/api"), status, shape) for name, text, status, shape in rows
    ]


def starting(body: Any, who: str = "$as_admin") -> str:
    text = body if isinstance(body, str) else json.dumps(body)
    return f"-X POST {RUNS} {who} $json -d '{text}'"


def starting_with(who: str = "$as_admin", **parameters: Any) -> str:
    given = {"text": "a"} | parameters
    body = {"playbook_path": "runs/typed.yaml", "parameters": given}
    return starting({**body, "parameters": {k: v for k, v in given.items() if v is not ...}}, who)


def asking(verb: str, run: str, who: str = "$as_admin", body: str | None = None) -> str:
    """A POST to a run; without a body, as the guide does it."""
    sent = "" if body is None else f" $json -d '{body}'"
    return f"-X POST {RUNS}/{run}/{verb} {who}{sent}"


SHORT = {"playbook_path": "runs/short.yaml"}
TRAVERSALS = (
    "../etc/passwd.yaml",
    "runs/../../short.yaml",
    "/etc/passwd.yaml",
    "~/short.yaml",
    "runs/./short.yaml",
    "runs//short.yaml",
    "runs/short",
    "runs/short.txt",
    "C:/short.yaml",
)

BEGINNINGS: list[Row] = [
    ("start a run", starting(SHORT), 200, started("Short")),
    ("start nothing", starting("{}"), 400, invalid("playbook_path")),
    ("start without a credential", starting(SHORT, ""), 401, NO_CREDENTIAL),
]

STARTS: list[Row] = [
    (
        "start a run with an itk_ key",
        starting(SHORT, "-H 'X-API-Key: $itk_key'"),
        200,
        started("Short"),
    ),
    ("start a run by an executor's key", starting(SHORT, "$as_executor"), 200, started("Short")),
    ("start a run as an agent", starting(SHORT, "$as_runtime"), 200, started("Short")),
    (
        "start with all fields",
        starting(
            {
                "playbook_path": "runs/typed.yaml",
                "parameters": {"text": "a", "count": 2, "share": 1, "is_on": False},
                "gateway_url": "http://localhost:8088",
                "credential_name": "",
                "debug_mode": False,
            }
        ),
        200,
        started("Typed"),
    ),
    (
        "start with parameters that are null",
        starting(SHORT | {"parameters": None}),
        200,
        started("Short"),
    ),
    ("start without a body", f"-X POST {RUNS} $as_admin $json", 400, invalid("playbook_path")),
    ("start an empty path", starting({"playbook_path": ""}), 400, invalid("playbook_path")),
    ("start a number", starting({"playbook_path": 5}), 400, invalid("playbook_path")),
    ("start a list", starting("[]"), 400, refused("validation_error")),
    (
        "start what is not JSON",
        starting("playbook_path=a"),
        400,
        refused("validation_error", "JSON"),
    ),
    ("start with a colour", starting(SHORT | {"colour": "red"}), 400, invalid("colour")),
    (
        "start with parameters that are a list",
        starting(SHORT | {"parameters": ["a"]}),
        400,
        invalid("parameters"),
    ),
    (
        "start with a mode that is a word",
        starting(SHORT | {"debug_mode": "yes"}),
        400,
        invalid("debug_mode"),
    ),
    (
        "start what is not there",
        starting({"playbook_path": "runs/none.yaml"}),
        404,
        refused("playbook_not_found", "Playbook 'runs/none.yaml' not found", path="runs/none.yaml"),
    ),
    *(
        (
            f"start {path}",
            starting({"playbook_path": path}),
            400,
            {"detail": {"error": "invalid_path", "message": str, "details": {"path": path}}},
        )
        for path in TRAVERSALS
    ),
    (
        "start a path of 501",
        starting({"playbook_path": "a" * 496 + ".yaml"}),
        400,
        invalid("playbook_path"),
    ),
    (
        "start a path with a bell",
        starting(r'{"playbook_path": "runs/\u0007.yaml"}'),
        400,
        invalid("playbook_path"),
    ),
    (
        "start a playbook that cannot be used",
        starting({"playbook_path": "runs/broken.yaml"}),
        400,
        refused("validation_error", path="runs/broken.yaml", error_count="2", errors=list),
    ),
    ("leave out what is needed", starting_with(text=...), 400, invalid("parameters.text")),
    (
        "give a parameter nobody knows",
        starting_with(colour="red"),
        400,
        invalid("parameters.colour"),
    ),
    (
        "give a parameter to what takes none",
        starting(SHORT | {"parameters": {"a": 1}}),
        400,
        invalid("parameters.a"),
    ),
    ("give a number for a text", starting_with(text=5), 400, invalid("parameters.text")),
    ("give a text for a number", starting_with(count="5"), 400, invalid("parameters.count")),
    ("give a truth for a number", starting_with(count=True), 400, invalid("parameters.count")),
    ("give half for a whole number", starting_with(count=1.5), 400, invalid("parameters.count")),
    ("give a word for a truth", starting_with(is_on="yes"), 400, invalid("parameters.is_on")),
    ("give a map for a list", starting_with(items={"a": 1}), 400, invalid("parameters.items")),
    ("give a list for a map", starting_with(facts=[1]), 400, invalid("parameters.facts")),
    (
        "tell all that is wrong at once",
        starting_with(text=5, count="5", colour="red"),
        400,
        refused(
            "validation_error",
            fields={f"parameters.{each}": str for each in ("text", "count", "colour")},
        ),
    ),
    (
        "start by a credential that is not there",
        starting(SHORT | {"credential_name": "none"}),
        404,
        refused("credential_not_found", "Credential 'none' not found", name="none"),
    ),
    (
        "start what uses a credential that is not there",
        starting({"playbook_path": "runs/signed.yaml"}, "$as_user"),
        404,
        refused("credential_not_found", "Credential 'my-gateway' not found", name="my-gateway"),
    ),
    (
        "give a credential that is not there",
        starting_with(account="none"),
        404,
        refused("credential_not_found", "Credential 'none' not found", name="none"),
    ),
    (
        "start with an address of ftp",
        starting(SHORT | {"gateway_url": "ftp://g"}),
        400,
        refused("validation_error", "http://", fields={"gateway_url": str}),
    ),
    (
        "start with an address of 501",
        starting(SHORT | {"gateway_url": "http://" + "g" * 494}),
        400,
        refused("validation_error", "501", fields={"gateway_url": str}),
    ),
    ("start as a viewer", starting(SHORT, "$as_viewer"), 403, NOT_ALLOWED),
    (
        "start what agents may not, as one",
        starting({"playbook_path": "runs/failing.yaml"}, "$as_runtime"),
        403,
        refused("permission_denied", "network", reason="NOT_FOR_AGENTS"),
    ),
    (
        "start by a form",
        f"-X POST {RUNS} $as_admin -d 'playbook_path=runs/short.yaml'",
        415,
        refused("unsupported_media_type"),
    ),
    ("put runs", f"-X PUT {RUNS} $as_admin $json -d '{{}}'", 405, refused("method_not_allowed")),
]

READS: list[Row] = [
    ("list runs as the guide does", f"'{RUNS}?limit=50&status=running' $as_admin", 200, list),
    (
        "list a run that is over",
        f"'{RUNS}?playbook_path=runs/short.yaml&status=completed' $as_admin",
        200,
        list,
    ),
    ("list nobody's runs", f"{RUNS} $as_viewer", 200, []),
    (
        "list runs before one",
        f"'{RUNS}?before_execution_id=$over_run&limit=1' $as_admin",
        200,
        list,
    ),
    ("list runs that a run started", f"'{RUNS}?parent_execution_id=$over_run' $as_admin", 200, []),
    ("list as many as there may be", f"'{RUNS}?limit=1000&status=cancelled' $as_admin", 200, list),
    ("list -1 runs", f"'{RUNS}?limit=-1' $as_admin", 400, invalid("limit")),
    ("list 1001 runs", f"'{RUNS}?limit=1001' $as_admin", 400, invalid("limit")),
    ("list many runs", f"'{RUNS}?limit=many' $as_admin", 400, invalid("limit")),
    ("list runs that sleep", f"'{RUNS}?status=asleep' $as_admin", 400, invalid("status")),
    ("list runs by colour", f"'{RUNS}?colour=red' $as_admin", 400, invalid("colour")),
    ("list runs before none", f"'{RUNS}?before_execution_id={UNKNOWN}' $as_admin", 404, no_run()),
    (
        "list runs that none started",
        f"'{RUNS}?parent_execution_id=$over_run' $as_user",
        404,
        FOREIGN,
    ),
    ("list runs without a credential", RUNS, 401, NO_CREDENTIAL),
    (
        "read a run",
        f"{RUNS}/$over_run $as_admin",
        200,
        OVER | {"step_results": list, "sequence": int, "parameters": {}},
    ),
    ("read a run that is not there", f"{RUNS}/{UNKNOWN} $as_admin", 404, no_run()),
    (
        "read a run that nobody can have",
        f"{RUNS}/..%2F..%2Fetc $as_admin",
        404,
        no_run("../../etc"),
    ),
    ("read somebody else's run", f"{RUNS}/$over_run $as_user", 404, FOREIGN),
    ("read a person's run as an agent", f"{RUNS}/$over_run $as_runtime", 404, FOREIGN),
    ("read a run without a credential", f"{RUNS}/$over_run", 401, NO_CREDENTIAL),
    (
        "put a run",
        f"-X PUT {RUNS}/$over_run $as_admin $json -d '{{}}'",
        405,
        refused("method_not_allowed"),
    ),
    ("list artifacts", f"{RUNS}/$over_run/artifacts $as_admin", 200, {"artifacts": []}),
    ("list artifacts of none", f"{RUNS}/{UNKNOWN}/artifacts $as_admin", 404, no_run()),
    ("list somebody else's artifacts", f"{RUNS}/$over_run/artifacts $as_user", 404, FOREIGN),
    (
        "read an artifact that is not there",
        f"{RUNS}/$over_run/artifacts/art_none $as_admin",
        404,
        refused("artifact_not_found", artifact="art_none"),
    ),
    (
        "read an artifact that climbs",
        f"{RUNS}/$over_run/artifacts/..%2F..%2Fsteward.db $as_admin",
        404,
        refused("artifact_not_found", artifact="../../steward.db"),
    ),
    ("follow a run that is not there", f"{RUNS}/{UNKNOWN}/events $as_admin", 404, no_run()),
    ("follow somebody else's run", f"{RUNS}/$over_run/events $as_user", 404, FOREIGN),
    ("follow from -1", f"'{RUNS}/$over_run/events?since=-1' $as_admin", 400, invalid("since")),
    ("follow from a word", f"'{RUNS}/$over_run/events?since=x' $as_admin", 400, invalid("since")),
    ("follow without a credential", f"{RUNS}/$over_run/events", 401, NO_CREDENTIAL),
]


def controls(verb: str, good: str, answer: Any) -> list[Row]:
    """Rows of a verb that a run in the state `good` takes."""
    return [
        (f"{verb} a run", asking(verb, f"$new_{good}_run"), 200, answer),
        (f"{verb} a run that is not there", asking(verb, UNKNOWN), 404, no_run()),
        *once(
            [
                (
                    f"{verb} a run with an empty object",
                    asking(verb, f"$new_{good}_run", body="{}"),
                    200,
                    answer,
                ),
                (
                    f"{verb} somebody else's run",
                    asking(verb, "$running_run", "$as_user"),
                    404,
                    FOREIGN,
                ),
                (
                    f"{verb} a run without a credential",
                    asking(verb, "$running_run", ""),
                    401,
                    NO_CREDENTIAL,
                ),
                (
                    f"{verb} a run as a viewer",
                    asking(verb, "$running_run", "$as_viewer"),
                    403,
                    NOT_ALLOWED,
                ),
                (
                    f"{verb} a run by GET",
                    f"{RUNS}/$running_run/{verb} $as_admin",
                    405,
                    refused("method_not_allowed"),
                ),
            ]
        ),
    ]


CONTROLS: list[Row] = [
    *controls("pause", "running", told("Execution paused")),
    *controls("resume", "paused", told("Execution resumed")),
    *controls("skip", "running", told("Step skipped")),
    *controls("cancel", "running", told("Execution cancelled")),
    *controls("rerun", "failed", started("Failing")),
    *controls("approve", "asking", told("Step approved")),
    *controls("reject", "asking", told("Step rejected")),
]

COMPLETED = {"status": "completed"}
STATES: list[Row] = [
    *(
        (
            f"{verb} a run and tell a colour",
            asking(verb, "$running_run", body='{"colour": "red"}'),
            400,
            invalid("colour"),
        )
        for verb in ("cancel", "rerun", "approve", "reject")
    ),
    (
        "pause a run that is over",
        asking("pause", "$over_run"),
        409,
        wrong_state("completed", **COMPLETED),
    ),
    (
        "resume a run that is over",
        asking("resume", "$over_run"),
        409,
        wrong_state("completed", **COMPLETED),
    ),
    (
        "resume a run that runs",
        asking("resume", "$running_run"),
        409,
        wrong_state("running", status="running"),
    ),
    (
        "skip in a run that is over",
        asking("skip", "$over_run"),
        409,
        wrong_state("completed", **COMPLETED),
    ),
    (
        "cancel a run that is over",
        asking("cancel", "$over_run"),
        409,
        wrong_state("completed", **COMPLETED),
    ),
    (
        "cancel a run and say why",
        asking("cancel", "$new_running_run", body='{"reason": "It is late."}'),
        200,
        told("Execution cancelled"),
    ),
    (
        "cancel a run for 501 reasons",
        asking("cancel", "$running_run", body=f'{{"reason": "{"r" * 501}"}}'),
        400,
        invalid("reason"),
    ),
    (
        "cancel a run for a bell",
        asking("cancel", "$running_run", body=r'{"reason": "\u0007"}'),
        400,
        invalid("reason"),
    ),
    (
        "cancel a run by an executor's key",
        asking("cancel", "$running_run", "$as_executor"),
        403,
        NOT_ALLOWED,
    ),
    (
        "make a run again that runs",
        asking("rerun", "$running_run"),
        409,
        wrong_state("running"),
    ),
    (
        "make a run again that was completed",
        asking("rerun", "$over_run"),
        409,
        wrong_state("from_start"),
    ),
    (
        "make a run again from its start",
        asking("rerun", "$over_run", body='{"from_start": true}'),
        200,
        started("Short"),
    ),
    (
        "approve what asks for nothing",
        asking("approve", "$running_run"),
        409,
        wrong_state("running", status="running"),
    ),
    (
        "approve one's own run",
        asking("approve", "$strict_run"),
        403,
        refused("permission_denied", "somebody else", reason="OWN_RUN"),
    ),
    (
        "approve another step",
        asking("approve", "$strict_run", body='{"step_id": "other"}'),
        409,
        wrong_state("other", status="running"),
    ),
    (
        "approve in 501 characters",
        asking("approve", "$strict_run", body=f'{{"comment": "{"c" * 501}"}}'),
        400,
        invalid("comment"),
    ),
    ("approve as a runtime", asking("approve", "$strict_run", "$as_runtime"), 403, NOT_ALLOWED),
    (
        "approve by an executor's key",
        asking("approve", "$strict_run", "$as_executor"),
        403,
        NOT_ALLOWED,
    ),
    (
        "reject and say why",
        asking("reject", "$new_asking_run", body='{"step_id": "ask", "comment": "Not today."}'),
        200,
        told("Step rejected"),
    ),
]

DELETIONS: list[Row] = [
    (
        "delete a run",
        f"-X DELETE {RUNS}/$new_over_run $as_admin",
        200,
        told("Execution deleted successfully") | {"screenshots_deleted": 0},
    ),
    ("delete a run that is not there", f"-X DELETE {RUNS}/{UNKNOWN} $as_admin", 404, no_run()),
    (
        "delete a run that runs",
        f"-X DELETE {RUNS}/$running_run $as_admin",
        409,
        wrong_state("cancel it"),
    ),
    ("delete somebody else's run", f"-X DELETE {RUNS}/$over_run $as_user", 404, FOREIGN),
    ("delete a run as a viewer", f"-X DELETE {RUNS}/$over_run $as_viewer", 403, NOT_ALLOWED),
    (
        "delete a run by an executor's key",
        f"-X DELETE {RUNS}/$over_run $as_executor",
        403,
        NOT_ALLOWED,
    ),
    ("delete a run as a runtime", f"-X DELETE {RUNS}/$over_run $as_runtime", 403, NOT_ALLOWED),
    ("delete a run without a credential", f"-X DELETE {RUNS}/$over_run", 401, NO_CREDENTIAL),
]

ROWS: list[Row] = [
    *BEGINNINGS,
    *once(STARTS),
    *READS,
    *CONTROLS,
    *once(STATES),
    *DELETIONS,
]
