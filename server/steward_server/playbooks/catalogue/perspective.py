"""Steps on a Perspective session, in the run's browser page."""

from __future__ import annotations

from steward_server.playbooks.catalogue.browser import NEEDS, STATUS, timeout
from steward_server.playbooks.catalogue.forms import WEB_ADDRESS, Field, Kind, StepType

_TEXT = Field("text", Kind.STRING, "A text.")
_MESSAGE = Field("message", Kind.STRING, "What was found, in a sentence.")
COMPONENT = (
    Field("id", Kind.STRING, "What it is called here."),
    Field("index", Kind.INTEGER, "Which one it is, from 0 on."),
    Field("type", Kind.STRING, "What kind of element."),
    Field("tagName", Kind.STRING, "Its tag."),
    Field("className", Kind.STRING, "Its classes."),
    Field("selector", Kind.STRING, "A selector that finds it."),
    Field("cssPath", Kind.STRING, "Where it is, for CSS."),
    Field("xpath", Kind.STRING, "Where it is, for XPath."),
    Field("text", Kind.STRING, "Its text, up to 200 characters."),
    Field("label", Kind.STRING, "Its label."),
    Field("placeholder", Kind.STRING, "What an empty field shows."),
    Field("title", Kind.STRING, "Its title."),
    Field("ariaLabel", Kind.STRING, "Its label for screen readers."),
    Field("position", Kind.MAP, "x, y, width and height, in pixels."),
    Field("visible", Kind.BOOLEAN, "Whether it can be seen."),
    Field("disabled", Kind.BOOLEAN, "Whether it is disabled."),
    Field("readonly", Kind.BOOLEAN, "Whether it cannot be changed."),
    Field("componentPath", Kind.STRING, "Its path in Perspective."),
    Field("componentId", Kind.STRING, "Its id in Perspective."),
    Field("dataAttributes", Kind.MAP, "Its data attributes."),
)

STEPS = (
    StepType(
        "perspective.discover_page",
        "Lists the components of the page that can be used, those in shadow roots as well.",
        parameters=(
            Field("selector", Kind.STRING, "Where to look.", default="body", least=1, most=10_000),
            Field(
                "types",
                Kind.LIST,
                "Which kinds, such as button or input; none: all of them.",
                default=[],
                item=_TEXT,
                most=100,
            ),
            Field(
                "exclude_selectors",
                Kind.LIST,
                "What to leave out.",
                default=[],
                item=_TEXT,
                most=100,
            ),
        ),
        outputs=(
            STATUS,
            Field("count", Kind.INTEGER, "How many there are."),
            Field(
                "inventory",
                Kind.LIST,
                "The components.",
                item=Field("component", Kind.MAP, "One of them.", fields=COMPONENT),
            ),
            Field("timestamp", Kind.STRING, "When it was looked."),
            Field("root_selector", Kind.STRING, "Where it was looked."),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"root_selector": "selector", "component_types": "types"},
    ),
    StepType(
        "perspective.extract_component_metadata",
        "Says of components how well they can be found again.",
        parameters=(
            Field(
                "components",
                Kind.LIST,
                "The inventory of perspective.discover_page.",
                required=True,
                item=Field("component", Kind.MAP, "One of them."),
            ),
        ),
        outputs=(
            STATUS,
            Field("enriched_inventory", Kind.LIST, "The components, each with its `metadata`."),
            Field("count", Kind.INTEGER, "How many there are."),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"inventory": "components"},
    ),
    StepType(
        "perspective.execute_test_manifest",
        "Uses components one after the other and says what came of each.",
        parameters=(
            Field(
                "manifest",
                Kind.LIST,
                "What to do.",
                required=True,
                most=1_000,
                item=Field(
                    "entry",
                    Kind.MAP,
                    "One test.",
                    fields=(
                        Field("component_id", Kind.STRING, "What it is called in the results."),
                        Field(
                            "action",
                            Kind.STRING,
                            "What to do with it.",
                            required=True,
                            choices=("click", "fill"),
                        ),
                        Field("selector", Kind.STRING, "Which element.", required=True, least=1),
                        Field("value", Kind.STRING, "What to fill it with."),
                        Field("expected", Kind.ANY, "What is to come of it, for the report."),
                    ),
                ),
            ),
            Field(
                "capture_screenshots",
                Kind.BOOLEAN,
                "Whether to take a picture after each.",
                default=True,
            ),
            Field(
                "on_failure",
                Kind.STRING,
                "Whether a test that fails ends the others.",
                default="continue",
                choices=("continue", "abort"),
            ),
            Field(
                "return_to_baseline",
                Kind.BOOLEAN,
                "Whether to open the first page again after each.",
                default=True,
            ),
            Field(
                "baseline_url",
                Kind.STRING,
                "That page; by default the one that is open.",
                shape=WEB_ADDRESS,
                most=10_000,
            ),
        ),
        outputs=(
            STATUS,
            Field("total", Kind.INTEGER, "How many tests there were."),
            Field("passed", Kind.INTEGER, "How many went well."),
            Field("failed", Kind.INTEGER, "How many did not."),
            Field("skipped", Kind.INTEGER, "How many were not run."),
            Field("results", Kind.LIST, "What came of each."),
        ),
        needs=NEEDS,
        misspelt={"tests": "manifest", "test_manifest": "manifest"},
    ),
    StepType(
        "perspective.verify_navigation",
        "Fails unless the page that is open has an address and a title.",
        parameters=(
            Field("expected_url_pattern", Kind.STRING, "What its address has in it.", least=1),
            Field("expected_title_pattern", Kind.STRING, "What its title has in it.", least=1),
            timeout(5_000),
        ),
        outputs=(
            Field("url", Kind.STRING, "The page's address."),
            Field("title", Kind.STRING, "The page's title."),
            STATUS,
            _MESSAGE,
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={
            "expected_url": "expected_url_pattern",
            "url_pattern": "expected_url_pattern",
            "expected_title": "expected_title_pattern",
            "title_pattern": "expected_title_pattern",
        },
    ),
    StepType(
        "perspective.verify_dock_opened",
        "Fails unless a dock is open.",
        parameters=(
            Field("dock_selector", Kind.STRING, "Which dock.", required=True, least=1, most=10_000),
            timeout(3_000),
        ),
        outputs=(STATUS, Field("dock_selector", Kind.STRING, "As it was given."), _MESSAGE),
        is_read_only=True,
        is_repeatable=True,
        needs=NEEDS,
        misspelt={"selector": "dock_selector"},
    ),
)
