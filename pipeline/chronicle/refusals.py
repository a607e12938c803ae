"""Why a service does not let us in: what a broker's or a TLS connection's error asks the operator to correct.

librdkafka fails a call with "transport" or "timed out" and tells the cause (password, mechanism, certificate) beside that call
only, so a broker that refuses us looks like one that is away. Whoever met such an error asks here which of both it is.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

ASK_S = 3.0
"""How long the broker has for an answer to the question whether it lets us in."""
_LOGIN = "correct kafka.sasl_username, kafka.sasl_password or kafka.sasl_mechanism: the broker refuses them"
_TLS = (
    "correct kafka.ssl_ca_location, kafka.bootstrap_servers or kafka.security_protocol: the broker's certificate is not of "
    "this CA, or not for this name"
)
_FIXES = {
    "_AUTHENTICATION": _LOGIN,
    "SASL_AUTHENTICATION_FAILED": _LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _LOGIN,
    "_SSL": _TLS,
    "TOPIC_AUTHORIZATION_FAILED": "grant this user its rights on Chronicle's topics and those of the sources",
    "GROUP_AUTHORIZATION_FAILED": "grant this user READ on the groups that begin with worker.group and with chronicle-",
    "CLUSTER_AUTHORIZATION_FAILED": "grant this user IDEMPOTENT_WRITE on the cluster, or (Kafka 3) WRITE on a topic",
}
"""Kafka's name of an error → what to correct. The rights are in README, under "Secured services"."""
_AWAY = frozenset({"_TRANSPORT", "_TIMED_OUT", "_MSG_TIMED_OUT", "_TIMED_OUT_QUEUE", "_ALL_BROKERS_DOWN", "_RESOLVE"})
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


def refused(error: KafkaError, client_config: Mapping[str, Any], *, about: str = "") -> ConfigError | None:
    """What to correct when an error means that the broker refuses us; None: it means something else.

    Args:
        client_config: of the client that met it. When the error may as well be a broker that is away, and the client is to
            log in or to use TLS, the broker is asked, on a connection of its own, for at most `ASK_S` seconds.
        about: the topic, for the message.
    """
    name = error.name()
    if name in _AWAY:
        return turned_away(client_config)
    return None if name not in _FIXES else _correction(name, about)


def turned_away(client_config: Mapping[str, Any]) -> ConfigError | None:
    """What to correct when the broker does not let this client in; None: it does, it does not answer, or all may enter."""
    from confluent_kafka import KafkaException, Producer

    if client_config.get("security.protocol", "PLAINTEXT").upper() == "PLAINTEXT":
        return None
    told: list[KafkaError] = []
    client = Producer({**client_config, "error_cb": told.append, "log_level": 0})
    end = time.monotonic() + ASK_S
    while time.monotonic() < end:
        try:
            client.list_topics("", timeout=0.3)
            return None
        except KafkaException:
            client.poll(0)
        names = [error.name() for error in told]
        if found := next((name for name in names if name in _FIXES), None):
            return _correction(found, "")
        if "_ALL_BROKERS_DOWN" in names:
            return None
    return None


def certificates(location: Path | str | None, setting: str) -> ssl.SSLContext:
    """What trusts this CA; None: those of the system.

    Raises:
        ConfigError: there is no such file, or there are no certificates in it; names the setting.
    """
    try:
        return ssl.create_default_context(cafile=None if location is None else str(location))
    except (OSError, ssl.SSLError) as error:
        problem = type(error).__name__
        raise ConfigError(f"correct {setting}: {location} is no readable file of certificates ({problem})") from None


def untrusted(error: BaseException, section: str) -> ConfigError | None:
    """What to correct when an HTTPS connection failed for its certificate or because the other side does not speak TLS; None:
    it failed for another reason. `section`: of the settings, with `url` and `ca_location`."""
    text = str(error).upper()
    if _UNTRUSTED in text:
        return ConfigError(
            f"correct {section}.ca_location or {section}.url: the server's certificate is not of this CA, or not for this name"
        )
    if any(word in text for word in _NO_TLS):
        return ConfigError(f"correct {section}.url: it says https, and what answers there does not speak TLS")
    return None


def _correction(name: str, about: str) -> ConfigError:
    return ConfigError(f"{_FIXES[name]} (Kafka: {about and about + ', '}{name})")
