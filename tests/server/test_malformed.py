"""A thousand malformed requests, made from the description of the interface: never a fault."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install -e '.[dev]'")
pytestmark = pytest.mark.integration

REQUESTS = 1000
QUICK = 30.0
"""Seconds after which no more are made, on a machine that is busy."""


def test_no_request_is_a_fault(app, service):
    import time

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
    each, counts, began = REQUESTS // len(operations) + 1, {}, time.monotonic()
    with TestClient(app, raise_server_exceptions=False) as client:
        for operation in operations:
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
            if time.monotonic() - began > QUICK * 4:
                break
    assert sum(counts.values()) >= REQUESTS // 2
    assert counts.get(400, 0) > 100
