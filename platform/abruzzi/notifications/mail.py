"""E-mail by SMTP to the operator's server."""

from __future__ import annotations

import json
import re
import smtplib
import ssl
from email.message import EmailMessage

from abruzzi.kit.settings import Settings
from abruzzi.notifications.errors import BadTarget, NotDelivered

TIMEOUT_SECONDS = 10.0
_ADDRESS = re.compile(
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*$"
)


def check_address(address: str, settings: Settings) -> None:
    """Raises BadTarget."""
    if not settings.smtp_host:
        raise BadTarget(
            "This platform sends no e-mail: no mail server is configured.",
            "An operator sets ABRUZZI_SMTP_HOST; a webhook needs no mail server.",
        )
    if len(address) > 254 or not _ADDRESS.match(address):
        raise BadTarget(f"{address[:200]!r} is no e-mail address.", "Give one address, such as team@example.org.")


def compose(body: str, *, topic: str, to: str, delivery_id: str, sender: str) -> EmailMessage:
    """The message's id is the delivery's: a mail that is sent twice is recognised as one."""
    told = json.loads(body)
    facts = {name: value for name, value in told["data"].items() if value is not None}
    message = EmailMessage()
    subject = facts.get("summary") or topic
    message["Subject"] = " ".join(f"[Abruzzi] {subject}".split())
    message["From"], message["To"] = sender, to
    message["Message-ID"] = f"<{delivery_id}@abruzzi.{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        "\n".join(f"{name}: {_text(value)}" for name, value in facts.items()) + f"\n\n{topic}, {told['timestamp']}\n"
    )
    return message


def send(message: EmailMessage, settings: Settings) -> None:
    """Blocking. Raises NotDelivered."""
    host, port = settings.smtp_host or "", settings.smtp_port
    try:
        context = ssl.create_default_context()
        with (
            smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context)
            if settings.smtp_security == "tls"
            else smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        ) as server:
            if settings.smtp_security == "starttls":
                server.starttls(context=context)
            if settings.smtp_user is not None and settings.smtp_password is not None:
                server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"The mail server {host}:{port} did not take the message: {error}") from error


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {number:g}" if isinstance(number, float) else f"{name} {number}" for name, number in value.items()
        )
    return str(value)
