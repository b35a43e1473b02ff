"""IC tokens: text and state."""

from __future__ import annotations

import pytest

from steward_server.tokens.token import Token, TokenStatus, TokenText

TOKEN = Token("token_1", "agent_1", "", "0" * 16, b"", ("budget",), 10, 20)


def test_every_text_is_new_and_has_256_random_bits() -> None:
    texts = [TokenText.new() for _ in range(1_000)]
    assert len({each.text for each in texts}) == 1_000
    assert len({each.public_part for each in texts}) == 1_000
    assert {len(each.text.removeprefix(f"ic_{each.public_part}_")) for each in texts} == {43}


def test_a_text_is_parsed_into_what_made_it() -> None:
    for _ in range(200):  # the secret's alphabet holds "_" and "-"
        made = TokenText.new()
        assert TokenText.parse(made.text) == made


@pytest.mark.parametrize("text", ["", "ic_", "IC_" + "0" * 16 + "_" + "A" * 43, "ic_0_A"])
def test_other_texts_are_not_parsed(text: str) -> None:
    assert TokenText.parse(text) is None


def test_a_newline_at_the_end_is_no_part_of_a_token() -> None:
    assert TokenText.parse(TokenText.new().text + "\n") is None


def test_nothing_secret_is_printed() -> None:
    made = TokenText.new()
    token = TOKEN.rotate(made, 15)
    secret = made.text.removeprefix(f"ic_{made.public_part}_")
    assert secret not in repr(made) + repr(token)
    assert repr(token.digest) not in repr(token)
    assert token.prefix == f"ic_{made.public_part}"


@pytest.mark.parametrize(
    ("now_us", "expires_at_us", "revoked_at_us", "status"),
    [
        (10, None, None, TokenStatus.ACTIVE),
        (10**18, None, None, TokenStatus.ACTIVE),
        (19, 20, None, TokenStatus.ACTIVE),
        (20, 20, None, TokenStatus.EXPIRED),
        (15, 20, 12, TokenStatus.REVOKED),
        (25, 20, 12, TokenStatus.REVOKED),
        (25, 20, 22, TokenStatus.REVOKED),
    ],
)
def test_the_state_follows_from_the_times(
    now_us: int, expires_at_us: int | None, revoked_at_us: int | None, status: TokenStatus
) -> None:
    token = Token(
        "token_1",
        "agent_1",
        "",
        "0" * 16,
        b"",
        ("budget",),
        10,
        expires_at_us,
        revoked_at_us=revoked_at_us,
    )
    assert token.status(now_us) is status


def test_rotation_changes_the_text_alone() -> None:
    made = TokenText.new()
    after = TOKEN.rotate(made, 15)
    assert (after.token_id, after.created_at_us, after.expires_at_us) == ("token_1", 10, 20)
    assert (after.digest, after.rotated_at_us) == (made.digest, 15)
