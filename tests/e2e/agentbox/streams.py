"""What goes on for a while: logs that are followed, files that are read and watched, terminals."""

from __future__ import annotations

from typing import Any

from tests.e2e.agentbox.environments import ALL, ONE
from tests.e2e.agentbox.shapes import LOG, refused
from tests.e2e.iron.shapes import Row

NONE = f"{ALL}/env-abc123"
BUSY = f"{ALL}/$busy_environment_id"
FOR_A_MOMENT = "-H 'X-Request-Timeout: 0.7'"
CUT = {"error": {"error": "Gateway Timeout", "message": str, "code": 504}}
"""The last event, where the caller wanted to wait no longer."""

EVENTS: list[Row] = [
    (
        "follow logs as the guide does",
        f"'{BUSY}/logs?follow=true&tail=10' $as_admin {FOR_A_MOMENT}",
        200,
        {"message": LOG} | CUT,
    ),
    (
        "follow logs without times",
        f"'{BUSY}/logs?follow=true&timestamps=false' $as_admin {FOR_A_MOMENT}",
        200,
        {"message": LOG | {"timestamp": None}} | CUT,
    ),
    (
        "follow logs by a ticket",
        f"'{BUSY}/logs?follow=true&ticket=$new_logs_ticket' {FOR_A_MOMENT}",
        200,
        {"message": LOG} | CUT,
    ),
    (
        "follow logs to their end",
        f"'{ALL}/$over_environment_id/logs?follow=true' $as_admin",
        200,
        {"message": LOG, "end": {"reason": str, "status": "terminated"}},
    ),
    (
        "watch files",
        f"'{BUSY}/files/watch?path=/tmp' $as_admin {FOR_A_MOMENT}",
        200,
        {"message": {"kind": "changed", "path": "/tmp/now"}} | CUT,
    ),
]
"""The shape of each event by its name; every name comes."""

REFUSED: list[Row] = [
    ("follow logs without a credential", f"{ONE}/logs?follow=true", 401, refused(401)),
    (
        "follow logs by no ticket",
        f"'{ONE}/logs?follow=true&ticket=nothing'",
        401,
        refused(401, "ticket"),
    ),
    (
        "follow logs of another one by a ticket",
        f"'{ONE}/logs?follow=true&ticket=$new_logs_ticket'",
        403,
        refused(403, "the ticket is not for environment"),
    ),
    (
        "follow logs of none",
        f"'{NONE}/logs?follow=true' $as_admin",
        404,
        refused(404, "no environ"),
    ),
    ("follow somebody else's logs", f"'{ONE}/logs?follow=true' $as_user", 404, refused(404)),
    (
        "follow a tail of -1",
        f"'{ONE}/logs?follow=true&tail=-1' $as_admin",
        400,
        refused(400, "tail", "-1"),
    ),
    (
        "follow logs from nowhere",
        f"'{ONE}/logs?follow=true' $as_admin -H 'Last-Event-ID: x'",
        400,
        refused(400, "Last-Event-ID"),
    ),
    (
        "follow perhaps",
        f"'{ONE}/logs?follow=perhaps' $as_admin",
        400,
        refused(400, "follow"),
    ),
    (
        "watch what is not there",
        f"'{ONE}/files/watch?path=/none' $as_admin",
        404,
        refused(404, "/none"),
    ),
    (
        "read no file",
        f"'{ONE}/files/content?path=/tmp/none' $as_admin",
        404,
        refused(404, "/tmp/none"),
    ),
    ("read a directory", f"'{ONE}/files/content?path=/tmp' $as_admin", 409, refused(409, "/tmp")),
    (
        "read from before the beginning",
        f"'{ONE}/files/content?path=/etc/passwd&offset=-1' $as_admin",
        400,
        refused(400, "offset", "-1"),
    ),
    ("attach without an upgrade", f"{ONE}/attach $as_admin", 426, refused(426, "WebSocket")),
    ("attach without a credential", f"{ONE}/attach $upgrade", 401, refused(401)),
    (
        "attach with nonsense",
        f"'{ONE}/attach?token=nonsense' $upgrade",
        401,
        refused(401),
    ),
    ("attach to none", f"{NONE}/attach $as_admin $upgrade", 404, refused(404, "no environment")),
    ("attach to somebody else's", f"{ONE}/attach $as_user $upgrade", 404, refused(404)),
    (
        "attach to what is over",
        f"{ALL}/$over_environment_id/attach $as_admin $upgrade",
        409,
        refused(409, "is terminated"),
    ),
    (
        "attach to what is paused",
        f"{ALL}/$new_paused_environment_id/attach $as_admin $upgrade",
        409,
        refused(409, "is paused"),
    ),
    (
        "attach to no program",
        f"'{ONE}/attach?command=nothing' $as_admin $upgrade",
        409,
        refused(409, "'nothing'"),
    ),
    (
        "attach in no directory",
        f"'{ONE}/attach?working_dir=/none' $as_admin $upgrade",
        409,
        refused(409, "'/none'"),
    ),
    (
        "attach to a wide terminal",
        f"'{ONE}/attach?cols=5000&rows=0x1' $as_admin $upgrade",
        400,
        refused(400, "rows"),
    ),
    (
        "attach from another page",
        f"{ONE}/attach $as_admin $upgrade -H 'Origin: https://evil.example'",
        403,
        refused(403, "origin"),
    ),
]

OUT = {"type": "stdout", "data": str}
ERR = {"type": "stderr", "data": str}
FAULT = {"type": "error", **refused(400)}
PIPES = "?tty=false&command=cat"

SOCKETS: list[tuple[str, str, list[Any], list[dict[str, Any]]]] = [
    (
        "a shell",
        "?cols=100&rows=30",
        [{"type": "stdin", "data": "exit 3\n"}],
        [OUT, {"type": "exit", "exit_code": 3}],
    ),
    (
        "three pipes",
        "?tty=false&command=sh&command=-c&command=echo%20o;echo%20e%3E%262",
        [],
        [OUT, ERR, {"type": "exit", "exit_code": 0}],
    ),
    (
        "a command that is killed",
        "?command=sleep&command=99",
        [{"type": "signal", "name": "KILL"}],
        [{"type": "exit", "exit_code": 137, "signal": "SIGKILL"}],
    ),
    (
        "a question whether anybody is there",
        PIPES,
        [{"type": "ping"}, {"type": "eof"}],
        [{"type": "pong"}, {"type": "exit", "exit_code": 0}],
    ),
    *(
        (name, PIPES, [frame, {"type": "eof"}], [FAULT, {"type": "exit", "exit_code": 0}])
        for name, frame in {
            "a frame of no type": {"data": "x"},
            "a frame of an unknown type": {"type": "stdout", "data": "x"},
            "a frame with a number for a text": {"type": "stdin", "data": 5},
            "a frame with more in it": {"type": "stdin", "data": "x", "more": 1},
            "a terminal of no size": {"type": "resize", "cols": 0, "rows": 1},
            "a signal there is not": {"type": "signal", "name": "WAVE"},
            "another beginning": {"type": "open"},
            "no JSON": "stdin",
            "a list": "[]",
            "bytes": b"stdin",
        }.items()
    ),
]
"""What is asked for, what is sent, and the shapes of what comes; the last one comes last."""
