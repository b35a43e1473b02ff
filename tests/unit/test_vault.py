"""The vault: what it seals opens only unchanged, in its place, with its key."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.vault import (
    BadMasterKeyFile,
    MissingKey,
    NotAuthentic,
    Vault,
    VaultError,
    add_key,
)

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
CONTEXT = "provider/ip_1/api_key"
VAULT = Vault({1: OLD})


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def line(version: object, key: bytes) -> str:
    return f"{version} {base64.b64encode(key).decode()}\n"


@given(st.binary(max_size=2_000), st.text(max_size=200))
def test_what_is_sealed_opens_in_its_context(plaintext: bytes, context: str) -> None:
    assert VAULT.open_sealed(VAULT.seal(plaintext, context), context) == plaintext


def test_the_same_value_is_never_sealed_alike() -> None:
    sealed = {VAULT.seal(b"sk-1", CONTEXT) for _ in range(100)}
    assert len(sealed) == 100
    assert len({each[9:21] for each in sealed}) == 100
    assert len({each[69:81] for each in sealed}) == 100


def test_another_context_does_not_open_it() -> None:
    sealed = VAULT.seal(b"sk-1", CONTEXT)
    with pytest.raises(NotAuthentic):
        VAULT.open_sealed(sealed, "provider/ip_2/api_key")


def test_every_single_bit_is_guarded() -> None:
    sealed = VAULT.seal(b"sk-1", CONTEXT)
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(VaultError):
            VAULT.open_sealed(bytes(changed), CONTEXT)


def test_no_cut_and_no_addition_opens() -> None:
    sealed = VAULT.seal(b"sk-1", CONTEXT)
    for length in range(len(sealed)):
        with pytest.raises(NotAuthentic):
            VAULT.open_sealed(sealed[:length], CONTEXT)
    with pytest.raises(NotAuthentic):
        VAULT.open_sealed(sealed + b"\0", CONTEXT)


def test_parts_of_two_values_cannot_be_combined() -> None:
    one, two = VAULT.seal(b"sk-1", CONTEXT), VAULT.seal(b"sk-2", CONTEXT)
    with pytest.raises(NotAuthentic):
        VAULT.open_sealed(one[:69] + two[69:], CONTEXT)


def test_the_newest_key_seals_and_older_ones_open() -> None:
    before = VAULT.seal(b"sk-1", CONTEXT)
    rotated = Vault({1: OLD, 2: NEW})
    after = rotated.seal(b"sk-2", CONTEXT)
    assert rotated.open_sealed(before, CONTEXT) == b"sk-1"
    assert Vault({2: NEW}).open_sealed(after, CONTEXT) == b"sk-2"
    with pytest.raises(MissingKey, match="put the missing key back"):
        VAULT.open_sealed(after, CONTEXT)


def test_another_key_of_the_same_version_is_told_from_a_changed_value() -> None:
    with pytest.raises(MissingKey):
        Vault({1: NEW}).open_sealed(VAULT.seal(b"sk-1", CONTEXT), CONTEXT)


def test_an_unknown_format_is_refused() -> None:
    sealed = VAULT.seal(b"sk-1", CONTEXT)
    with pytest.raises(NotAuthentic, match="format 2"):
        VAULT.open_sealed(b"\x02" + sealed[1:], CONTEXT)


def test_derived_keys_differ_by_purpose_and_by_master_key() -> None:
    assert VAULT.derive("a") == VAULT.derive("a")
    assert len({VAULT.derive("a"), VAULT.derive("b"), Vault({1: NEW}).derive("a"), OLD}) == 4
    assert len(VAULT.derive("a")) == 32


def test_nothing_secret_is_printed() -> None:
    shown = repr(VAULT) + str(VAULT)
    assert "versions=[1]" in shown
    for form in (OLD.hex(), base64.b64encode(OLD).decode(), repr(OLD)):
        assert form not in shown


@pytest.mark.parametrize("keys", [{}, {1: b"short"}, {1: OLD + b"x"}])
def test_a_vault_without_whole_keys_is_none(keys: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(keys)


def test_the_first_start_makes_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    sealed = Vault.open(path, create=True).seal(b"sk-1", CONTEXT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]
    assert Vault.open(path, create=True).open_sealed(sealed, CONTEXT) == b"sk-1"
    assert Vault.open(path, create=False).open_sealed(sealed, CONTEXT) == b"sk-1"


def test_starts_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    derived: list[bytes] = []
    starts = [
        threading.Thread(target=lambda: derived.append(Vault.open(path, create=True).derive("a")))
        for _ in range(16)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(derived) == 16
    assert len(set(derived)) == 1


def test_a_missing_file_is_not_made_where_one_was_promised(tmp_path: Path) -> None:
    with pytest.raises(BadMasterKeyFile, match="restore it"):
        Vault.open(tmp_path / "master.key", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_two_versions_seals_with_the_higher(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "# kept by ann\n\n" + line(2, NEW) + line(1, OLD))
    vault = Vault.open(path, create=False)
    assert vault.derive("a") == Vault({2: NEW}).derive("a")
    assert vault.open_sealed(VAULT.seal(b"sk-1", CONTEXT), CONTEXT) == b"sk-1"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602, 0o601, 0o777])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", line(1, OLD), mode)
    with pytest.raises(BadMasterKeyFile, match="chmod 600"):
        Vault.open(path, create=False)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_file_its_group_may_read_is_accepted(tmp_path: Path, mode: int) -> None:
    Vault.open(write(tmp_path / "keys", line(1, OLD), mode), create=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "1\n",
        base64.b64encode(OLD).decode(),
        line(0, OLD),
        line(-1, OLD),
        line("one", OLD),
        line(2**32, OLD),
        line(1, OLD[:31]),
        line(1, OLD + b"x"),
        line(1, OLD) + line(1, NEW),
        "1 !!!notbase64\n",
        line(1, OLD).strip() + " more\n",
        "1 \u00e9\n",
    ],
)
def test_a_malformed_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "keys", text)
    with pytest.raises(BadMasterKeyFile) as caught:
        Vault.open(path, create=False)
    assert base64.b64encode(OLD).decode()[:20] not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadMasterKeyFile):
        Vault.open(tmp_path, create=False)


def test_a_key_that_is_added_seals_and_older_ones_still_open(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    before = Vault.open(path, create=True)
    sealed = before.seal(b"sk-1", CONTEXT)
    path.chmod(0o640)

    assert add_key(path) == 2
    after = Vault.open(path, create=False)
    assert after.open_sealed(sealed, CONTEXT) == b"sk-1"
    assert after.seals_begin != before.seals_begin
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["master.key"]
    assert add_key(path) == 3


def test_no_key_is_added_to_what_is_no_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(BadMasterKeyFile, match="there is no master key file"):
        add_key(tmp_path / "master.key")
    path = write(tmp_path / "open.key", line(1, OLD), 0o644)
    with pytest.raises(BadMasterKeyFile, match="open to others"):
        add_key(path)
    assert path.read_text() == line(1, OLD)
