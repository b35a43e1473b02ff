"""Steps of the run itself: waiting, logging, variables, code, other playbooks, reports."""

from __future__ import annotations

from steward_server.playbooks.catalogue.forms import ARTIFACT_NAME, Field, Kind, Need, StepType

_COUNTS = tuple(
    Field(name, Kind.INTEGER, f"How many {meaning}.")
    for name, meaning in (
        ("total", "there were"),
        ("passed", "went well"),
        ("failed", "did not"),
        ("skipped", "were not run"),
    )
)

STEPS = (
    StepType(
        "utility.sleep",
        "Waits.",
        parameters=(
            Field(
                "seconds",
                Kind.NUMBER,
                "How long.",
                default=1,
                unit="s",
                least=0,
                most=86_400,
            ),
        ),
        outputs=(Field("slept", Kind.NUMBER, "How long it was.", unit="s"),),
        is_read_only=True,
        is_repeatable=True,
        misspelt={"duration": "seconds", "timeout": "seconds", "time": "seconds"},
    ),
    StepType(
        "utility.log",
        "Writes a line into the run's events.",
        parameters=(
            Field("message", Kind.STRING, "The line.", required=True, most=10_000),
            Field(
                "level",
                Kind.STRING,
                "How much it matters.",
                default="info",
                choices=("debug", "info", "warning", "error"),
            ),
        ),
        outputs=(
            Field("logged", Kind.STRING, "The line."),
            Field("level", Kind.STRING, "How much it matters."),
        ),
        is_read_only=True,
        is_repeatable=True,
        misspelt={"text": "message", "msg": "message"},
    ),
    StepType(
        "utility.set_variable",
        "Sets a variable for the steps after it.",
        parameters=(
            Field("name", Kind.STRING, "Its name.", required=True, least=1, most=255, literal=True),
            Field("value", Kind.ANY, "Its value.", required=True),
        ),
        outputs=(
            Field("variable", Kind.STRING, "Its name."),
            Field("value", Kind.ANY, "Its value."),
        ),
        is_read_only=True,
        is_repeatable=True,
        misspelt={"variable": "name", "variable_name": "name", "key": "name"},
    ),
    StepType(
        "utility.python",
        "Runs Python in an environment of its own, without a network, if the server allows it. The "
        "code has `inputs`, `set_variable(name, value)` and `get_variable(name, default=None)`. "
        "Lines that it prints with a `=` in them become outputs, and so do the items of a map that "
        "it calls `result`. It may print 100,000 bytes, and give 500,000 in all.",
        parameters=(
            Field("script", Kind.CODE, "The code.", required=True, least=1, most=500_000),
            Field(
                "inputs",
                Kind.MAP,
                "What the code is given, by name.",
                default={},
            ),
        ),
        outputs=(Field("_output", Kind.STRING, "Everything that it printed."),),
        gives_more=True,
        needs=frozenset({Need.ENVIRONMENTS}),
        misspelt={
            "code": "script",
            "source": "script",
            "parameters": "inputs",
            "args": "inputs",
        },
    ),
    StepType(
        "playbook.run",
        "Runs another playbook, and fails if that fails. What stands beside `playbook` are the "
        "parameters it is given.",
        parameters=(
            Field(
                "playbook",
                Kind.FILE,
                "Its path in the library: gateway/health_check.yaml.",
                required=True,
                least=1,
                most=500,
                literal=True,
            ),
            Field(
                "parameters",
                Kind.MAP,
                "Its parameters, for those whose names are taken here.",
                default={},
                item=Field("value", Kind.GIVEN, "A value."),
            ),
        ),
        takes_more=True,
        outputs=(
            Field("playbook", Kind.STRING, "Its path."),
            Field("execution_id", Kind.STRING, "Its run."),
            Field("status", Kind.STRING, "How it ended."),
            Field("steps_executed", Kind.INTEGER, "How many of its steps were run."),
            Field("steps", Kind.LIST, "What came of each."),
            Field("screenshots", Kind.LIST, "The pictures it took."),
        ),
        misspelt={"playbook_path": "playbook", "path": "playbook"},
    ),
    StepType(
        "fat.generate_report",
        "Makes a test report of results.",
        parameters=(
            Field(
                "test_results",
                Kind.MAP,
                "The outputs of perspective.execute_test_manifest.",
                required=True,
            ),
            Field("visual_analysis", Kind.ANY, "What was seen in pictures.", nullable=True),
            Field(
                "metadata",
                Kind.MAP,
                "What stands at its head.",
                default={},
                fields=tuple(
                    Field(name, Kind.STRING, meaning)
                    for name, meaning in (
                        ("project_name", "What was tested."),
                        ("test_date", "When."),
                        ("tester", "By whom."),
                        ("client", "For whom."),
                    )
                ),
            ),
        ),
        outputs=(
            Field("report_id", Kind.STRING, "The report, for fat.export_report."),
            Field("report_path", Kind.STRING, "The artifact's name."),
            *_COUNTS,
        ),
        is_read_only=True,
        is_repeatable=True,
        misspelt={"results": "test_results"},
    ),
    StepType(
        "fat.export_report",
        "Keeps a report with the run, as HTML or, through the browser, as PDF.",
        parameters=(
            Field("report_id", Kind.STRING, "The report.", required=True, least=1, most=255),
            Field(
                "format",
                Kind.STRING,
                "As what.",
                default="html",
                choices=("html", "pdf"),
            ),
            Field(
                "output_path",
                Kind.STRING,
                "What the artifact is called, without folders.",
                shape=ARTIFACT_NAME,
                most=100,
            ),
        ),
        outputs=(
            Field("report_id", Kind.STRING, "The report."),
            Field("format", Kind.STRING, "As what."),
            Field("output_path", Kind.STRING, "The artifact's name."),
        ),
        is_read_only=True,
        is_repeatable=True,
        misspelt={"path": "output_path", "file": "output_path"},
    ),
)
