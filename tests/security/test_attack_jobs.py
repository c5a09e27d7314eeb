"""A hostile builder: what his code says and leaves behind, and models that are cheap to send and dear to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.jobs import ProcessJobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.tables.parquet import ParquetTables
from taut.core.canonical import digest_bytes
from taut.core.errors import InvalidInput, NotFound
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature, Schema
from taut.lifecycle.features.compute import compute_in_job
from taut.lifecycle.training import RunState, Training, TrainingData, limits_of, metadata, sign_code
from taut.ports.jobs import JobEnd, JobResult, Limits, Progress, Task
from taut.ports.tables import ROW_ID
from taut.project.archive import write_archive
from taut.project.code import open_code
from taut.project.manifest import FeaturesSpec, FunctionRef, ModelSpec, ResourcesSpec
from taut.testing.code import code_model
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger.tables import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage.tables import metadata as lineage_metadata
from taut.workflows.trial import try_apart

pytestmark = pytest.mark.processes

# what a job says on its own channel


def forged(tmp_path: Path, *lines: str) -> JobResult:
    task = Task(
        function="taut.testing.job:forges", arguments={"lines": list(lines)}, limits=Limits(timeout_s=20)
    )
    return ProcessJobs(tmp_path / "jobs").run(task, output=tmp_path / "output")


def test_a_job_cannot_claim_an_isolation_that_it_has_not(tmp_path: Path) -> None:
    """The isolation is written into the run, its ledger leaf and the model's card."""
    result = forged(tmp_path, '{"isolation": ["hypervisor", "netns"]}')

    assert result.end is JobEnd.DONE, result.log
    assert "hypervisor" not in result.isolation
    assert result.isolation


@pytest.mark.parametrize(
    "line",
    ['{"isolation": 5}', '{"value": {"auc": NaN}}', '{"value": {"auc": Infinity}}', '{"value": {"auc": 1e999}}',
     '{"value": {"name": "\\ud800"}}', '{"value": 7}', '{"raised": {}}', '{"progress": "x", "fraction": "y"}', "[]",
     '{"code": ["denied"]}', '{"surprise": 1}', '{"value": ' + "[" * 5000 + "]" * 5000 + "}"],
)  # fmt: skip
def test_nonsense_on_the_channel_ends_the_job_and_never_its_watcher(tmp_path: Path, line: str) -> None:
    result = forged(tmp_path, line)

    assert result.end is JobEnd.RAISED
    assert "channel" in result.error
    assert result.value == {}


# what a job leaves


SCHEMA = Schema((Column("id", DType.INT), Column("at", DType.DATETIME), Column("late", DType.BOOL)))
ID, AT = SCHEMA.columns[0], SCHEMA.columns[1]
SIGNATURE = ModelSignature(
    request=(ID,),
    inputs=(ModelInput(column=ID, feature_set=None),),
    output="probability",
    classes=(False, True),
)
SPEC = ModelSpec(
    name="late", dataset="orders", function=FunctionRef("project", "train"), label="late", request=("id",),
    resources=ResourcesSpec(memory="1GiB", timeout="5s"),
)  # fmt: skip
SAMPLE = pl.DataFrame({ROW_ID: [0, 1], "p0": [0.5, 0.5], "p1": [0.5, 0.5]})


def report(**changes: Any) -> dict[str, Any]:
    moment = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
    honest: dict[str, Any] = {
        "signature": msgspec.to_builtins(SIGNATURE), "metrics": {"auc": 0.9}, "own_metrics": {}, "baselines": {},
        "split": {
            "rows": 2, "train": 1, "test": 1, "gap": 0, "embargoed": 0, "unlabelled": 0, "train_until": moment,
            "test_from": moment,
        },
        "checks": [], "points": [], "environment": {}, "model_kind": "x",
    }  # fmt: skip
    return {**honest, **changes}


