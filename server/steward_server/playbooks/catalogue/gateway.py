"""Steps on an Ignition gateway, over its web interface."""

from __future__ import annotations

from steward_server.playbooks.catalogue.forms import Field, Kind, Need, StepType

_NEEDS = frozenset({Need.GATEWAY})
_STATUS = Field("status", Kind.STRING, "How it ended.")
_MODULE_NAME = Field(
    "module_name", Kind.STRING, "The module's name, or its id.", required=True, least=1, most=255
)
_MODULE = (
    Field("id", Kind.STRING, "Its id, such as com.example.module."),
    Field("name", Kind.STRING, "Its name."),
    Field("version", Kind.STRING, "Its version."),
    Field(
        "state",
        Kind.STRING,
        "`running`, `pending` (it waits for a restart), `disabled`, `faulted`, `quarantined`, or "
        "another that the gateway tells.",
    ),
    Field("description", Kind.STRING, "What it is for."),
    Field("license_required", Kind.BOOLEAN, "Whether it needs a licence."),
)
_PROJECT = (
    Field("name", Kind.STRING, "Its name."),
    Field("title", Kind.STRING, "Its title."),
    Field("enabled", Kind.BOOLEAN, "Whether it is enabled."),
    Field("description", Kind.STRING, "What it is for."),
    Field("parent", Kind.STRING, "The project it inherits from; empty without one."),
    Field("version", Kind.STRING, "Its version; empty where the gateway tells none."),
)


def _timeout(default: int) -> Field:
    doc = "How long to wait at most."
    return Field("timeout", Kind.NUMBER, doc, default=default, unit="s", least=0.001, most=86_400)


STEPS = (
    StepType(
        "gateway.login",
        "Signs in to the gateway: with a credential, a name and a password, or neither, which is "
        "the run's own credential. The steps after it do what they do as whoever signed in.",
        parameters=(
            Field("credential", Kind.CREDENTIAL, "The credential to sign in with."),
            Field("username", Kind.STRING, "Who signs in.", least=1, most=255),
            Field("password", Kind.STRING, "Their password.", most=1_000, secret=True),
            Field(
                "method",
                Kind.STRING,
                "Whether that is a person's name and password, which the gateway itself has to "
                "know, or the name of one of its API keys and the key.",
                default="password",
                choices=("password", "api_key"),
            ),
        ),
        alternatives=(("credential",), ("username", "password")),
        outputs=(_STATUS, Field("username", Kind.STRING, "Who signed in.")),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
        misspelt={
            "user": "username",
            "pass": "password",
            "credential_name": "credential",
            "gateway_credential": "credential",
        },
    ),
    StepType(
        "gateway.logout",
        "Signs out.",
        outputs=(_STATUS,),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.ping",
        "Asks the gateway for a sign of life; fails if there is none.",
        outputs=(
            _STATUS,
            Field("response", Kind.BOOLEAN, "Whether it answered: true."),
            Field("duration_ms", Kind.INTEGER, "How long that took.", unit="ms"),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.get_info",
        "Reads what the gateway says of itself.",
        outputs=(
            Field(
                "info",
                Kind.MAP,
                "The gateway.",
                fields=(
                    Field("name", Kind.STRING, "Its name."),
                    Field("version", Kind.STRING, "Of Ignition."),
                    Field("platform_version", Kind.STRING, "The same, with its build."),
                    Field("edition", Kind.STRING, "Such as standard, edge or maker."),
                    Field("license_key", Kind.STRING, "Its licence, or the kind of it."),
                    Field("uptime_seconds", Kind.NUMBER, "Since its start.", unit="s"),
                ),
            ),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.get_health",
        "Reads how the gateway is. The numbers are null while it starts.",
        parameters=(
            Field(
                "must_be_healthy",
                Kind.BOOLEAN,
                "Whether the step fails if the gateway is not healthy.",
                default=False,
            ),
        ),
        outputs=(
            Field(
                "health",
                Kind.MAP,
                "Its health.",
                fields=(
                    Field("healthy", Kind.BOOLEAN, "Whether it says it is."),
                    Field(
                        "uptime_seconds", Kind.NUMBER, "Since its start.", unit="s", nullable=True
                    ),
                    Field("thread_count", Kind.INTEGER, "Threads it has.", nullable=True),
                    Field(
                        "memory_used_mb",
                        Kind.NUMBER,
                        "Memory in use, in megabytes.",
                        nullable=True,
                    ),
                    Field(
                        "memory_max_mb",
                        Kind.NUMBER,
                        "Memory there is, in megabytes.",
                        nullable=True,
                    ),
                ),
            ),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.list_modules",
        "Lists the modules that are installed.",
        outputs=(
            Field(
                "modules",
                Kind.LIST,
                "The modules.",
                item=Field("module", Kind.MAP, "One of them.", fields=_MODULE),
            ),
            Field("count", Kind.INTEGER, "How many there are."),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.upload_module",
        "Uploads a module and has it installed; mostly it runs after a restart of the gateway.",
        parameters=(
            Field(
                "file",
                Kind.FILE,
                "The module, a .modl file: in the server's folder of files, or made by the run.",
                required=True,
                least=1,
                most=1_000,
            ),
            Field(
                "accept_terms",
                Kind.BOOLEAN,
                "Whether to accept the module's certificate and its licence for this gateway, "
                "where that was not done before; else the step fails.",
                default=False,
            ),
        ),
        outputs=(Field("module_id", Kind.STRING, "The id by which the gateway knows it."),),
        needs=_NEEDS,
        misspelt={
            "file_path": "file",
            "module_path": "file",
            "module_file": "file",
            "path": "file",
        },
    ),
    StepType(
        "gateway.wait_for_module_installation",
        "Waits until a module runs; fails if it faults, or waits for a restart of the gateway.",
        parameters=(_MODULE_NAME, _timeout(300)),
        outputs=(_STATUS, Field("module_name", Kind.STRING, "The module that was waited for.")),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
        misspelt={"name": "module_name", "module": "module_name", "module_id": "module_name"},
    ),
    StepType(
        "gateway.list_projects",
        "Lists the gateway's projects.",
        outputs=(
            Field(
                "projects",
                Kind.LIST,
                "The projects.",
                item=Field("project", Kind.MAP, "One of them.", fields=_PROJECT),
            ),
            Field("count", Kind.INTEGER, "How many there are."),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
    StepType(
        "gateway.get_project",
        "Reads one project; fails if it is not there.",
        parameters=(
            Field("project_name", Kind.STRING, "Its name.", required=True, least=1, most=255),
        ),
        outputs=(Field("project", Kind.MAP, "The project.", fields=_PROJECT),),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
        misspelt={"name": "project_name", "project": "project_name"},
    ),
    StepType(
        "gateway.restart",
        "Restarts the gateway; fails if it refuses.",
        parameters=(
            Field(
                "wait_for_ready",
                Kind.BOOLEAN,
                "Whether to wait until it is back.",
                default=False,
            ),
            _timeout(120),
        ),
        outputs=(_STATUS,),
        needs=_NEEDS,
    ),
    StepType(
        "gateway.wait_for_ready",
        "Waits until the gateway runs and answers; signs in again if that was so before.",
        parameters=(_timeout(120),),
        outputs=(_STATUS,),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
)
