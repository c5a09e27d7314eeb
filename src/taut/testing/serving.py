"""An installation's data plane for tests and benchmarks: small ONNX models, signed snapshots, tokens."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.ports.keys import Keys
from taut.ports.online import OnlineReader
from taut.ports.world import Random
from taut.serving.gateway import Gateway, World
from taut.serving.predictions import PredictionLog
from taut.serving.snapshot import (
    EndpointConfig,
    GatewaySettings,
    ServedModel,
    ServingSnapshot,
    SnapshotStore,
    TrustFile,
    sign_snapshot,
)
from taut.serving.tracing import Tracer
from taut.trust.identity import jws
from taut.trust.identity.verifier import ApiKeyHash, RevokedToken, VerifierData
from taut.trust.policy import Policy
from taut.trust.signing import SignedStatement

STATUSES: Final = {
    "malformed": 400, "unauthenticated": 401, "denied": 403, "not_found": 404, "method_not_allowed": 405,
    "too_large": 413, "invalid_input": 422, "exhausted": 429, "unavailable": 503, "bad_answer": 503, "corrupt": 503,
    "deadline_exceeded": 504, "unsupported_encoding": 415, "not_admitted": 503,
}  # fmt: skip
ISSUER: Final = "test"
AUDIENCE: Final = "gateway"


def matrix_signature(width: int, *, nullable: bool = False) -> ModelSignature:
    """Return the signature of a binary classifier over `x0`, `x1`, …"""
    columns = tuple(Column(f"x{index}", DType.FLOAT, nullable) for index in range(width))
    return ModelSignature(
        request=columns,
        inputs=tuple(ModelInput(column=column) for column in columns),
        output="probability",
        classes=(0, 1),
    )


def matrix_model(width: int, *, bias: float = 0.0, weight: float = 1.0, ballast: int = 0) -> bytes:
    """Return ONNX of softmax((0, weight * sum(x) + bias)), with a label output beside it as skl2onnx gives.

    ballast: width of a square of weights that comes to nothing, 4 bytes each.
    """
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    weights = [value for _ in range(width) for value in (0.0, weight)]
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [width, 2], weights),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [0.0, bias]),
    ]
    if ballast:
        zeros = {"left": [width, ballast], "square": [ballast, ballast], "right": [ballast, 2]}
        constants += [
            helper.make_tensor(name, TensorProto.FLOAT, shape, bytes(4 * shape[0] * shape[1]), raw=True)
            for name, shape in zeros.items()
        ]
        nodes[1:2] = [
            helper.make_node("MatMul", ["input", "left"], ["wide"]),
            helper.make_node("MatMul", ["wide", "square"], ["still_wide"]),
            helper.make_node("MatMul", ["still_wide", "right"], ["nothing"]),
            helper.make_node("Sum", ["product", "nothing", "b"], ["logits"]),
        ]
    return _onnx(
        nodes,
        inputs=[helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        outputs=[
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        constants=constants,
    )


def slow_model(width: int, *, layers: int, hidden: int = 512) -> bytes:
    """Return ONNX of a classifier whose time grows with `layers` products of hidden x hidden weights."""
    from onnx import TensorProto, helper

    identity = [1.0 if row == column else 0.0 for row in range(hidden) for column in range(hidden)]
    first = [1.0 / width for _ in range(width * hidden)]
    last = [value / hidden for _ in range(hidden) for value in (0.0, 1.0)]
    nodes = [helper.make_node("MatMul", ["input", "first"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{at}", "w"], [f"h{at + 1}"]) for at in range(layers)]
    nodes += [
        helper.make_node("MatMul", [f"h{layers}", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.FLOAT, [width, hidden], first),
        helper.make_tensor("w", TensorProto.FLOAT, [hidden, hidden], identity),
        helper.make_tensor("last", TensorProto.FLOAT, [hidden, 2], last),
    ]
    return _onnx(
        nodes,
        inputs=[helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        outputs=[helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        constants=constants,
    )


def row_model(width: int, *, layers: int, cells: int = 65_536) -> bytes:
    """Return ONNX of a classifier whose time grows with rows as with `layers`: batches of it bring nothing."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("MatMul", ["input", "first"], ["h0"])]
    nodes += [helper.make_node("Erf", [f"h{at}"], [f"h{at + 1}"]) for at in range(layers)]
    nodes += [
        helper.make_node("ReduceMean", [f"h{layers}"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("MatMul", ["mean", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.FLOAT, [width, cells], [1.0 / width] * (width * cells)),
        helper.make_tensor("last", TensorProto.FLOAT, [1, 2], [0.0, 1.0]),
    ]
    return _onnx(
        nodes,
        inputs=[helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        outputs=[helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        constants=constants,
    )


def greedy_model(width: int) -> bytes:
    """Return ONNX of a classifier that takes 4 bytes of memory for each unit of its first value."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gather", ["input", "zero"], ["row"], axis=0),
        helper.make_node("Gather", ["row", "zero"], ["first"], axis=0),
        helper.make_node("Cast", ["first"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "shape"], ["counts"]),
        helper.make_node("ConstantOfShape", ["counts"], ["room"]),
        helper.make_node("ReduceSum", ["room"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["input", "w"], ["product"]),
        helper.make_node("Add", ["product", "sum"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("shape", TensorProto.INT64, [1], [1]),
        helper.make_tensor("w", TensorProto.FLOAT, [width, 2], [0.0, 1.0] * width),
    ]
    return _onnx(
        nodes,
        inputs=[helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        outputs=[helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        constants=constants,
    )


def columns_model(numbers: Sequence[str], words: str) -> bytes:
    """Return ONNX of a regressor with an input a column: sum of `numbers` plus the length-like code of `words`.

    The string input is coded AA → 1, UA → 2, anything else → 0.
    """
    from onnx import TensorProto, helper

    coded = helper.make_node(
        "LabelEncoder", [words], ["code"], domain="ai.onnx.ml", keys_strings=["AA", "UA"],
        values_floats=[1.0, 2.0], default_float=0.0,
    )  # fmt: skip
    total = helper.make_node("Sum", [*numbers, "code"], ["variable"])
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in numbers]
    inputs.append(helper.make_tensor_value_info(words, TensorProto.STRING, [None, 1]))
    outputs = [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])]
    return _onnx([coded, total], inputs=inputs, outputs=outputs, constants=[])


def _onnx(
    nodes: Sequence[Any], *, inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any]
) -> bytes:
    from onnx import helper

    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    )
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


class DataPlane:
    """A home folder with keys, artifacts and snapshots, as control would leave it."""

    def __init__(self, home: Path, keys: Keys) -> None:
        self.home: Final = home
        self.keys: Final = keys
        self.trust: Final = TrustFile(home / "serving" / "trust.json")
        self.trust.write(keys.public_keys(purpose="snapshot"))
        self.store: Final = SnapshotStore(home / "serving", self.trust)
        self.epoch = 0
        self.secret: Final = "s3cret"  # noqa: S105 - a test's own

    def served(
        self, model: bytes, signature: ModelSignature, *, version: str = "delay@1", **more: Any
    ) -> ServedModel:
        """Put a model among the artifacts and return it as a snapshot names it."""
        digest = digest_bytes(model)
        path = Path("artifacts") / digest.removeprefix("sha256:")
        (self.home / path).parent.mkdir(parents=True, exist_ok=True)
        (self.home / path).write_bytes(model)
        release = f"rel_{version.replace('@', '_')}"
        return ServedModel(
            version=version, release=release, artifact=digest, path=str(path), signature=signature, **more
        )

    def identity(self, *, revoked: Sequence[str] = (), disabled: Sequence[str] = ()) -> VerifierData:
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        key = ApiKeyHash(
            id="k1", secret_sha256=digest, principal="robot", kind="service", roles=("predictor",)
        )
        return VerifierData(
            issuer=ISSUER,
            audience=AUDIENCE,
            public_keys=self.keys.public_keys(purpose="token"),
            api_keys=(key,),
            revoked=tuple(RevokedToken(jti=jti, expires_at_s=time.time() + 3600) for jti in revoked),
            disabled=tuple(disabled),
        )

    @property
    def api_key(self) -> str:
        return f"taut_k1_{self.secret}"

    def token(
        self, principal: str = "ana", *, roles: Sequence[str] = ("predictor",), ttl_s: int = 900, jti: str = "t1",
        now_s: float | None = None,
    ) -> str:  # fmt: skip
        now = int(time.time() if now_s is None else now_s)
        claims = jws.Claims(
            iss=ISSUER,
            sub=principal,
            kind="human",
            aud=AUDIENCE,
            roles=tuple(roles),
            iat=now,
            exp=now + ttl_s,
            jti=jti,
        )
        return jws.encode(self.keys, claims)

    def snapshot(self, *endpoints: EndpointConfig, **more: Any) -> ServingSnapshot:
        """Return a snapshot of the next epoch."""
        self.epoch += 1
        made = Policy(more.pop("policy", ""), resources=more.get("resources"))
        fields: dict[str, Any] = {
            "epoch": self.epoch,
            "issued_at_us": time.time_ns() // 1000,
            "max_age_s": 3600.0,
            "identity": self.identity(),
            "settings": GatewaySettings(),
            **more,
        }
        return ServingSnapshot(
            endpoints=endpoints,
            policies=made.files,
            policy_digest=made.digest,
            **fields,
        )

    def sign(self, snapshot: ServingSnapshot) -> SignedStatement:
        return sign_snapshot(self.keys, snapshot)

    def issue(self, *endpoints: EndpointConfig, **more: Any) -> ServingSnapshot:
        """Sign the next snapshot and put it where a gateway starts from."""
        snapshot = self.snapshot(*endpoints, **more)
        return self.store.save(self.sign(snapshot).to_json())

    def endpoint(self, *, width: int = 3, name: str = "delay", **more: Any) -> EndpointConfig:
        """Return an endpoint over `matrix_model(width)`."""
        return EndpointConfig(
            name=name, live=self.served(matrix_model(width), matrix_signature(width)), **more
        )


def with_fields(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


def now_us() -> int:
    return time.time_ns() // 1000


@contextmanager
def open_gateway(
    home: Path,
    random: Random,
    *,
    online: OnlineReader | None = None,
    segment_bytes: int = 2**20,
    clock_us: Callable[[], int] = now_us,
    counter_ns: Callable[[], int] = time.perf_counter_ns,
    tracer: Tracer | None = None,
) -> Iterator[Gateway]:
    """Yield a gateway in this process, without HTTP, over the home's prediction log; failures of ours are raised."""

    def fail(request_id: str, error: BaseException) -> None:
        raise AssertionError(f"the gateway itself failed on {request_id}") from error

    with (
        ThreadPoolExecutor(1) as pool,
        closing(
            PredictionLog(
                home / "log" / "predictions", "gateway-0", now_us=clock_us, monotonic_s=time.monotonic,
                random=random, segment_bytes=segment_bytes,
            )
        ) as log,
    ):  # fmt: skip
        world = World(clock_us, time.monotonic, counter_ns, random)
        yield Gateway(
            log=log, online=online, statuses=STATUSES, world=world, pool=pool, log_failure=fail, tracer=tracer,
        )  # fmt: skip


class GatewayProcess:
    """A real gateway, which nobody admits, on a real port of this machine; killed at the end of the block if it still lives.

    main: the module that is run.
    """

    def __init__(
        self, home: Path, *, name: str = "gateway-0", listener: socket.socket | None = None,
        main: str = "taut.entrypoints.gateway_main",
    ) -> None:  # fmt: skip
        self._main: Final = main
        self.home: Final = home
        self.name: Final = name
        self.listener: Final = listener or listen_somewhere()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def start(self, *arguments: str, timeout_s: float = 30.0) -> None:
        """Start, and return when it accepts connections."""
        ready, told = os.pipe()
        command = [
            sys.executable, "-m", self._main, "--home", str(self.home), "--name", self.name,
            "--fd", str(self.listener.fileno()), "--ready-fd", str(told), "--alone", *arguments,
        ]  # fmt: skip
        with (self.home / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, pass_fds=[self.listener.fileno(), told], stdout=log, stderr=log
            )
        os.close(told)
        try:
            readable, _, _ = select.select([ready], [], [], timeout_s)
            said = os.read(ready, 64) if readable else b""
        finally:
            os.close(ready)
        assert b"ready" in said, f"the gateway did not start: {(self.home / f'{self.name}.log').read_text()}"

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=90)

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.listener.close()


def listen_somewhere() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener
