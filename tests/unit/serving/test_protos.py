"""The descriptors of the gRPC services are what their .proto files say, and stand beside another client's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

from taut.serving.rpc import messages
from taut.serving.rpc.messages import Messages

ROOT = Path(__file__).parents[3]


def descriptors(path: Path) -> dict[str, bytes]:
    found = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    return {file.name: file.SerializeToString(deterministic=True) for file in found.file}


def test_the_descriptors_are_made_from_the_proto_files(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    subprocess.run(
        [ROOT / "tools" / "protos", str(made)],
        check=True,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )

    assert descriptors(made) == descriptors(Path(messages.__file__).with_name("protos.binpb"))


def test_messages_are_on_the_wire_what_a_generated_client_reads() -> None:
    from tritonclient.grpc import service_pb2

    ours = Messages()["ModelInferRequest"](
        model_name="delay", id="mine", raw_input_contents=[b"\1"],
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, -1], "contents": {"fp32_contents": [1.5]}}],
        outputs=[{"name": "label", "parameters": {"top": {"int64_param": 3}}}],
    )  # fmt: skip

    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())

    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)
    assert (theirs.inputs[0].contents.fp32_contents[0], theirs.outputs[0].parameters["top"].int64_param) == (
        1.5,
        3,
    )
