"""Signatures, mails, pauses and the watchdog: the pure parts of side work."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest

from abruzzi.kit.backoff import delay_seconds
from abruzzi.kit.settings import Settings
from abruzzi.notifications import mail, webhook
from abruzzi.notifications.errors import BadTarget
from abruzzi.workers.watchdog import Watchdog

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_signature_is_that_of_the_standard_webhooks_specification() -> None:
    """The specification's own example."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = webhook.signature(
        b'{"test": 2432232314}', delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp="1614265330", secret=secret
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_verifies_what_is_sent() -> None:
    secret = webhook.secret("signing key", "subscription1")
    sent = webhook.headers(b"{}", delivery_id="msg_1", secret=secret, now=NOW)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, b"msg_1." + sent["webhook-timestamp"].encode() + b".{}", hashlib.sha256).digest()
    assert sent["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert int(sent["webhook-timestamp"]) == NOW.timestamp()


def test_secrets_differ_by_subscription_and_by_platform() -> None:
    secrets = {webhook.secret(key, subscription) for key in ("a", "b") for subscription in ("x", "y")}
    assert len(secrets) == 4
    assert all(len(base64.b64decode(s.removeprefix("whsec_"))) == 32 for s in secrets)


def test_a_mail_has_the_deliverys_id_and_cannot_be_given_headers() -> None:
    body = json.dumps(
        {
            "timestamp": NOW.isoformat(),
            "data": {"summary": "Run a\r\nBcc: all@example.org\r\n\r\nhas failed", "headline": {"train/loss": 2.5}},
        }
    )
    message = mail.compose(
        body, topic="run.failed", to="team@example.org", delivery_id="msg_1", sender="abruzzi@example.org"
    )
    assert message["Message-ID"] == "<msg_1@abruzzi.example.org>"
    assert message["Bcc"] is None
    assert message["Subject"] == "[Abruzzi] Run a Bcc: all@example.org has failed"
    assert "headline: train/loss 2.5" in message.get_content()


@pytest.mark.parametrize(
    "address", ["", "nobody", "a@b@c", "a b@example.org", "a@example.org\nBcc: x@example.org", "a@-", "<a@example.org>"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadTarget, match="no e-mail address"):
        mail.check_address(address, Settings(smtp_host="mail.example.org"))


def test_without_a_mail_server_no_address_is_accepted() -> None:
    with pytest.raises(BadTarget, match="no mail server") as refused:
        mail.check_address("team@example.org", Settings(smtp_host=None))
    assert "ABRUZZI_SMTP_HOST" in str(refused.value.hint)


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    longest = [delay_seconds(n, first=2.0, most=60.0, random=lambda: 1.0) for n in range(1, 9)]
    shortest = [delay_seconds(n, first=2.0, most=60.0, random=lambda: 0.0) for n in range(1, 9)]
    assert longest == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert shortest == [delay / 2 for delay in longest]
    assert delay_seconds(10_000, first=2.0, most=60.0, random=lambda: 1.0) == 60.0


def test_the_watchdog_barks_when_messages_wait_and_none_is_taken() -> None:
    dog = Watchdog(silent_seconds=60.0, now=0.0)
    assert [dog.is_stuck(3, now) for now in (10.0, 40.0, 70.0, 71.0)] == [False, False, False, True]


@pytest.mark.parametrize("between", ["taken", "empty", "away"])
def test_the_watchdog_is_quiet_when_a_message_is_taken_or_none_waits_or_redis_is_away(between: str) -> None:
    dog = Watchdog(silent_seconds=60.0, now=0.0)
    dog.is_stuck(3, 10.0)
    if between == "taken":
        dog.heard(50.0)
    else:
        dog.is_stuck(0 if between == "empty" else None, 50.0)
    assert not dog.is_stuck(3, 100.0)
