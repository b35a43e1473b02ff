"""Steps in a browser: one page for each run."""

from __future__ import annotations

from steward_server.playbooks.catalogue.forms import (
    ARTIFACT_NAME,
    WEB_ADDRESS,
    Field,
    Kind,
    Need,
    StepType,
)

NEEDS = frozenset({Need.BROWSER})
STATUS = Field("status", Kind.STRING, "How it ended.")
_SELECTOR = Field(
    "selector",
    Kind.STRING,
    "Which element: a CSS or text selector of Playwright, of which there must be one.",
    required=True,
    least=1,
    most=10_000,
)
_SHOWN_SELECTOR = Field("selector", Kind.STRING, "As it was given.")
_DOWNLOADS = Field(
    "downloads",
    Kind.LIST,
    "What it downloaded, by the artifacts' names.",
    item=Field("artifact", Kind.STRING, "One of them."),
)
_MESSAGE = Field("message", Kind.STRING, "What was found, in a sentence.")


def timeout(default: int) -> Field:
    """How long a browser waits, in milliseconds as Playwright has it."""
    return Field(
        "timeout",
        Kind.NUMBER,
        "How long to wait at most.",
        default=default,
        unit="ms",
        least=1,
        most=3_600_000,
    )


STEPS = (
    StepType(
        "browser.navigate",
        "Opens a page.",
        parameters=(
            Field(
                "url", Kind.STRING, "Its address.", required=True, shape=WEB_ADDRESS, most=10_000
            ),
            Field(
                "wait_until",
                Kind.STRING,
                "What to wait for.",
                default="load",
                choices=("load", "domcontentloaded", "networkidle"),
            ),
            timeout(30_000),
        ),
        outputs=(
            Field("url", Kind.STRING, "Where it ended, after redirections."),
            STATUS,
            Field(
                "http_status",
                Kind.INTEGER,
                "The status the server answered with; null if it was a download.",
                nullable=True,
            ),
            _DOWNLOADS,
        ),
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"wait_for": "wait_until", "waitUntil": "wait_until", "path": "url"},
    ),
    StepType(
        "browser.click",
        "Clicks an element.",
        parameters=(
            _SELECTOR,
            timeout(30_000),
            Field(
                "force",
                Kind.BOOLEAN,
                "Whether to click even where it could not be: hidden or covered.",
                default=False,
            ),
        ),
        outputs=(
            _SHOWN_SELECTOR,
            STATUS,
            Field("force", Kind.BOOLEAN, "As it was given."),
            _DOWNLOADS,
        ),
        needs=NEEDS,
    ),
    StepType(
        "browser.fill",
        "Fills a field. What it is filled with is neither shown nor kept.",
        parameters=(
            _SELECTOR,
            Field("value", Kind.STRING, "The text.", required=True, most=1_000_000, secret=True),
            timeout(30_000),
        ),
        outputs=(_SHOWN_SELECTOR, STATUS),
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"text": "value"},
    ),
    StepType(
        "browser.keyboard",
        "Presses a key, on the element that has the focus.",
        parameters=(
            Field(
                "key",
                Kind.STRING,
                'As Playwright names it: "Enter", "Control+A".',
                required=True,
                least=1,
                most=100,
            ),
        ),
        outputs=(Field("key", Kind.STRING, "As it was given."), STATUS, _DOWNLOADS),
        needs=NEEDS,
        misspelt={"keys": "key", "text": "key"},
    ),
    StepType(
        "browser.file_upload",
        "Gives a file to a file field.",
        parameters=(
            _SELECTOR,
            Field(
                "file_path",
                Kind.FILE,
                "The file: in the server's folder of files, or made by the run.",
                required=True,
                least=1,
                most=1_000,
            ),
            timeout(30_000),
        ),
        outputs=(_SHOWN_SELECTOR, Field("file_path", Kind.FILE, "As it was given."), STATUS),
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"file": "file_path", "path": "file_path"},
    ),
    StepType(
        "browser.screenshot",
        "Takes a picture of the page, which is kept with the run.",
        parameters=(
            Field(
                "name",
                Kind.STRING,
                "What the picture is called, without folders; by default the time.",
                shape=ARTIFACT_NAME,
                most=100,
            ),
            Field(
                "full_page",
                Kind.BOOLEAN,
                "Whether to show all of the page, beyond the window.",
                default=False,
            ),
        ),
        outputs=(Field("screenshot", Kind.STRING, "The artifact's name."), STATUS),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"path": "name", "filename": "name", "file": "name"},
    ),
    StepType(
        "browser.wait",
        "Waits until an element is visible.",
        parameters=(_SELECTOR, timeout(30_000)),
        outputs=(_SHOWN_SELECTOR, STATUS),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
    ),
    StepType(
        "browser.verify",
        "Fails unless an element is there, or is not.",
        parameters=(
            _SELECTOR,
            Field("exists", Kind.BOOLEAN, "Whether it is to be there and visible.", default=True),
            timeout(5_000),
        ),
        outputs=(
            _SHOWN_SELECTOR,
            Field("exists", Kind.BOOLEAN, "Whether it was there."),
            Field("expected", Kind.BOOLEAN, "Whether it was to be."),
            STATUS,
            _MESSAGE,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"state": "exists", "condition": "exists"},
    ),
    StepType(
        "browser.verify_text",
        "Fails unless an element has a text.",
        parameters=(
            _SELECTOR,
            Field("text", Kind.STRING, "The text.", required=True, most=100_000),
            Field(
                "match",
                Kind.STRING,
                "How it is compared.",
                default="exact",
                choices=("exact", "contains", "regex"),
            ),
            timeout(5_000),
        ),
        outputs=(
            Field("expected_text", Kind.STRING, "The text that was wanted."),
            Field("actual_text", Kind.STRING, "The text that was there."),
            Field("match_type", Kind.STRING, "How they were compared."),
            STATUS,
            _MESSAGE,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"expected": "text", "expected_text": "text", "match_type": "match"},
    ),
    StepType(
        "browser.verify_attribute",
        "Fails unless an element has an attribute with a value.",
        parameters=(
            _SELECTOR,
            Field("attribute", Kind.STRING, "Its name.", required=True, least=1, most=255),
            Field(
                "value",
                Kind.STRING,
                "Its value; null: the attribute is not to be there.",
                required=True,
                most=100_000,
                nullable=True,
            ),
            timeout(5_000),
        ),
        outputs=(
            Field("attribute", Kind.STRING, "Its name."),
            Field("expected_value", Kind.STRING, "The value that was wanted.", nullable=True),
            Field("actual_value", Kind.STRING, "The value that was there.", nullable=True),
            STATUS,
            _MESSAGE,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"name": "attribute", "expected": "value", "expected_value": "value"},
    ),
    StepType(
        "browser.verify_state",
        "Fails unless an element is in a state.",
        parameters=(
            _SELECTOR,
            Field(
                "state",
                Kind.STRING,
                "The state.",
                required=True,
                choices=("visible", "hidden", "enabled", "disabled"),
            ),
            timeout(5_000),
        ),
        outputs=(
            _SHOWN_SELECTOR,
            Field("expected_state", Kind.STRING, "The state that was wanted."),
            Field("actual_state", Kind.STRING, "The state it was in."),
            STATUS,
            _MESSAGE,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"condition": "state", "expected": "state", "expected_state": "state"},
    ),
    StepType(
        "browser.get_text",
        "Reads an element's text, or what is in a field.",
        parameters=(_SELECTOR, timeout(30_000)),
        outputs=(
            _SHOWN_SELECTOR,
            Field("text", Kind.STRING, "The text, without spaces around it."),
            STATUS,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
    ),
)
