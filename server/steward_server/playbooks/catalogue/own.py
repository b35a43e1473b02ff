"""Steward's own steps: machines, minds, money, the web, and a person's word."""

from __future__ import annotations

from steward_server.playbooks.catalogue.forms import WEB_ADDRESS, Field, Kind, Need, StepType

_ENVIRONMENTS = frozenset({Need.ENVIRONMENTS})
_INFERENCE = frozenset({Need.INFERENCE})
_TEXT = Field("text", Kind.STRING, "A text.")
_ENVIRONMENT_ID = Field(
    "environment_id", Kind.STRING, "Which environment.", required=True, least=1, most=255
)
_AGENT_ID = Field(
    "agent_id", Kind.STRING, "Which agent; by default one of this run.", least=1, most=200
)

STEPS = (
    StepType(
        "environment.create",
        "Makes an isolated machine, owned by whoever started the run, and waits until it runs.",
        parameters=(
            Field("image", Kind.STRING, "What it is made of.", required=True, least=1, most=255),
            Field("name", Kind.STRING, "Its name; by default one of this run.", least=1, most=63),
            Field(
                "lifetime",
                Kind.INTEGER,
                "How long it lives at most.",
                default=3_600,
                unit="s",
                least=1,
                most=604_800,
            ),
            Field(
                "idle_timeout",
                Kind.INTEGER,
                "After how long without a command it ends; by default never for that.",
                unit="s",
                least=1,
                most=604_800,
            ),
            Field(
                "env",
                Kind.MAP,
                "Variables of all its commands.",
                default={},
                item=Field("variable", Kind.STRING, "A variable."),
            ),
            Field("labels", Kind.MAP, "Labels of it.", default={}, item=_TEXT, most=64),
            Field(
                "resources",
                Kind.MAP,
                'What it may use at most; by default cpu "500m", memory "512Mi", storage "1Gi".',
                default={},
                fields=(
                    Field("cpu", Kind.STRING, 'Cores: "500m", "1".'),
                    Field("memory", Kind.STRING, 'Memory: "512Mi".'),
                    Field("storage", Kind.STRING, 'Disk: "1Gi".'),
                ),
            ),
            Field(
                "wait",
                Kind.NUMBER,
                "How long to wait until it runs; one that does not by then is deleted.",
                default=60,
                unit="s",
                least=1,
                most=3_600,
            ),
        ),
        outputs=(
            Field("environment_id", Kind.STRING, "The environment."),
            Field("name", Kind.STRING, "Its name."),
            Field("status", Kind.STRING, "running"),
        ),
        # With the run and step as the id of the request, the same one is found again.
        is_repeatable=True,
        needs=_ENVIRONMENTS,
        misspelt={"timeout": "lifetime", "ttl": "lifetime", "ttl_seconds": "lifetime"},
    ),
    StepType(
        "environment.exec",
        "Runs a command in an environment.",
        parameters=(
            _ENVIRONMENT_ID,
            Field(
                "command",
                Kind.LIST,
                "The program and its arguments; no shell reads them.",
                required=True,
                item=_TEXT,
                least=1,
                most=1_000,
            ),
            Field(
                "timeout",
                Kind.INTEGER,
                "After how long it is killed.",
                default=30,
                unit="s",
                least=1,
                most=3_600,
            ),
            Field(
                "env",
                Kind.MAP,
                "Variables beside the environment's own.",
                default={},
                item=Field("variable", Kind.STRING, "A variable."),
            ),
            Field("working_dir", Kind.STRING, "An absolute path; by default the image's."),
            Field("stdin", Kind.STRING, "What it reads.", default="", most=1_000_000),
            Field(
                "must_succeed",
                Kind.BOOLEAN,
                "Whether the step fails if the command does not end with 0.",
                default=True,
            ),
        ),
        outputs=(
            Field("exit_code", Kind.INTEGER, "What it ended with."),
            Field("stdout", Kind.STRING, "What it wrote."),
            Field("stderr", Kind.STRING, "What it complained of."),
            Field("duration_ms", Kind.INTEGER, "How long it ran.", unit="ms"),
            Field("timed_out", Kind.BOOLEAN, "Whether its time was over."),
            Field("truncated", Kind.BOOLEAN, "Whether it wrote more than is kept."),
        ),
        needs=_ENVIRONMENTS,
        misspelt={"cmd": "command", "args": "command", "cwd": "working_dir", "input": "stdin"},
    ),
    StepType(
        "environment.delete",
        "Deletes an environment; one that is gone already is as good.",
        parameters=(
            _ENVIRONMENT_ID,
            Field("force", Kind.BOOLEAN, "Whether to kill what runs in it at once.", default=False),
        ),
        outputs=(Field("environment_id", Kind.STRING, "The environment."),),
        is_repeatable=True,
        needs=_ENVIRONMENTS,
    ),
    StepType(
        "inference.reset",
        "Begins anew with an agent: a policy, and nothing remembered.",
        parameters=(
            _AGENT_ID,
            Field(
                "policy",
                Kind.STRING,
                "Such as cartpole or cartpole@3; by default the agent's, or the server's.",
                least=1,
                most=255,
            ),
            Field(
                "seed",
                Kind.INTEGER,
                "What random draws begin with.",
                least=-(2**63),
                most=2**63 - 1,
            ),
        ),
        outputs=(
            Field("agent_id", Kind.STRING, "The agent."),
            Field("policy", Kind.STRING, "The policy with its version."),
        ),
        is_repeatable=True,
        needs=_INFERENCE,
    ),
    StepType(
        "inference.step",
        "Has an agent's policy decide on an observation.",
        parameters=(
            Field(
                "observation",
                Kind.LIST,
                "As many numbers as the policy takes.",
                required=True,
                item=Field("number", Kind.NUMBER, "A number."),
                least=1,
                most=65_536,
            ),
            _AGENT_ID,
            Field(
                "deterministic",
                Kind.BOOLEAN,
                "Whether to take the likeliest action and not draw one.",
                default=False,
            ),
        ),
        outputs=(
            Field("action", Kind.ANY, "A number, or a list of numbers."),
            Field("value", Kind.NUMBER, "What the policy expects to come."),
            Field("log_prob", Kind.NUMBER, "The logarithm of the action's likelihood."),
            Field("agent_id", Kind.STRING, "The agent."),
            Field("pressure", Kind.NUMBER, "How full its memory is."),
        ),
        needs=_INFERENCE,
        misspelt={"obs": "observation"},
    ),
    StepType(
        "budget.check",
        "Reads what may still be spent, and fails if that is too little.",
        parameters=(
            Field("agent_id", Kind.STRING, "Whose budget.", least=1, most=255),
            Field("project_id", Kind.STRING, "Whose budget.", least=1, most=255),
            Field(
                "at_least_usd",
                Kind.NUMBER,
                "How much must be left, in dollars.",
                default=0,
                least=0,
                most=1e9,
            ),
            Field(
                "must_suffice",
                Kind.BOOLEAN,
                "Whether the step fails if it is not.",
                default=True,
            ),
        ),
        alternatives=(("agent_id",), ("project_id",)),
        must_choose=True,
        outputs=(
            Field("suffices", Kind.BOOLEAN, "Whether that much is left."),
            Field("free_usd", Kind.NUMBER, "What is left; null: no limit.", nullable=True),
            Field("spent_usd", Kind.NUMBER, "What was spent."),
            Field("limit_usd", Kind.NUMBER, "The budget; null: no limit.", nullable=True),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=frozenset({Need.BUDGETS}),
        misspelt={
            "agent": "agent_id",
            "project": "project_id",
            "minimum": "at_least_usd",
            "amount": "at_least_usd",
            "amount_usd": "at_least_usd",
        },
    ),
    StepType(
        "http.request",
        "Sends an HTTP request, and fails if the answer is not as expected, or longer than 1 MiB. "
        "Redirects are followed, five at most, unless their status is expected; no credential, and "
        "no header or body that could have one in it, goes to another host with them. Link-local "
        "addresses, and those of a cloud's metadata, are closed.",
        parameters=(
            Field("url", Kind.STRING, "Where to.", required=True, shape=WEB_ADDRESS, most=10_000),
            Field(
                "method",
                Kind.STRING,
                "What to do.",
                default="GET",
                choices=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            ),
            Field(
                "headers",
                Kind.MAP,
                "Beside those of every request.",
                default={},
                item=_TEXT,
                most=100,
            ),
            Field("body", Kind.STRING, "What is sent, as it is.", most=1_000_000),
            Field("json", Kind.ANY, "What is sent, as JSON."),
            Field("credential", Kind.CREDENTIAL, "Whom to be, by HTTP basic authentication."),
            Field(
                "expected_status",
                Kind.LIST,
                "The statuses that are well; by default 200 to 299.",
                item=Field("status", Kind.INTEGER, "A status.", least=100, most=599),
                least=1,
                most=100,
            ),
            Field(
                "timeout",
                Kind.NUMBER,
                "How long to wait at most.",
                default=30,
                unit="s",
                least=0.001,
                most=3_600,
            ),
        ),
        alternatives=(("body",), ("json",)),
        outputs=(
            Field("status", Kind.INTEGER, "The status."),
            Field("headers", Kind.MAP, "The headers of the answer, in lower case."),
            Field("body", Kind.STRING, "The answer."),
            Field("json", Kind.ANY, "The answer, if it is JSON; else null.", nullable=True),
            Field("duration_ms", Kind.INTEGER, "How long it took.", unit="ms"),
        ),
        needs=frozenset({Need.NETWORK}),
        misspelt={"data": "body", "uri": "url", "expect_status": "expected_status"},
    ),
    StepType(
        "approval.wait",
        "Waits for a person to approve; fails if they reject, or nobody answers in time.",
        parameters=(
            Field(
                "message", Kind.STRING, "What they are asked.", required=True, least=1, most=2_000
            ),
            Field(
                "timeout",
                Kind.NUMBER,
                "How long to wait at most.",
                default=3_600,
                unit="s",
                least=1,
                most=604_800,
            ),
            Field(
                "not_by_starter",
                Kind.BOOLEAN,
                "Whether somebody else than who started the run must approve.",
                default=True,
            ),
        ),
        outputs=(
            Field("approved", Kind.BOOLEAN, "true"),
            Field("by", Kind.STRING, "Who approved."),
            Field("comment", Kind.STRING, "What they said."),
            Field("at", Kind.STRING, "When."),
        ),
        is_read_only=True,
        is_repeatable=True,
        needs=frozenset({Need.PERSON}),
        misspelt={"prompt": "message", "text": "message"},
    ),
)
