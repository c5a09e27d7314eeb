"""Traces: which requests are sampled, a buffer that drops and says so, and delivery that is tried and given up."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.adapters.world import SystemRandom
from taut.bootstrap.config import Config
from taut.bootstrap.gateway import trace_settings
from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.serving.tracing import Exporter, RequestSpan, Trace, Tracer, encode_spans, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RESOURCE = {"service.name": "taut-gateway", "service.version": "9"}


def request(number: int = 1, **more: object) -> RequestSpan:
    fields = {
        "trace": Trace(TRACE, SPAN, True), "route": "/v1/predict/{endpoint}", "endpoint": "late",
        "version": "late@1", "request_id": f"req_{number}", "status": 200, "code": "", "start_us": 1_700_000_000_000_000,
        "started_ns": 5_000, "ended_ns": 9_000, "stages": (("guard", 5_000, 6_000), ("model", 6_000, 9_000)),
        **more,
    }  # fmt: skip
    return RequestSpan(**fields)  # type: ignore[arg-type]  # fields of mixed types


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
    ],
)
def test_a_traceparent_is_read(value: str, sampled: bool) -> None:
    assert parse_traceparent(value.encode()) == Trace(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g", f"00_{TRACE}_{SPAN}_01", f"cc-{TRACE}-{SPAN}-01.more",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_as_good_as_none(value: str) -> None:
    assert parse_traceparent(value.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_in_a_traceparent_break_anything(value: bytes) -> None:
    parse_traceparent(value)


class FixedRandom:
    def __init__(self, uniform: float) -> None:
        self._uniform = uniform

    def bytes(self, n: int) -> bytes:
        return b"\xab" * n

    def uniform(self) -> float:
        return self._uniform


def test_the_callers_decision_is_kept_and_the_ratio_decides_where_there_is_none() -> None:
    always, never = Tracer(ratio=1.0, random=FixedRandom(0.5)), Tracer(ratio=0.0, random=FixedRandom(0.0))
    sometimes = Tracer(ratio=0.25, random=FixedRandom(0.2)), Tracer(ratio=0.25, random=FixedRandom(0.3))

    assert always.begin(f"00-{TRACE}-{SPAN}-00".encode()) is None
    assert never.begin(f"00-{TRACE}-{SPAN}-01".encode()) == Trace(TRACE, SPAN, True)
    assert always.begin(None) == Trace("ab" * 16, "", True)
    assert always.begin(b"nonsense") == Trace("ab" * 16, "", True)
    assert never.begin(None) is None
    assert [one.begin(None) is not None for one in sometimes] == [True, False]


def test_a_full_buffer_drops_and_counts() -> None:
    tracer = Tracer(ratio=0.0, random=FixedRandom(0.0), capacity=2)
    for number in range(5):
        tracer.finish(request(number))

    assert [span.request_id for span in tracer.take(10)] == ["req_0", "req_1"]
    assert tracer.reading().dropped == 3 * request().spans == 9
    tracer.finish(request(7))
    assert [span.request_id for span in tracer.take(10)] == ["req_7"]


def test_spans_have_the_form_that_otlp_wants() -> None:
    document = json.loads(encode_spans([request(status=503, code="unavailable")], RESOURCE, SystemRandom()))
    (found,) = document["resourceSpans"]
    own, guard, model = found["scopeSpans"][0]["spans"]

    assert {"key": "service.name", "value": {"stringValue": "taut-gateway"}} in found["resource"][
        "attributes"
    ]
    assert (own["traceId"], own["parentSpanId"], own["kind"], own["status"]) == (TRACE, SPAN, 2, {"code": 2})
    assert own["startTimeUnixNano"] == "1700000000000000000"
    assert own["endTimeUnixNano"] == "1700000000000004000"
    assert {"key": "http.response.status_code", "value": {"intValue": "503"}} in own["attributes"]
    assert {"key": "error.type", "value": {"stringValue": "unavailable"}} in own["attributes"]
    assert [(span["name"], span["parentSpanId"]) for span in (guard, model)] == [
        ("guard", own["spanId"]), ("model", own["spanId"]),
    ]  # fmt: skip
    assert len({span["spanId"] for span in (own, guard, model)}) == 3
    assert guard["endTimeUnixNano"] == model["startTimeUnixNano"] == "1700000000000001000"


def test_the_form_is_that_of_opentelemetrys_own_definition() -> None:
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    from google.protobuf import json_format

    requests = [
        request(number, status=200 + 303 * number, code="unavailable" * number) for number in range(2)
    ]
    document = json.loads(encode_spans(requests, RESOURCE, SystemRandom()))
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):  # OTLP's one departure from protobuf's own JSON
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    read = json_format.ParseDict(document, service.ExportTraceServiceRequest())  # refuses unknown fields

    (found,) = read.resource_spans[0].scope_spans
    assert [span.name for span in found.spans] == ["POST /v1/predict/{endpoint}", "guard", "model"] * 2
    assert {span.trace_id.hex() for span in found.spans} == {TRACE}
    assert [span.status.code for span in found.spans] == [0, 0, 0, 2, 0, 0]
    assert found.spans[0].end_time_unix_nano - found.spans[0].start_time_unix_nano == 4_000


def test_a_trace_that_begins_here_has_no_parent() -> None:
    document = json.loads(encode_spans([request(trace=Trace(TRACE, "", True))], RESOURCE, SystemRandom()))

    assert "parentSpanId" not in document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]


class Collector:
    """A collector that answers as it is told, the last word for ever."""

    def __init__(self, *answers: int | TautError) -> None:
        self._answers = list(answers)
        self.bodies: list[bytes] = []
        self.heard = threading.Event()

    def __call__(self, data: bytes) -> int:
        self.bodies.append(data)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.heard.set()
        if isinstance(answer, TautError):
            raise answer
        return answer


def deliver(
    collector: Collector, count: int, done: Callable[[Tracer], bool]
) -> tuple[Tracer, list[TautError]]:
    tracer, troubles = Tracer(ratio=0.0, random=SystemRandom()), list[TautError]()
    for number in range(count):
        tracer.finish(request(number))
    with Exporter(
        tracer, collector, resource=RESOURCE, random=SystemRandom(), on_trouble=troubles.append, every_s=0.01
    ):
        deadline_s = time.monotonic() + 90
        while not done(tracer):
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
    return tracer, troubles


def test_what_the_collector_takes_is_counted_and_what_it_refuses_too() -> None:
    tracer, troubles = deliver(Collector(2), 1, lambda tracer: tracer.exported > 0)

    assert (tracer.exported, tracer.failed, troubles) == (1, 2, [])


def test_a_collector_that_is_away_is_asked_again_and_its_trouble_said_once() -> None:
    away = Unavailable("away", retry_after_s=0.0)
    collector = Collector(away, 0)
    tracer, troubles = deliver(collector, 300, lambda tracer: tracer.exported == 900)

    assert len(collector.bodies) == 3  # the first twice, then the rest
    assert collector.bodies[0] == collector.bodies[1]
    assert (tracer.failed, troubles) == (0, [away])


def test_a_refusal_for_good_gives_the_batch_up() -> None:
    wrong = InvalidInput("the collector of traces answered 404")
    collector = Collector(wrong)
    tracer, troubles = deliver(collector, 300, lambda tracer: tracer.failed == 900)

    assert (tracer.exported, len(collector.bodies), troubles) == (0, 2, [wrong])


def test_what_waits_at_the_end_is_delivered() -> None:
    tracer, collector = Tracer(ratio=0.0, random=SystemRandom()), Collector(0)
    with Exporter(
        tracer, collector, resource=RESOURCE, random=SystemRandom(), on_trouble=lambda _: None, every_s=60.0
    ):
        tracer.finish(request())

    assert tracer.exported == 3


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"otlp": "localhost:4318"}, "TAUT_OTLP"), ({"otlp": "file:///etc"}, "TAUT_OTLP"),
        ({"otlp": "http://"}, "TAUT_OTLP"), ({"otlp": "http://a?b=c"}, "TAUT_OTLP"),
        ({"otlp": "http://a", "otlp_ratio": "often"}, "TAUT_OTLP_RATIO"),
        ({"otlp": "http://a", "otlp_ratio": "1.5"}, "TAUT_OTLP_RATIO"),
        ({"otlp": "http://a", "otlp_ratio": "nan"}, "TAUT_OTLP_RATIO"),
        ({"otlp": "http://a", "otlp_headers": "secret-key"}, "TAUT_OTLP_HEADERS"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_and_secrets_not_repeated(
    fields: dict[str, str], word: str, tmp_path: object
) -> None:
    with pytest.raises(InvalidInput, match=word) as refused:
        trace_settings(Config(home=tmp_path, **fields))  # type: ignore[arg-type]  # a path
    assert "secret-key" not in str(refused.value)


def test_settings_are_read_and_without_an_address_nothing_is_traced(tmp_path: object) -> None:
    home = {"home": tmp_path}
    assert trace_settings(Config(**home)) is None  # type: ignore[arg-type]  # a path
    made = trace_settings(
        Config(**home, otlp="http://127.0.0.1:4318/", otlp_ratio="0.5", otlp_headers="a=b, c = d=")  # type: ignore[arg-type]
    )
    assert made is not None
    assert (made.url, made.ratio, made.headers) == (
        "http://127.0.0.1:4318/v1/traces", 0.5, {"a": "b", "c": "d="},
    )  # fmt: skip