class HostileJobs:
    """Ends every job with what a builder's code would like it to have ended with."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = report()
        self.leave: Callable[[Path], None] = leave_honest

    def run(self, task: Task, *, output: Path, progress: Progress | None = None) -> JobResult:
        output.mkdir(parents=True, exist_ok=True)
        self.leave(output)
        return JobResult(end=JobEnd.DONE, value=self.value, log="trained\n")


def leave_honest(output: Path) -> None:
    (output / "model.onnx").write_bytes(b"model")
    SAMPLE.write_parquet(output / "parity.parquet")


class Room(NamedTuple):
    blobs: LocalBlobs
    training: Training
    jobs: HostileJobs
    data: TrainingData
    bundle: str
    keys: FileKeys

    def train(self) -> Any:
        code = sign_code(self.keys, bundle=self.bundle, lock="sha256:" + "1" * 64, actor="owner")
        return self.training.train(SPEC, self.data, code, actor="mallory")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    records = memory_records(metadata, ledger_metadata, lineage_metadata)
    clock, ids = ManualClock(), SequenceIds()
    keys, blobs = FileKeys(tmp_path / "keys", random=SeededRandom()), LocalBlobs(tmp_path / "blobs")
    tables, jobs = ParquetTables(blobs), HostileJobs()
    ledger = Ledger(records, keys, clock, ids, origin="taut.test/attack")
    training = Training(
        records=records, blobs=blobs, tables=tables, ledger=ledger, lineage=Lineage(clock), jobs=jobs, keys=keys,
        clock=clock, ids=ids,
    )  # fmt: skip
    frame = pl.DataFrame(
        {"id": [1, 2], "at": [clock.now(), clock.now()], "late": [True, False]},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    data = TrainingData(
        table=tables.write([frame], schema=SCHEMA, first_row_id=0), event_time="at",
        snapshots={"orders": "orders@1"}, features=(),
    )  # fmt: skip
    yield Room(blobs, training, jobs, data, blobs.put(b"bundle"), keys)
    tables.close()
    records.close()


def test_an_honest_job_is_accepted(room: Room) -> None:
    run = room.train()

    assert run.state is RunState.DONE, run.error


LOOKUP = FeatureLookup(feature_set="salaries", entity=("id",), keys=("id",))
PAY = Column("pay", DType.FLOAT, nullable=True)


@pytest.mark.parametrize(
    "signature",
    [
        msgspec.structs.replace(SIGNATURE, lookups=(LOOKUP,)),
        msgspec.structs.replace(
            SIGNATURE, lookups=(LOOKUP,), inputs=(ModelInput(column=PAY, feature_set="salaries"),)
        ),
        msgspec.structs.replace(SIGNATURE, request=(ID, Column("late", DType.BOOL))),
        msgspec.structs.replace(SIGNATURE, request=()),
        msgspec.structs.replace(SIGNATURE, request=(Column("id", DType.STRING, nullable=True),)),
        msgspec.structs.replace(SIGNATURE, event_time="late"),
    ],
)
def test_a_job_cannot_sign_its_model_up_for_data_that_the_project_did_not_declare(
    room: Room, signature: ModelSignature
) -> None:
    """A lookup of the job's own choice would read another feature set out to whoever asks the endpoint."""
    room.jobs.value = report(signature=msgspec.to_builtins(signature))

    run = room.train()

    assert run.state is RunState.FAILED
    assert "signature" in run.error


def folder_for_log(output: Path) -> None:
    leave_honest(output)
    (output / "log.txt").mkdir()


def folder_for_model(output: Path) -> None:
    leave_honest(output)
    (output / "model.onnx").unlink()
    (output / "model.onnx").mkdir()


def bomb(output: Path) -> None:
    leave_honest(output)
    pl.DataFrame({ROW_ID: np.zeros(20_000_000, np.int64)}).with_columns(p0=0.0).write_parquet(
        output / "parity.parquet"
    )
    assert (output / "parity.parquet").stat().st_size < 1_000_000


def texts(output: Path) -> None:
    leave_honest(output)
    SAMPLE.with_columns(name=pl.lit("x" * 1000)).write_parquet(output / "parity.parquet")


def no_parquet(output: Path) -> None:
    leave_honest(output)
    (output / "parity.parquet").write_bytes(b"PAR1" + bytes(64) + b"PAR1")


@pytest.mark.parametrize("leave", [folder_for_model, bomb, texts, no_parquet])
def test_what_a_job_leaves_is_looked_at_before_it_is_read(room: Room, leave: Callable[[Path], None]) -> None:
    """The sample of 20 million rows is a few kilobytes; read whole, such files take any memory from control."""
    room.jobs.leave = leave

    run = room.train()

    assert run.state is RunState.FAILED
    assert room.training.get(run.id).state is RunState.FAILED
    assert "not accepted" in run.error
    with pytest.raises(NotFound):
        room.training.parity_sample(run.id)


