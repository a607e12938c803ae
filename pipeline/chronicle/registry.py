"""Schema ids to schema texts, over the registry's Confluent API; what was found once is kept for good."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import httpx

from chronicle import config
from chronicle.errors import ConfigError, Interrupted, StopWorker, TransientError
from chronicle.refusals import certificates, untrusted

ID_MAX = (1 << 31) - 1
"""Registries hand out positive signed 32-bit ids: a larger one is not worth asking for."""
UNKNOWN_KEPT_S = 5.0
"""How long an id that the registry did not know is not asked for again."""
UNKNOWN_KEPT_MAX = 10_000
REFERENCES_DEPTH_MAX = 20


class Registry:
    """A client for one registry. Used from one thread at a time."""

    def __init__(self, settings: config.Registry, stopping: threading.Event | None = None) -> None:
        """`stopping` ends the wait for an unknown id early."""
        auth = None
        if settings.username is not None:
            auth = httpx.BasicAuth(settings.username, settings.password.get_secret_value() if settings.password else "")
        verify = certificates(settings.ca_location, "registry.ca_location") if settings.ca_location else True
        self._http = httpx.Client(base_url=settings.url.rstrip("/"), auth=auth, verify=verify, timeout=settings.timeout_s)
        self._wait_s = settings.unknown_id_wait_s
        self._stopping = stopping or threading.Event()
        self._known: dict[int, str] = {}
        self._unknown: dict[int, float] = {}  # id → until when it is not asked for again

    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        """Schema text per id; None: the registry does not know it, asked repeatedly for `unknown_id_wait_s`.

        Raises:
            TransientError: the registry is away or busy.
            ConfigError: it refuses our credentials, or its certificate is not one to trust.
            Interrupted: asked to stop while waiting for an unknown id.
        """
        now = time.monotonic()
        answer: dict[int, str | None] = {}
        missing: list[int] = []
        for schema_id in set(ids):
            if (text := self._known.get(schema_id)) is not None:
                answer[schema_id] = text
            elif not 0 < schema_id <= ID_MAX or self._unknown.get(schema_id, 0.0) > now:
                answer[schema_id] = None
            else:
                missing.append(schema_id)
        deadline, delay = now + self._wait_s, 0.1
        while missing := [schema_id for schema_id in missing if not self._found(schema_id, answer)]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._stopping.wait(min(left, delay * random.uniform(0.5, 1.0))):  # noqa: S311 (jitter)
                raise Interrupted("stopping while the registry was asked for an unknown schema id")
            delay = min(delay * 2, 1.0)
        if len(self._unknown) > UNKNOWN_KEPT_MAX:
            self._unknown.clear()
        for schema_id in missing:
            answer[schema_id] = None
            self._unknown[schema_id] = time.monotonic() + UNKNOWN_KEPT_S
        return answer

    def check(self) -> None:
        """Ask for something that costs nothing. Raises as `resolve` does."""
        self._get("/subjects")

    def names(self) -> frozenset[str]:
        """All subjects. Raises as `resolve` does."""
        return frozenset(self._get("/subjects") or ())

    def latest(self, subject: str) -> tuple[int, str] | None:
        """Id and text of a subject's newest Avro schema; None: it has none. Raises as `resolve` does."""
        found = self._get(f"/subjects/{quote(subject, safe='')}/versions/latest")
        if found is None or found.get("schemaType", "AVRO") != "AVRO":
            return None
        text = found["schema"]
        if found.get("references"):
            text = self._inlined(text, found["references"], 0)
        return int(found["id"]), text

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def _found(self, schema_id: int, answer: dict[int, str | None]) -> bool:
        found = self._get(f"/schemas/ids/{schema_id}")
        if found is None:
            return False
        text = found["schema"]
        if found.get("references"):
            text = self._inlined(text, found["references"], 0)
        self._known[schema_id] = answer[schema_id] = text
        self._unknown.pop(schema_id, None)
        return True

    def _get(self, path: str) -> Any:
        """The JSON answer, or None for 404."""
        try:
            response = self._http.get(path)
        except httpx.TransportError as error:
            wrong = untrusted(error, "registry")
            raise wrong or TransientError(f"the registry does not answer ({type(error).__name__})") from None
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ConfigError(f"correct registry.username and registry.password: the registry answers {response.status_code}")
        if response.is_error:
            raise TransientError(f"the registry answers {response.status_code}")
        try:
            return response.json()
        except ValueError:
            raise TransientError("the registry's answer is not JSON: is registry.url its Confluent API?") from None

    def _inlined(self, text: str, references: list[dict[str, Any]], depth: int) -> str:
        """Put each referenced named type where its name is first used, so that the text stands alone."""
        if depth > REFERENCES_DEPTH_MAX:
            raise StopWorker(f"schema references are nested deeper than {REFERENCES_DEPTH_MAX}")
        for reference in references:
            found = self._get(f"/subjects/{reference['subject']}/versions/{reference['version']}")
            if found is None:
                raise TransientError("a referenced schema is missing in the registry")
            inner = found["schema"]
            if found.get("references"):
                inner = self._inlined(inner, found["references"], depth + 1)
            # compact JSON first, so that the name is found however the registry spaced it; once: Avro defines a name once
            text = json.dumps(json.loads(text), separators=(",", ":"))
            used = re.compile(r'(?<=[:,\[])"' + re.escape(reference["name"]) + r'"(?=[,\]}])')
            text = used.sub(lambda _match, inner=inner: inner, text, count=1)  # type: ignore[misc]
        return text
