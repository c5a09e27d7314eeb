"""Runs: started on pinned data and signed code, recorded whole, repeated on demand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import polars as pl

from taut.core.canonical import digest_json
from taut.core.errors import Conflict, InvalidInput, NotFound, TautError, Unavailable
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref
from taut.core.room import room_for
from taut.lifecycle.training import store
from taut.lifecycle.training.accept import accept
from taut.lifecycle.training.code import verify_code
from taut.lifecycle.training.compare import Difference, Reproduction, differences
from taut.lifecycle.training.encode import serving_form
from taut.lifecycle.training.split import split_by_time
from taut.lifecycle.training.values import (
    PARITY_FILE,
    Artifact,
    Code,
    MetricPoint,
    Run,
    RunState,
    TrainingData,
    limits_of,
)
from taut.ports.blobs import Blobs
from taut.ports.jobs import JobEnd, JobResult, Jobs, Progress, Task
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.tables import ROW_ID, Tables
from taut.ports.world import Clock, Ids
from taut.project.manifest import ModelSpec
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage

_FUNCTION = "taut.lifecycle.training.job:train"
_PATIENCE_S = 60.0
_PAUSE_S = 0.5


class Training:
    """Trains models as jobs and keeps what happened.

    environment: the installation's, for example `development`; it is written into every run.
    scratch: where a run's files lie while it is under way, training rows among them; None for the system's folder.
    """

    def __init__(
        self,
        *,
        records: Records,
        blobs: Blobs,
        tables: Tables,
        ledger: Ledger,
        lineage: Lineage,
        jobs: Jobs,
        keys: Keys,
        clock: Clock,
        ids: Ids,
        environment: str = "development",
        scratch: Path | None = None,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._tables = tables
        self._ledger = ledger
        self._lineage = lineage
        self._jobs = jobs
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._environment = environment
        self._scratch = scratch

    def train(
        self,
        spec: ModelSpec,
        data: TrainingData,
        code: Code,
        *,
        actor: str,
        seed: int | None = None,
        params: Mapping[str, Scalar] | None = None,
        run_id: str | None = None,
        reproduces: str | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Train once and return the run, done or failed; how the builder's function fares is never an exception.

        seed, params: instead of, and on top of, those that `spec` declares. run_id: makes the call idempotent: a run
        of that id that ended is returned as it is.
        Raises InvalidInput for data or parameters that do not fit; Denied or Corrupt for code that nobody signed;
        Conflict when the id belongs to a run of another model.
        """
        known = self._known(run_id, spec)
        if known is not None:
            return known
        verify_code(self._keys, code)
        _check_data(spec, data)
        run = Run(
            id=run_id or self._ids.new("run"),
            model=spec.name,
            state=RunState.RUNNING,
            actor=actor,
            started_at=self._clock.now(),
            spec=spec,
            params={**spec.params, **(params or {})},
            seed=spec.seed if seed is None else seed,
            data=data,
            code=code,
            environment=self._environment,
            reproduces=reproduces,
        )
        transact(self._records, lambda tx: store.put(tx, run))
        with (
            room_for(f"the files of {run.id}"),
            tempfile.TemporaryDirectory(prefix="taut-run-", dir=self._scratch) as folder,
        ):
            output = Path(folder, "output")
            result = self._run_job(run, Path(folder), output, progress)
            ended = self._ended(run, result, output)
        self._insist(lambda tx: self._record(tx, ended))
        return ended

    def give_up(self, tx: Tx, run_id: str, error: TautError) -> None:
        """Note that a run ended without its job having told how; one that has ended, or never began, stays so."""
        found = store.find(tx, run_id)
        if found is None or found.state is not RunState.RUNNING:
            return
        ended = msgspec.structs.replace(
            found, state=RunState.FAILED, ended_at=self._clock.now(), error=error.message, error_code=error.code,
            ended_as="given up",
        )  # fmt: skip
        self._record(tx, ended)

    def _insist(self, do: Callable[[Tx], None]) -> None:
        """Wait for a database that went away: what a job took half an hour for is not given up in a second."""
        give_up_s = self._clock.monotonic_s() + _PATIENCE_S
        while True:
            try:
                return transact(self._records, do)
            except Unavailable:
                if self._clock.monotonic_s() > give_up_s:
                    raise
            self._clock.sleep(_PAUSE_S)

    def _known(self, run_id: str | None, spec: ModelSpec) -> Run | None:
        if run_id is None:
            return None
        with self._records.read() as tx:
            found = store.find(tx, run_id)
        if found is not None and found.model != spec.name:
            raise Conflict(f"run {run_id} trained {found.model!r}, not {spec.name!r}: use another id")
        return found if found is not None and found.state is not RunState.RUNNING else None

    def _run_job(self, run: Run, folder: Path, output: Path, progress: Progress | None) -> JobResult:
        frame = folder / "frame.parquet"
        self._tables.scan(run.data.table, row_ids=True).sink_parquet(frame, compression="zstd")
        arguments = {
            "spec": run.spec,
            "event_time": run.data.event_time,
            "columns": run.data.table.schema.columns,
            "features": run.data.features,
            "snapshots": run.data.snapshots,
            "params": run.params,
            "seed": run.seed,
        }
        with ExitStack() as stack:
            bundle = stack.enter_context(self._blobs.local(run.code.bundle))
            task = Task(
                function=_FUNCTION,
                arguments=msgspec.to_builtins(arguments),
                inputs={"frame": str(frame), "bundle": str(bundle)},
                limits=limits_of(run.spec.resources),
                seed=run.seed,
            )
            return self._jobs.run(task, output=output, progress=progress)

    def _ended(self, run: Run, result: JobResult, output: Path) -> Run:
        """Return the run as it ended; its files are in Blobs before anything names them."""
        report, error, artifacts = None, result.error, []
        if result.end is JobEnd.DONE:
            try:
                found = accept(run, result.value, output)
                artifacts = [self._keep(output / name) for name in (found.signature.file, PARITY_FILE)]
                report = found
            except (InvalidInput, NotFound, OSError) as fault:
                # the builder's code runs in the same process as the job, so its word is checked
                report, error = None, f"the job's result is not accepted: {fault}"
        if result.log:
            log = output.with_name(
                "log.txt"
            )  # beside the output, where no job can have put something of that name
            log.write_text(result.log)
            artifacts.append(self._keep(log))
        return msgspec.structs.replace(
            run,
            state=RunState.FAILED if report is None else RunState.DONE,
            ended_at=self._clock.now(),
            report=report,
            artifacts=tuple(artifacts),
            error=error,
            error_code=result.error_code,
            ended_as=str(result.end),
            isolation=result.isolation,
            seconds=round(result.seconds, 3),
            cpu_seconds=round(result.cpu_seconds, 3),
            peak_memory_bytes=result.peak_memory_bytes,
        )

    def _keep(self, path: Path) -> Artifact:
        return Artifact(name=path.name, digest=self._blobs.put_file(path), size_bytes=path.stat().st_size)

    def _record(self, tx: Tx, run: Run) -> None:
        before = store.find(tx, run.id)
        if before is not None and before.state is not RunState.RUNNING:
            return  # it was committed, and only the answer to that was lost
        store.put(tx, run)
        me = Ref(Kind.RUN, run.id)
        body = {
            "model": run.model, "bundle": run.code.bundle, "lock": run.code.lock, "data": run.data.digest,
            "snapshots": run.data.snapshots, "features": {item.name: item.materialisation for item in run.data.features},
            "seed": run.seed, "params": digest_json(run.params), "result": run.model_digest,
            "metrics": {} if run.report is None else run.report.metrics, "ended_as": run.ended_as,
            "isolation": list(run.isolation),
        }  # fmt: skip
        self._ledger.append(tx, Entry(kind=f"run.{run.state}", subject=str(me), actor=run.actor, body=body))
        inputs = [Ref(Kind.SNAPSHOT, version) for version in run.data.snapshots.values()]
        inputs += [Ref(Kind.FEATURES, item.materialisation) for item in run.data.features]
        inputs.append(Ref(Kind.BUNDLE, run.code.bundle))
        facts: dict[str, Scalar] = {"state": str(run.state), "seed": run.seed, "rows": run.data.table.rows}
        self._lineage.record(tx, activity="train", inputs=inputs, outputs=[me], facts=facts)

    def get(self, run_id: str) -> Run:
        """Return a run. Raises NotFound."""
        with self._records.read() as tx:
            return store.get(tx, run_id)

    def list(
        self, *, model: str | None = None, state: RunState | None = None, limit: int = 100
    ) -> tuple[Run, ...]:
        """Return runs, the newest first."""
        with self._records.read() as tx:
            return store.listed(tx, model=model, state=state, limit=limit)

    def series(self, run_id: str, *, name: str | None = None) -> Sequence[MetricPoint]:
        """Return what a run's code logged, by name and step."""
        with self._records.read() as tx:
            return store.series(tx, run_id, name=name)

    def log(self, run_id: str) -> str:
        """Return the end of what a run wrote to its standard output and error."""
        found = self.get(run_id).artifact("log.txt")
        return "" if found is None else self._blobs.read(found.digest).decode("utf-8", "replace")

    def compare(self, one: str, other: str) -> tuple[Difference, ...]:
        """Return what differs between two runs: what they were given, where they ran, what came out."""
        with self._records.read() as tx:
            return differences(store.get(tx, one), store.get(tx, other))

    def reproduce(
        self,
        run_id: str,
        *,
        actor: str,
        data: TrainingData | None = None,
        code: Code | None = None,
        new_id: str | None = None,
        progress: Progress | None = None,
    ) -> Reproduction:
        """Train again what a run trained and say whether the very same model came out, or all that differs.

        data, code: what there is now in their place, for example after an erasure; else the very ones of the run.
        """
        original = self.get(run_id)
        if original.state is RunState.RUNNING:
            raise Conflict(f"run {run_id} has not ended: wait for it")
        again = self.train(
            original.spec, data or original.data, code or original.code, actor=actor, seed=original.seed,
            params=original.params, run_id=new_id, reproduces=original.id, progress=progress,
        )  # fmt: skip
        same = original.model_digest is not None and original.model_digest == again.model_digest
        return Reproduction(original=run_id, run=again, same=same, differences=differences(original, again))

    def holdout(self, run_id: str) -> pl.DataFrame:
        """Return the rows that a run was tested on, with `_row_id`, in the form that models get.

        Erased rows are gone from it as from every read.
        """
        run = self.get(run_id)
        parts = split_by_time(
            self._tables.scan(run.data.table, row_ids=True), event_time=run.data.event_time,
            label=run.spec.label, label_at=run.spec.label_at, spec=run.spec.split,
        )  # fmt: skip
        columns = [column for column in run.data.table.schema.columns if column.name in _known(run)]
        return serving_form(parts.test, columns).collect()

    def requests(self, run_id: str, *, rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return some rows that a run learned from and some that it was tested on, as requests would bring them.

        rows: at most so many of each, spread evenly, in the order of the table. Columns are those of a request. Erased rows are gone.
        """
        run = self.get(run_id)
        parts = split_by_time(
            self._tables.scan(run.data.table), event_time=run.data.event_time, label=run.spec.label,
            label_at=run.spec.label_at, spec=run.spec.split,
        )  # fmt: skip
        names = list(run.spec.request)
        learned, tested = (
            part.select(names).gather_every(max(1, count // rows)).head(rows).collect()
            for part, count in ((parts.train, parts.facts.train), (parts.test, parts.facts.test))
        )
        return learned, tested

    def observed(self, run_id: str, *, rows: int) -> pl.DataFrame:
        """Return some rows that a run learned from as its model was given them: request columns, features, and when they were.

        rows: at most so many, spread evenly, in the order of the table. Erased rows are gone.
        """
        run = self.get(run_id)
        parts = split_by_time(
            self._tables.scan(run.data.table), event_time=run.data.event_time, label=run.spec.label,
            label_at=run.spec.label_at, spec=run.spec.split,
        )  # fmt: skip
        names = list(dict.fromkeys([*_known(run), run.data.event_time]))
        every = max(1, parts.facts.train // rows)
        return parts.train.select(names).gather_every(every).head(rows).collect()

    def learned(self, run_id: str, *, rows: int) -> pl.DataFrame:
        """Return some rows that a run learned from, in the form that models get, with the label: at most so many, spread evenly.

        Erased rows are gone.
        """
        run = self.get(run_id)
        parts = split_by_time(
            self._tables.scan(run.data.table, row_ids=True), event_time=run.data.event_time,
            label=run.spec.label, label_at=run.spec.label_at, spec=run.spec.split,
        )  # fmt: skip
        columns = [column for column in run.data.table.schema.columns if column.name in _known(run)]
        every = -(-parts.facts.train // rows)
        return serving_form(parts.train.gather_every(every), columns).collect()

    def known_labels(self, run_id: str) -> pl.Series:
        """Return the labels of the rows that a run learned from. Erased rows are gone."""
        run = self.get(run_id)
        parts = split_by_time(
            self._tables.scan(run.data.table, row_ids=True), event_time=run.data.event_time,
            label=run.spec.label, label_at=run.spec.label_at, spec=run.spec.split,
        )  # fmt: skip
        return parts.train.select(run.spec.label).collect()[run.spec.label]

    def parity_sample(self, run_id: str, *, said: str | None = None) -> pl.DataFrame:
        """Return held-out rows as a request would bring them, with what the trained model itself said about each.

        Request columns and features by name, untouched, and `p0`, `p1` … (probabilities in the order of the classes,
        or the value). said: the digest of what another form of the model said about the same rows, in its place.
        Raises NotFound when the run left no model.
        """
        run = self.get(run_id)
        found = run.artifact(PARITY_FILE)
        if found is None:
            raise NotFound(f"run {run_id} left no model: its state is {run.state}")
        with self._blobs.local(said or found.digest) as path:
            answers = pl.read_parquet(path)
        rows = self._tables.scan(run.data.table, columns=_known(run), row_ids=True)
        joined = rows.join(answers.lazy(), on=ROW_ID, how="inner").sort(ROW_ID)
        return joined.collect()


def _known(run: Run) -> list[str]:
    features = [column.name for joined in run.data.features for column in joined.columns]
    return [*dict.fromkeys([*run.spec.request, *features])]


def _check_data(spec: ModelSpec, data: TrainingData) -> None:
    """Refuse a table that cannot train this model before a job is started for it."""
    table = set(data.table.schema.names)
    features = [column.name for joined in data.features for column in joined.columns]
    wanted = [
        data.event_time,
        spec.label,
        *spec.request,
        *features,
        *([spec.label_at] if spec.label_at else []),
    ]
    missing = sorted(set(wanted) - table)
    if missing:
        raise InvalidInput(
            f"the training table of {spec.name!r} lacks {', '.join(missing)}: it has {', '.join(sorted(table))}"
        )
    shared = sorted(set(features) & set(spec.request))
    if shared:
        raise InvalidInput(f"{shared[0]!r} is both a request column and a feature: rename one of them")
    if spec.label in {*spec.request, *features}:
        raise InvalidInput(
            f"the label {spec.label!r} is also a request column or a feature: nobody knows it in time"
        )
    if data.table.rows == 0:
        raise InvalidInput(f"the training table of {spec.name!r} is empty: ingest data first")
