"""Steps in the Ignition designer: checked here; they fail at once where there is no driver."""

from __future__ import annotations

from steward_server.playbooks.catalogue.forms import ARTIFACT_NAME, Field, Kind, Need, StepType

_NEEDS = frozenset({Need.DESIGNER})
_STATUS = (Field("status", Kind.STRING, "How it ended."),)
_USERNAME = Field("username", Kind.STRING, "Who signs in.", least=1, most=255)
_PASSWORD = Field("password", Kind.STRING, "Their password.", most=1_000, secret=True)


def _timeout(default: int) -> Field:
    doc = "How long to wait at most."
    return Field("timeout", Kind.NUMBER, doc, default=default, unit="s", least=0.001, most=86_400)


STEPS = (
    StepType(
        "designer.launch",
        "Starts the designer from a launcher file.",
        parameters=(
            Field("launcher_file", Kind.FILE, "The file.", required=True, least=1, most=1_000),
        ),
        outputs=_STATUS,
        needs=_NEEDS,
    ),
    StepType(
        "designer.launch_shortcut",
        "Starts the designer from a shortcut and signs in.",
        parameters=(
            Field("designer_shortcut", Kind.STRING, "Its name.", required=True, least=1, most=255),
            Field("project_name", Kind.STRING, "The project to open.", least=1, most=255),
            Field("gateway_credential", Kind.CREDENTIAL, "The credential to sign in with."),
            _USERNAME,
            _PASSWORD,
            _timeout(60),
        ),
        alternatives=(("gateway_credential",), ("username", "password")),
        must_choose=True,
        outputs=_STATUS,
        needs=_NEEDS,
        misspelt={"shortcut": "designer_shortcut", "credential": "gateway_credential"},
    ),
    StepType(
        "designer.login",
        "Signs in to the designer.",
        parameters=(_USERNAME, _PASSWORD, _timeout(30)),
        alternatives=(("username", "password"),),
        must_choose=True,
        outputs=_STATUS,
        needs=_NEEDS,
    ),
    StepType(
        "designer.open_project",
        "Opens a project.",
        parameters=(
            Field("project_name", Kind.STRING, "Which; by default a person chooses.", least=1),
            _timeout(30),
        ),
        outputs=_STATUS,
        needs=_NEEDS,
    ),
    StepType("designer.close", "Closes the designer.", outputs=_STATUS, needs=_NEEDS),
    StepType(
        "designer.screenshot",
        "Takes a picture of the designer, which is kept with the run.",
        parameters=(
            Field(
                "name",
                Kind.STRING,
                "What the picture is called, without folders; by default the time.",
                shape=ARTIFACT_NAME,
                most=100,
            ),
        ),
        outputs=(Field("screenshot", Kind.STRING, "The artifact's name."), *_STATUS),
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
        misspelt={"path": "name"},
    ),
    StepType(
        "designer.wait",
        "Waits for the designer's window.",
        parameters=(_timeout(30),),
        outputs=_STATUS,
        is_read_only=True,
        is_repeatable=True,
        needs=_NEEDS,
    ),
)
