"""Settings: where they come from, and what is refused with a sentence."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

import steward_client
from steward_server.config import BadSetting, ServerConfig
from steward_server.settings import CLIENT_VARIABLES, SECTIONS, Settings, page

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a steward.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(**environ: str) -> str:
    with pytest.raises(BadSetting) as error:
        Settings.read(environ)
    return str(error.value)


def written(folder: Path, text: str | bytes) -> str:
    """A settings file's path."""
    file = folder / "other.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def test_nothing_set_gives_the_defaults() -> None:
    assert Settings.read({}) == Settings()


def test_variables_are_read_by_their_kind() -> None:
    settings = Settings.read(
        {
            "STEWARD_HTTP_PORT": "0",
            "STEWARD_DATA_DIR": "/srv/steward",
            "STEWARD_INSECURE_BIND": "yes",
            "STEWARD_LOCAL_SINGLE_USER": "",
            "STEWARD_ADMIN_PASSWORD": "",
            "STEWARD_STATIC_TOKEN": "007",
            "STEWARD_DRAIN_S": "0.5",
            "STEWARD_BUDGET_DEFAULT_TRANCHE_USD": "0.000000001",
            "STEWARD_EVENTS_QUEUE_EVENTS": "7",
        }
    )
    assert settings.server == ServerConfig(
        http_port=0,
        data_dir=Path("/srv/steward"),
        insecure_bind=True,
        static_token="007",
        drain_s=0.5,
    )
    assert settings.budget.default_tranche_usd == Decimal("0.000000001")
    assert settings.events.queue_events == 7


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(elsewhere: Path) -> None:
    text = "[server]\nhttp_port = 1\ngrpc_port = 2\ninsecure_bind = true\n[budget]\nlease_ttl_s = 5"
    file = written(elsewhere, text)
    settings = Settings.read({"STEWARD_CONFIG": file, "STEWARD_GRPC_PORT": "3"})
    assert (settings.server.http_port, settings.server.grpc_port) == (1, 3)
    assert settings.server.insecure_bind
    assert settings.budget.lease_ttl_s == 5.0
    assert settings.auth == Settings().auth


def test_a_file_in_the_working_directory_is_found(elsewhere: Path) -> None:
    (elsewhere / "steward.toml").write_text("[server]\nhttp_port = 99\n")
    assert Settings.read({}).server.http_port == 99


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("STEWARD_HTTP_PORT", "x", "STEWARD_HTTP_PORT is 'x'; it must be a whole number"),
        ("STEWARD_HTTP_PORT", "", "STEWARD_HTTP_PORT is ''; it must be a whole number"),
        ("STEWARD_HTTP_PORT", "8080.0", "it must be a whole number"),
        ("STEWARD_HTTP_PORT", "-1", "STEWARD_HTTP_PORT is -1; it must be at least 0"),
        ("STEWARD_GRPC_PORT", "65536", "STEWARD_GRPC_PORT is 65536; it must be at most 65535"),
        ("STEWARD_DRAIN_S", "nan", "STEWARD_DRAIN_S is 'nan'; it must be a number"),
        ("STEWARD_DRAIN_S", "inf", "it must be a number"),
        ("STEWARD_DRAIN_S", "-0.1", "it must be at least 0"),
        ("STEWARD_BUDGET_DEFAULT_TRANCHE_USD", "NaN", "it must be a decimal number"),
        ("STEWARD_BUDGET_DEFAULT_TRANCHE_USD", "10$", "it must be a decimal number"),
        ("STEWARD_DATA_DIR", "", "STEWARD_DATA_DIR is ''; it must be a path"),
        ("STEWARD_INSECURE_BIND", "maybe", "STEWARD_INSECURE_BIND is 'maybe'; write 1 or 0"),
        ("STEWARD_LOG_LEVEL", "loud", "it must be one of debug, info, warning, error"),
        ("STEWARD_PROFILE", "test", "it must be one of production, development"),
        ("STEWARD_HTPP_PORT", "1", "no setting STEWARD_HTPP_PORT; did you mean STEWARD_HTTP_PORT?"),
        ("STEWARD_BUDGET_LEASE_TTL", "1", "did you mean STEWARD_BUDGET_LEASE_TTL_S?"),
        ("STEWARD_", "1", "there is no setting STEWARD_;"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, said: str) -> None:
    assert said in refused(**{variable: text})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server", "is not a TOML file"),
        (b"[server]\nhost = '\xff'", "is not a TOML file"),
        ("server = 5", "server is 5 in the file; it must be a table, [server]"),
        ("[sever]", "the file has a table [sever]; there are server, auth"),
        ("[server]\nport = 1", "[server] has no setting 'port'; it has host"),
        ("[server]\nhttp_port = true", "[server] http_port is True; it must be a whole number"),
        ("[server]\nhttp_port = 1.5", "[server] http_port is 1.5; it must be a whole number"),
        ("[server]\ndrain_s = true", "[server] drain_s is True; it must be a number"),
        ("[server]\nhost = 5", "[server] host must be text, in quotes"),
        ("[server]\ndata_dir = []", "[server] data_dir is []; it must be a path"),
    ],
)
def test_a_bad_file_is_told_where(elsewhere: Path, text: str | bytes, said: str) -> None:
    assert said in refused(STEWARD_CONFIG=written(elsewhere, text))


def test_a_missing_file_is_told() -> None:
    assert refused(STEWARD_CONFIG="/nowhere/s.toml").startswith("cannot read /nowhere/s.toml:")


def test_a_password_of_the_wrong_kind_is_not_repeated(elsewhere: Path) -> None:
    said = refused(STEWARD_CONFIG=written(elsewhere, "[server]\nadmin_password = 482216"))
    assert "admin_password" in said
    assert "482216" not in said


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("STEWARD_SERVER", "localhost:50051"),
        ("STEWARD_IC_TOKEN", "ic_x"),
        ("STEWARD_STATE_DIR", "/tmp"),
        ("STEWARD_SERVICE_HOST", "10.0.0.1"),
        ("STEWARD_SERVICE_PORT", "8080"),
        ("STEWARD_SERVICE_PORT_HTTP", "8080"),
        ("STEWARD_PORT", "tcp://10.0.0.1:8080"),
        ("STEWARD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("STEWARD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("STEWARD_GRPC_SERVICE_HOST", "10.0.0.1"),
        ("STEWARDESS", "1"),
        ("PATH", "/bin"),
    ],
)
def test_variables_of_clients_and_of_kubernetes_are_left_alone(variable: str, text: str) -> None:
    assert Settings.read({variable: text}) == Settings()


def test_every_variable_that_the_client_reads_is_left_alone() -> None:
    client = Path(steward_client.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in client.rglob("*.py")]
    read = {name for text in texts for name in re.findall(r"[\"`](STEWARD_[A-Z_]+)", text)}
    # Where `steward image import` and `steward policy import` put what they take.
    servers_own = {"STEWARD_DATA_DIR", "STEWARD_INFERENCE_FOLDER"}
    assert read - servers_own == CLIENT_VARIABLES


def test_every_setting_is_documented() -> None:
    assert DOCUMENTATION.read_text(encoding="utf-8") == page()
    assert [f"## `[{name}]`" in page() for name in SECTIONS] == [True] * len(SECTIONS)
