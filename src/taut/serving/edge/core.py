"""One request at the edge from bytes to answer: the data plane's protocols, decoders and response gate, and one model.

callers' token → decode by the signature → model → response gate → the cloud where unsure → count → answer
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from taut.core.edge import Counts
from taut.core.errors import Exhausted, NotFound, TautError, Unauthenticated
from taut.serving.edge.bundle import Bundle
from taut.serving.edge.cascade import Cloud, CloudAnswer
from taut.serving.edge.counting import Counting
from taut.serving.edge.inputs import Inputs
from taut.serving.edge.state import EdgeState
from taut.serving.errors import Internal, Malformed, MethodNotAllowed, UnsupportedEncoding
from taut.serving.gateway.answers import predictions
from taut.serving.gateway.headers import single_headers, whole_number
from taut.serving.gateway.ids import RequestIds
from taut.serving.gateway.replies import JSON, Headers, Pending, Reply, Statuses, encode_json, ok, refusal
from taut.serving.gateway.tensors import TensorDecoder, label_datatype, metadata, output_names, output_tensors
from taut.serving.runtime import LoadedModel, Outputs, RowDecoder
from taut.serving.runtime.rows import Value

MAX_BODY_BYTES: Final = 8 * 2**20
MAX_ROWS: Final = 10_000
INLINE_US: Final = 2000.0
"""A batch that costs more is scored on a thread, so that others are answered meanwhile."""
_IN_FLIGHT: Final = 256
_DEADLINE_MS_MAX: Final = 600_000
Rows = Sequence[Sequence[Value]]


class EdgeWorld(NamedTuple):
    """What would otherwise be ambient. log_failure: hears of failures that are ours."""

    now_us: Callable[[], int]
    counter_ns: Callable[[], int]
    ids: RequestIds
    statuses: Statuses
    log_failure: Callable[[str, BaseException], None]
    version: str


class _Request(NamedTuple):
    """A decoded request. id, outputs: of the v2 protocol. within_s: what the caller waits for at most."""

    kind: str
    rows: Rows
    id: str | None
    outputs: tuple[str, ...] | None
    within_s: float | None


class EdgeGateway:
    """Answers requests with the model of a bundle. One event loop owns it.

    token: what callers must show; None asks for nothing, which is for loopback only. state, inputs, cloud: None for none.
    """

    def __init__(
        self, bundle: Bundle, model: LoadedModel, world: EdgeWorld, *, token: str | None = None,
        state: EdgeState | None = None, inputs: Inputs | None = None, cloud: Cloud | None = None,
        trouble: Callable[[], list[str]] | None = None,
    ) -> None:  # fmt: skip
        contents, signature = bundle.contents, bundle.signature
        name, number = contents.model, contents.version.rpartition("@")[2]
        self._bundle: Final = bundle
        self._model: Final = model
        self._world: Final = world
        self._token: Final = None if token is None else token.encode()
        self._state: Final = state
        self._inputs: Final = inputs
        self._cloud: Final = cloud
        self._trouble: Final = trouble or list
        self._number: Final = number
        self._names: Final = [column.name for column in signature.request]
        self._rows: Final = RowDecoder(signature.request, max_rows=MAX_ROWS)
        timed = signature.event_time is not None
        self._tensors: Final = TensorDecoder(
            signature.request[:-1] if timed else signature.request, optional=signature.request[-1] if timed else None,
            outputs=output_names(signature), max_rows=MAX_ROWS,
        )  # fmt: skip
        self._label_type: Final = label_datatype(signature)
        self._counting: Final = Counting(signature, contents.ranges)
        models = (f"/v2/models/{name}", f"/v2/models/{name}/versions/{number}")
        self._routes: Final = {f"/v1/predict/{name}": "v1", **{f"{path}/infer": "v2" for path in models}}
        self._about: Final = models
        self._head: Final = (
            f"taut-model-version: {contents.version}\r\ntaut-release: {bundle.id}\r\ntaut-policy-epoch: 0\r\n"
            "taut-cache: off\r\n"
        ).encode("ascii")
        self._in_flight = 0

    @property
    def max_body_bytes(self) -> int:
        return MAX_BODY_BYTES

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        """Answer one request; a coroutine where that takes waiting. Never raises."""
        now_us = self._world.now_us()
        request_id = self._world.ids.next(now_us)
        kind = self._routes.get(path) if method == "POST" else None
        try:
            found = single_headers(headers)
            if kind is None:
                return self._page(method, path, found, request_id)
            self._identify(found)
            start_ns = self._world.counter_ns()
            request = self._decode(kind, found, body)
            cost = self._model.cost
            if self._cloud is None and (cost is None or cost.us(len(request.rows)) <= INLINE_US):
                own = self._model.infer(self._columns(request.rows))
                return self._conclude(request, request_id, own, own, {}, None, 0, start_ns)
            return self._later(request, request_id, start_ns)
        except TautError as error:
            return self._refused(error, request_id, counted=kind is not None)
        except Exception as error:  # noqa: BLE001 - whatever fails in us must not show a stack trace to a caller
            return self._failed(error, request_id)

    def turn_away(self, method: str, path: str, headers: Headers) -> Reply | None:
        """Refuse a stranger, or what is for no model, before its body is read; None for all others."""
        try:
            if method == "POST" and path in self._routes:
                self._identify(single_headers(headers))
                return None
        except TautError as error:
            return self.refuse(error, close=True)
        found = self.answer(method, path, headers, b"")
        return found._replace(close=True) if isinstance(found, Reply) else None

    def refuse(self, error: TautError, *, close: bool) -> Reply:
        """Return the answer to a request that did not get as far as `answer`: too large, malformed, too slow."""
        return self._refused(error, self._world.ids.next(self._world.now_us()), counted=True, close=close)

    def reasons(self) -> list[str]:
        """Return what is not as it should be, though the model answers: shown as `degraded`."""
        found = self._trouble()
        if self._state is not None and self._state.faults:
            found.append(f"counts could not be written {self._state.faults} times: free some space")
        if self._cloud is not None and self._cloud.breaker.state != "closed":
            found.append(f"the cloud is left alone: {self._cloud.breaker.why}")
        return found

    def _identify(self, headers: Mapping[bytes, bytes]) -> None:
        if self._token is None:
            return
        given = headers.get(b"authorization")
        if given is None:
            raise Unauthenticated("no identity came with the request: send Authorization: Bearer TOKEN")
        scheme, _, rest = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(rest.strip(), self._token):
            raise Unauthenticated("the token is not the one of this runner: send Authorization: Bearer TOKEN")

    def _decode(self, kind: str, headers: Mapping[bytes, bytes], body: bytes) -> _Request:
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding != b"identity":
            raise UnsupportedEncoding("compressed bodies are not read at the edge: send it as it is")
        if b"inference-header-content-length" in headers:
            raise Malformed("raw tensors are not read at the edge: send JSON")
        deadline, within_s = headers.get(b"taut-deadline-ms"), None
        if deadline is not None:
            within_s = whole_number(b"taut-deadline-ms", deadline, 1, _DEADLINE_MS_MAX) / 1000
        if kind == "v1":
            return _Request(kind, self._rows.decode(body), None, None, within_s)
        request = self._tensors.decode(body)
        if request.binary:
            raise Malformed("raw outputs are not given at the edge: ask for JSON")
        return _Request(kind, request.batch.rows, request.id, request.outputs, within_s)

    def _columns(self, rows: Rows) -> dict[str, Sequence[Value]]:
        return dict(zip(self._names, zip(*rows, strict=True), strict=True))

    async def _later(self, request: _Request, request_id: str, start_ns: int) -> Reply:
        try:
            if self._in_flight >= _IN_FLIGHT:
                raise Exhausted(f"{_IN_FLIGHT} requests are under way here: try again shortly")
            self._in_flight += 1
            try:
                return await self._asked(request, request_id, start_ns)
            finally:
                self._in_flight -= 1
        except TautError as error:
            return self._refused(error, request_id, counted=True)
        except Exception as error:  # noqa: BLE001 - as in `answer`
            return self._failed(error, request_id)

    async def _asked(self, request: _Request, request_id: str, start_ns: int) -> Reply:
        cost, rows = self._model.cost, request.rows
        if cost is None or cost.us(len(rows)) > INLINE_US:
            own = await asyncio.to_thread(self._model.infer, self._columns(rows))
        else:
            own = self._model.infer(self._columns(rows))
        unsure = [] if self._cloud is None else self._cloud.unsure(own.probabilities)
        if not unsure or self._cloud is None:
            return self._conclude(request, request_id, own, own, {}, None, 0, start_ns)
        left_s = request.within_s
        if left_s is not None:
            left_s -= (self._world.counter_ns() - start_ns) / 1e9
        found = await self._cloud.ask([rows[at] for at in unsure], within_s=left_s)
        if found is None:
            return self._conclude(request, request_id, own, own, {}, None, len(unsure), start_ns)
        by_cloud = {at: place for place, at in enumerate(unsure)}
        labels = [
            found.labels[by_cloud[at]] if at in by_cloud else label for at, label in enumerate(own.labels)
        ]
        probabilities = [
            found.probabilities[by_cloud[at]] if at in by_cloud else row
            for at, row in enumerate(own.probabilities)
        ]
        given = Outputs(labels=labels, probabilities=probabilities)
        return self._conclude(request, request_id, own, given, by_cloud, found, 0, start_ns)

    def _conclude(
        self, request: _Request, request_id: str, own: Outputs, given: Outputs, by_cloud: Mapping[int, int],
        cloud: CloudAnswer | None, fallback: int, start_ns: int,
    ) -> Reply:  # fmt: skip
        """Count, then build the answer."""
        count = len(request.rows)
        self._count(
            self._counting.answered(
                request.rows, own, given, cloud=len(by_cloud), fallback=fallback,
                took_ns=self._world.counter_ns() - start_ns,
            )
        )  # fmt: skip
        if self._inputs is not None:
            self._inputs.keep(request_id, [dict(zip(self._names, row, strict=True)) for row in request.rows])
        by = "edge" if not by_cloud else "cloud" if len(by_cloud) == count else "mixed"
        head = b"%b%btaut-request-id: %b\r\ntaut-answered-by: %b\r\n" % (
            JSON, self._head, request_id.encode(), by.encode(),
        )  # fmt: skip
        if fallback:
            head += b"taut-fallback: edge\r\n"
        document = self._document(request, request_id, given, by_cloud, by)
        if cloud is not None:
            document["cloud"] = {"model_version": cloud.version, "request_id": cloud.request_id}
        return Reply(200, head, encode_json(document))

    def _document(
        self, request: _Request, request_id: str, given: Outputs, by_cloud: Mapping[int, int], by: str
    ) -> dict[str, Any]:
        bundle, signature = self._bundle, self._bundle.signature
        if request.kind == "v2":
            tensors = output_tensors(signature, given, self._label_type, request.outputs)
            told = {"model_name": bundle.contents.model, "model_version": self._number, "outputs": tensors}
            return {
                **told,
                "parameters": {"answered_by": by},
                **({} if request.id is None else {"id": request.id}),
            }
        rows = [
            {**row, "answered_by": "cloud" if at in by_cloud else "edge"}
            for at, row in enumerate(map(msgspec.structs.asdict, predictions(signature, given)))
        ]
        return {
            "predictions": rows, "request_id": request_id, "model_version": bundle.contents.version,
            "release": bundle.id, "answered_by": by,
        }  # fmt: skip

    def _count(self, counts: Counts) -> None:
        if self._state is not None:
            self._state.count(counts, self._world.now_us())

    def _refused(self, error: TautError, request_id: str, *, counted: bool, close: bool = False) -> Reply:
        if counted:
            self._count(Counts(errors={error.code: 1}))
        return refusal(error, statuses=self._world.statuses, request_id=request_id, epoch=0, close=close)

    def _failed(self, error: BaseException, request_id: str) -> Reply:
        self._world.log_failure(request_id, error)
        return self._refused(Internal(), request_id, counted=True)

    def _page(self, method: str, path: str, headers: Mapping[bytes, bytes], request_id: str) -> Reply:
        """Answer everything that is no inference."""
        if path in self._routes:
            raise MethodNotAllowed(f"{method[:20]} is not for this path: use POST")
        ready = {f"{about}/ready" for about in self._about}
        if path not in ("/v2", "/v2/health/live", "/v2/health/ready", *self._about, *ready):
            raise NotFound(
                f"{path[:200]!r} is no path of this runner, which serves {self._bundle.contents.model!r}: see /v2"
            )
        if path in self._about or path in ready:
            self._identify(headers)
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{method[:20]} is not for this path: use GET or HEAD")
        contents = self._bundle.contents
        if path == "/v2":
            document: dict[str, Any] = {"name": "taut-edge", "version": self._world.version, "extensions": []}
        elif path == "/v2/health/live":
            document = {"live": True}
        elif path in self._about:
            document = metadata(contents.model, contents.version, self._bundle.signature)
        else:
            weak = self.reasons()
            document = {
                "ready": True,
                "trusted": self._bundle.trusted,
                **({"degraded": weak} if weak else {}),
            }
            if path in ready:
                document = {"name": contents.model, **document}
        return ok(document, request_id=request_id, epoch=0)
