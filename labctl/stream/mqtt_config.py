"""Where the MQTT broker is, who we are there, and what to look at when it does not let us in."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

import msgspec

from labctl.errors import ConfigError, Problem

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the broker is and who we are.

    url: ``mqtt://host:port`` or, with TLS, ``mqtts://host:port``.
    password_file: its first line is the password; keep it readable to the service alone.
    ca_file: PEM certificates to trust instead of the system's.
    client_id: '' lets the program choose its own stable one. Two clients with one identifier
        throw each other out.
    protocol: ``auto`` asks for MQTT 5 and falls back to 3.1.1.
    timeout_s: for an answer of the broker, in real time.
    session_expiry_s: how long the broker keeps our session while we are away (MQTT 5).

    Raises:
        ValueError: the address is not one.
    """

    url: str = "mqtt://127.0.0.1:1883"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    client_id: str = ""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = 20
    timeout_s: float = 15.0
    session_expiry_s: int = 7 * 86400

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if (
            parts.scheme not in _PORTS
            or not parts.hostname
            or port in (-1, 0)
            or parts.path not in ("", "/")
            or parts.query
            or parts.fragment
        ):
            raise ValueError(f"{self.url!r} is not mqtt://host:port or mqtts://host:port")
        if parts.username or parts.password:
            raise ValueError(
                "write the user into username and the password into a file, not into the url"
            )
        if self.keepalive_s < 1 or self.timeout_s <= 0 or self.session_expiry_s < 0:
            raise ValueError("keepalive_s and timeout_s must be above 0, session_expiry_s at least")

    @property
    def host(self) -> str:
        return cast("str", urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "mqtts"


def explain(config: MqttConfig, error: BaseException) -> str:
    """What went wrong with a broker, where, and what to look at."""
    text = str(error) or type(error).__name__
    lower = text.lower()
    if "unsupported protocol" in lower or "protocol version" in lower:
        hint = "set protocol to auto or 3.1.1"
    elif "user name or password" in lower or "not authorized" in lower:
        hint = "check username, password_file and the broker's list of users"
    elif "identifier" in lower:
        hint = "check client_id: the broker does not accept it"
    elif "certificate" in lower or "ssl" in lower or "tls" in lower:
        hint = "check ca_file, the broker's certificate, and that the port speaks TLS"
    elif "refused" in lower:
        hint = "check that the broker runs and listens there"
    elif "name or service" in lower or "temporary failure" in lower or "nodename" in lower:
        hint = "check the host name and the network"
    elif "timed out" in lower:
        hint = "check the network, the port and any firewall between"
    else:
        hint = "check that the broker runs and that no other client has the same client_id"
    return f"MQTT broker {config.url}: {text}; {hint}"


def read_secrets(config: MqttConfig) -> tuple[str | None, ssl.SSLContext | None]:
    """The password, and what to check the broker's certificate by; None where not asked for.

    Raises:
        ConfigError: a file cannot be read.
    """
    password = None
    if config.password_file:
        try:
            text = Path(config.password_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                [Problem(f"the MQTT password cannot be read: {error}", file=config.password_file)]
            ) from error
        password = text.split("\n", 1)[0].rstrip("\r")
    context = None
    if config.tls:
        try:
            context = ssl.create_default_context(cafile=config.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                [Problem(f"the certificates cannot be read: {error}", file=config.ca_file)]
            ) from error
    return password, context
