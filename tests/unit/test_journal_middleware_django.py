"""Django, synchronous and asynchronous: in a process of its own, since Django's settings are a process's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROJECT = """
import asyncio, json, sys
import django
from django.conf import settings
settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], DEBUG=False,
    MIDDLEWARE=["__main__.middleware"], LOGGING_CONFIG=None,
)
django.setup()
from django.http import Http404, HttpResponse, HttpResponseForbidden
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.http import require_GET
from chronicle.journal import Journal, current
from chronicle.journal.middleware import django as journal_django
from chronicle.journal.transports.memory import Memory

memory = Memory()
journal = Journal(source="shop", transport=memory)

def actor(request):
    return request.headers.get("x-user")

async def slow_actor(request):
    await asyncio.sleep(0)
    return actor(request)

ASYNCHRONOUS = sys.argv[1] == "async"
middleware = journal_django.middleware(
    journal=journal, events=True, actor=slow_actor if ASYNCHRONOUS else actor, tags=lambda request: {"session": "s-1", "n": 1}
)

def order(request, order_id):
    journal.publish("order.read", resource=("order", order_id))
    return HttpResponse(b"x")

async def slow_order(request, order_id):
    await asyncio.sleep(0)
    return order(request, order_id)

def missing(request):
    raise Http404

def broken(request):
    raise RuntimeError("Zq7XvKp92LmW")

urlpatterns = [
    path("orders/<int:order_id>/", slow_order if ASYNCHRONOUS else order),
    path("reset/<str:token>/", lambda request, token: HttpResponse()),
    path("missing/", missing), path("broken/", broken), path("only/", require_GET(lambda request: HttpResponse())),
    path("forbidden/", lambda request: HttpResponseForbidden()),
]
ASKED = [
    ("GET", "/orders/7/?page=2&q=Zq7XvKp92LmW"), ("GET", "/nowhere/"), ("GET", "/missing/"), ("GET", "/broken/"),
    ("POST", "/only/"), ("GET", "/reset/Zq7XvKp92LmW/"), ("GET", "/forbidden/"),
]
HEADERS = {"x-user": "ann", "x-request-id": "r-1", "cookie": "session=Zq7XvKp92LmW", "authorization": "Basic Zq7XvKp92LmW"}
answers = []

def note(response):
    answers.append([response.status_code, response.headers["X-Request-ID"]])

def ask():
    client = Client(raise_request_exception=False)
    for method, url in ASKED:
        note(client.generic(method, url, headers=HEADERS))

async def aask():
    client = AsyncClient(raise_request_exception=False)
    for method, url in ASKED:
        note(await client.generic(method, url, headers=HEADERS))

if ASYNCHRONOUS:
    asyncio.run(aask())
else:
    ask()
assert current() == {}
journal.close()
print(json.dumps({"answers": answers, "events": [json.loads(out.text) for out in memory.sent]}))
"""


@pytest.fixture(scope="module", params=["sync", "async"])
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the project answered and published."""
    run = subprocess.run([sys.executable, "-c", PROJECT, request.param], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def kinds(seen: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (one["type"], one["payload"].get("status"), one["payload"].get("route"))
        for one in seen["events"]
        if "http" in one["type"]
    ]


def test_everything_in_a_request_has_its_context(seen: dict[str, Any]) -> None:
    """Views and events alike; the answer says the request's id."""
    assert seen["answers"] == [[status, "r-1"] for status in (200, 404, 404, 500, 405, 200, 403)]
    assert len(seen["events"]) == 15
    for event in seen["events"]:
        who = event["actor"] if isinstance(event["actor"], str) else event["actor"]["id"]
        assert (who, event["request_id"], event["ip"], event["session"], event["tags"]) == (
            "ann",
            "r-1",
            "127.0.0.1",
            "s-1",
            {"n": 1},
        )
    [order] = [event for event in seen["events"] if event["type"] == "order.read"]
    assert order["resource_id"] == "7"


def test_each_answer_is_told(seen: dict[str, Any]) -> None:
    """A view's own 404 is an answer; a path that no pattern fits is an unknown route."""
    assert [one for one in kinds(seen) if one[0] != "http.request.received"] == [
        ("http.response.sent", 200, "/orders/<int:order_id>/"),
        ("http.route.not_found", None, None),
        ("http.response.sent", 404, "/missing/"),
        ("http.response.sent", 500, "/broken/"),
        ("http.method.not_allowed", None, "/only/"),
        ("http.response.sent", 200, "/reset/<str:token>/"),
        ("http.response.sent", 403, "/forbidden/"),
    ]
    outcomes = [event["outcome"] for event in seen["events"] if event["type"].startswith(("http.res", "http.rou", "http.met"))]
    assert outcomes == ["success", "failure", "failure", "failure", "failure", "success", "failure"]


def test_nothing_secret_of_a_request_is_in_its_events(seen: dict[str, Any]) -> None:
    """Query, cookie, authorization, an exception's text, the token in a path; the query's names are."""
    assert "Zq7XvKp92LmW" not in json.dumps(seen["events"])
    assert seen["events"][0]["payload"]["query_names"] == ["page", "q"]
    assert seen["events"][0]["payload"]["path"] == "/orders/7/"
