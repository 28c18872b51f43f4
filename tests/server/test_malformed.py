"""A thousand malformed requests, made from the description of the interface: never a fault."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install -e '.[dev]'")
pytestmark = pytest.mark.integration

REQUESTS = 1000


def test_no_request_is_a_fault(app, service):
    from fastapi.testclient import TestClient
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    service.gate.clear()  # what is accepted by chance is not made
    operations = [result.ok() for result in schema.get_all_operations()]
    # Endless by design until a video is finished, or waiting for one: tests of their own.
    waiting = ("/stream", "/events", "/sync")
    operations = [one for one in operations if not one.path.endswith(waiting)]
    assert len(operations) > 15
    # Of a call that takes nothing there is one request only: the others have its share.
    operations.sort(key=lambda one: bool(one.body or one.query or one.path_parameters))
    counts: dict[int, int] = {}
    with TestClient(app, raise_server_exceptions=False) as client:
        for done, operation in enumerate(operations):
            each = -(-(REQUESTS - sum(counts.values())) // (len(operations) - done))
            cases = st.one_of(
                operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
                operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            )

            @seed(0)
            @settings(
                max_examples=each, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=cases)
            def send(case):
                answer = case.call(session=client, base_url="http://testserver")
                counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
                assert answer.status_code < 500 or answer.status_code == 507, answer.text

            send()
    assert sum(counts.values()) >= REQUESTS
    assert counts.get(400, 0) > 100
