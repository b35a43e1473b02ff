"""Signatures and secrets of webhooks."""

from __future__ import annotations

import base64

from steward_server.alerts.signing import headers, secret_key, secret_text


def test_a_signature_is_as_the_specification_has_it() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks, verified by its code.
    key = secret_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert key is not None
    signed = headers(
        [key],
        delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1_614_265_330,
        body=b'{"test": 2432232314}',
    )
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_secret_that_is_being_replaced_signs_as_well() -> None:
    both = headers([b"n" * 24, b"o" * 24], delivery_id="m", timestamp_s=1, body=b"")
    new = headers([b"n" * 24], delivery_id="m", timestamp_s=1, body=b"")
    assert both["webhook-signature"].split()[0] == new["webhook-signature"]
    assert len(both["webhook-signature"].split()) == 2


def test_a_secret_is_24_to_64_bytes_in_base64() -> None:
    for size, is_good in ((23, False), (24, True), (64, True), (65, False)):
        text = secret_text(b"k" * size)
        assert (secret_key(text) == b"k" * size) is is_good
    plain = base64.b64encode(b"k" * 32).decode()
    assert [secret_key(text) for text in ("", plain, "whsec_!", f"whsec_{plain}=", "whsec_é")] == [
        None
    ] * 5