CODE_SIGNATURE = msgspec.structs.replace(SIGNATURE, form="code", tensor="columns")
SIGNED = "def score(columns): return columns['id'] * 0.5"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (code_model(SIGNED), ""),
        (code_model(SIGNED, kwargs={"state": b"its own"}), ""),
        (code_model(SIGNED + " + 0"), "what runs must be what was signed"),
        (code_model(SIGNED, more={"late.py": ""}), "what runs must be what was signed"),
        (b"\x80\x04\x95 a pickle", "no readable model"),
        (write_archive({"../model.json": b"{}"}), "no readable model"),
    ],
    ids=["honest", "own state", "other code", "more code", "a pickle", "zip slip"],
)
def test_a_job_cannot_leave_code_that_is_not_the_bundle_of_its_run(
    room: Room, model: bytes, said: str
) -> None:
    """Else what a person approved by its bundle would be something else in the workers."""

    def leave(output: Path) -> None:
        leave_honest(output)
        (output / "model.taut").write_bytes(model)

    signed = open_code(code_model(SIGNED)).bundle
    room.jobs.value, room.jobs.leave = report(signature=msgspec.to_builtins(CODE_SIGNATURE)), leave
    room = room._replace(bundle=room.blobs.put(signed))

    run = room.train()

    assert run.state is (RunState.FAILED if said else RunState.DONE), run.error
    assert said in run.error
    assert run.model_digest == (None if said else digest_bytes(model))


def test_a_folder_in_the_way_of_the_log_does_not_keep_a_run_from_ending(room: Room) -> None:
    room.jobs.leave = folder_for_log

    run = room.train()

    assert run.state is RunState.DONE
    assert room.training.log(run.id) == "trained\n"


def test_features_that_would_unpack_to_more_than_their_job_could_hold_are_not_read(tmp_path: Path) -> None:
    jobs, blobs = HostileJobs(), LocalBlobs(tmp_path / "blobs")
    frame = pl.DataFrame({"key": np.zeros(2_000_000, np.int64)}).with_columns(
        at=pl.lit(datetime(2020, 1, 1, tzinfo=UTC)), value=0.0
    )
    jobs.leave = lambda output: frame.write_parquet(output / "features.parquet")
    spec = FeaturesSpec(
        name="sky", entity=("key",), event_time="at", sources=(), function=FunctionRef("m", "f")
    )

    with pytest.raises(InvalidInput, match="more than its memory holds"):
        compute_in_job(
            jobs, blobs, spec, {}, bundle=blobs.put(b"code"), seed=0, limits=Limits(memory_bytes=2**24), progress=None
        )  # fmt: skip


# models that are cheap to send and dear to run


def graph(*nodes: Any) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1])],
            [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n"])],
        ),
        opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    return bytes(made.SerializeToString())


def constant(name: str, kind: int, shape: list[int], value: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, shape, [value]))


def endless() -> bytes:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Identity", ["v"], ["vo"])], "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("co", TensorProto.BOOL, []), value("vo", TensorProto.FLOAT, None)],
    )  # fmt: skip
    return graph(
        constant("m", TensorProto.INT64, [], 2**62), constant("t", TensorProto.BOOL, [], True),
        helper.make_node("Loop", ["m", "t", "input"], ["l"], body=body),
        helper.make_node("ReduceMean", ["l"], ["value"], keepdims=0, axes=[1]),
    )  # fmt: skip


def greedy() -> bytes:
    return graph(
        constant("s", TensorProto.INT64, [1], 2_000_000_000),
        helper.make_node("ConstantOfShape", ["s"], ["z"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        helper.make_node("ReduceSum", ["z"], ["q"], keepdims=0),
        helper.make_node("ReduceMean", ["input"], ["r"], keepdims=0, axes=[1]),
        helper.make_node("Add", ["r", "q"], ["value"]),
    )  # fmt: skip


def honest() -> bytes:
    return graph(helper.make_node("ReduceMean", ["input"], ["value"], keepdims=0, axes=[1]))


@pytest.mark.parametrize(
    ("model", "ends"), [(endless, "timed_out"), (greedy, "raised"), (honest, "")], ids=["endless", "greedy", "honest"]
)  # fmt: skip
def test_a_model_is_run_where_it_can_harm_nobody_before_control_runs_it(
    tmp_path: Path, model: Callable[[], bytes], ends: str
) -> None:
    """Both are valid ONNX of a few hundred bytes of standard operators; either would have ended control."""
    onnx.checker.check_model(onnx.load_from_string(model()))
    blobs = LocalBlobs(tmp_path / "blobs")
    signature = ModelSignature(
        request=(ID,), inputs=(ModelInput(column=ID, feature_set=None),), output="value"
    )
    rooms: Any = SimpleNamespace(blobs=blobs, jobs=ProcessJobs(tmp_path / "jobs"), scratch=tmp_path)

    rows = pl.DataFrame({"id": [1, 2], "late": [True, False]})
    tried = try_apart(rooms, blobs.put(model()), signature, (rows,), limits=limits_of(SPEC.resources))

    assert (ends in tried.fault) if ends else tried.fault == ""
    if not ends:
        assert tried.of(0).tolist() == [1.0, 2.0]
