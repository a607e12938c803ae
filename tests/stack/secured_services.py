"""Services as a company runs them: a broker with SASL_SSL and ACLs, ClickHouse with users and grants, and TLS before both
ClickHouse and the registry, under a certificate authority of the test's own."""

from __future__ import annotations

import base64
import http.client
import secrets
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chronicle.dev import processes
from chronicle.dev.clickhouse import ClickHouse
from chronicle.dev.java import Kafka
from chronicle.dev.parts import NotHealthyYet, Part
from tests.stack.worker_process import until

MECHANISM = "SCRAM-SHA-512"
_PEM, _PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


class Authority:
    """A certificate authority, and one certificate of it for this machine: `ca`, `certificate`, `key` are PEM files."""

    def __init__(self, directory: Path, name: str) -> None:
        self.ca, self.certificate, self.key = (directory / f"{name}-{part}.pem" for part in ("ca", "server", "key"))
        ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        authority = (
            self._builder(subject, subject, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))])
        server = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), subject, server_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        self.ca.write_bytes(authority.public_bytes(_PEM))
        self.certificate.write_bytes(server.public_bytes(_PEM))
        self.key.write_bytes(server_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _PLAIN))

    @staticmethod
    def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
        )

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        return ssl.create_default_context(cafile=self.ca)

    def server_context(self) -> ssl.SSLContext:
        """For a server on this machine."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class SecuredKafka(Kafka):
    """The broker with a SASL_SSL listener and an authorizer; its plain listener is the test's own, as administrator."""

    authority: ClassVar[Authority]

    @property
    def secure_port(self) -> int:
        return self.site.ports.base + 2

    @property
    def servers(self) -> str:
        """What clients are told."""
        return f"localhost:{self.secure_port}"

    @cached_property  # an answer is lost with the client that asked
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})

    def prepare(self) -> None:
        super().prepare()
        server = self.home / "server.properties"
        pem = self.home / "keystore.pem"
        pem.write_bytes(self.authority.key.read_bytes() + self.authority.certificate.read_bytes())
        lines = [line for line in server.read_text().splitlines() if not line.startswith("listeners=")]
        broker, controller = self.site.ports.of("kafka")
        lines += [
            f"listeners=PLAINTEXT://127.0.0.1:{broker},SASL_SSL://localhost:{self.secure_port},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            f"sasl.enabled.mechanisms={MECHANISM}",
            f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            f"ssl.keystore.type=PEM\nssl.keystore.location={pem}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "allow.everyone.if.no.acl.found=false",
        ]
        server.write_text("\n".join(lines) + "\n")

    def add_user(self, name: str, password: str) -> None:
        """Able to log in; no rights."""
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        asked: list[UserScramCredentialAlteration] = [UserScramCredentialUpsertion(name, how, password.encode())]
        for future in self.admin.alter_user_scram_credentials(asked).values():
            future.result(30)

    def set_topic(self, topic: str, name: str, value: str) -> None:
        """Change a setting of a topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result(30)

    def allow(self, user: str, *rights: Right) -> None:
        """Give rights."""
        bindings = [AclBinding(*right.words(user)) for right in rights]
        for future in self.admin.create_acls(bindings).values():
            future.result(30)

    def forbid(self, user: str, *rights: Right) -> None:
        """Take back rights that were given."""
        filters = [AclBindingFilter(*right.words(user)) for right in rights]
        for future in self.admin.delete_acls(filters).values():
            future.result(30)


@dataclass(frozen=True)
class Right:
    """One operation on a topic, a group or the cluster; a name that ends with `*`: on all that begin so."""

    resource: str
    name: str
    operation: str

    def words(self, user: str) -> tuple[Any, ...]:
        """For the constructor of a binding, or of a filter that finds this one only."""
        kind = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}[self.resource]
        pattern = ResourcePatternType.PREFIXED if self.name.endswith("*") else ResourcePatternType.LITERAL
        operation = AclOperation[self.operation]
        return kind, self.name.removesuffix("*"), pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW


_PROFILE = "<reading><readonly>2</readonly></reading>"
_USER = """<{name}>
      <password>{password}</password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>{profile}</profile><quota>default</quota>
      <grants>{grants}</grants>
    </{name}>
    """


@dataclass(frozen=True)
class User:
    """Of ClickHouse: what it may do, and nothing else."""

    password: str
    grants: tuple[str, ...]
    """`GRANT …` without `TO`."""
    profile: str = "default"
    """`reading`: with `readonly = 2`."""


# as in the configuration that ClickHouse's packages install, which the local stack's own leaves out
_IMPROVEMENTS = """<access_control_improvements>
    <users_without_row_policies_can_read_rows>true</users_without_row_policies_can_read_rows>
    <on_cluster_queries_require_cluster_grant>true</on_cluster_queries_require_cluster_grant>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
"""


class SecuredClickHouse(ClickHouse):
    """A server with users that have nothing but what `users` grants them; `default` is the test's own, as administrator."""

    users: ClassVar[Mapping[str, User]]
    """By name."""

    def prepare(self) -> None:
        super().prepare()
        file = self.home / "users.xml"
        told = "".join(
            _USER.format(
                name=name,
                password=user.password,
                profile=user.profile,
                grants="".join(f"<query>{grant}</query>" for grant in user.grants),
            )
            for name, user in self.users.items()
        )
        text = file.read_text().replace("</users>", f"{told}</users>").replace("</profiles>", f"{_PROFILE}</profiles>")
        file.write_text(text)
        config = self.home / "config.xml"
        config.write_text(config.read_text().replace("</clickhouse>", f"{_IMPROVEMENTS}</clickhouse>"))


def running(part: Part) -> None:
    """Start a part and wait until it does its work."""
    for directory in ("logs", "run"):
        (part.site.directory / directory).mkdir(parents=True, exist_ok=True)
    log = part.site.log_file(part.name)
    part.prepare()
    processes.start(part.owner, part.command(), log)

    def healthy() -> bool:
        identity = processes.read_pid_file(part.owner.pid_file)
        assert identity is not None and processes.is_running(identity), processes.tail(log)
        with suppress(NotHealthyYet):
            part.check()
            return True
        return False

    until(healthy, f"{part.name} answers", 120)


class TlsFront:
    """TLS before a plain server on this machine: what arrives is passed on as it is."""

    def __init__(self, authority: Authority, port: int) -> None:
        self._to, self._context = port, authority.server_context()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or `accept` would go on waiting
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):  # a client that does not trust us goes away within the handshake
            secured = self._context.wrap_socket(client, server_side=True)
            there = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((secured, there), (there, secured)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 18):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class RegistryFront:
    """HTTPS with basic authentication before the registry."""

    def __init__(self, authority: Authority, registry_url: str, user: str, password: str) -> None:
        there = urlsplit(registry_url)
        expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if not secrets.compare_digest(self.headers.get("Authorization", ""), expected):
                    self._answer(401, b"{}", "application/json")
                    return
                connection = http.client.HTTPConnection("127.0.0.1", there.port or 80, timeout=30)
                kept = {name: value for name in ("Content-Type", "Accept") if (value := self.headers.get(name))}
                connection.request(self.command, self.path, body, kept)
                answer = connection.getresponse()
                self._answer(answer.status, answer.read(), answer.headers.get("Content-Type", "application/json"))
                connection.close()

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815  (the library's names)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._server.socket = authority.server_context().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self._server.server_address[1]}{there.path}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: a client that does not trust us goes away within the handshake."""
