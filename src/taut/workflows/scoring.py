"""Chunks to a job and answers back while it runs: prepared ahead in one thread, kept as soon as they are scored."""

from __future__ import annotations

import math
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from taut.core.answers import read_answer
from taut.core.errors import Corrupt, Exhausted, InvalidInput, Unavailable
from taut.core.graphs import read_plan
from taut.core.refs import VersionRef
from taut.core.room import room_for
from taut.core.schema import Schema
from taut.lifecycle.batch import Chunk
from taut.lifecycle.features import JoinedFeatures, LoadedFeatures
from taut.ports.jobs import JobEnd, JobResult, Limits, Task
from taut.ports.tables import ROW_ID, TableFile
from taut.serving.batch import (
    CHUNKS,
    MODEL,
    NO_ANSWER,
    NODE,
    REASONS,
    STOP,
    answer_columns,
    answer_path,
    chunk_path,
    needs_of,
    write_chunk,
)
from taut.workflows.rooms import Rooms
from taut.workflows.windows import Windows

Progress = Callable[[str, float | None], None]

AHEAD: Final = 8
"""Chunks that lie prepared before the job at most."""

_FRUITLESS_MAX: Final = 3
_LIMITS: Final = Limits(cpu=1.0, memory_bytes=4 * 2**30, timeout_s=3600.0)
_FUNCTION: Final = "taut.serving.batch.job:score"


class Scoring:
    """One attempt at a batch. Chunk n is the rows `n * chunk_rows` and following of the snapshot, in its order.

    Guarantees: what was kept is never scored again, here or in a later attempt; every row of the snapshot is in its
    chunk's answers or in its rejects, once. A job that dies is replaced, and the next carries on where it was.
    Not guaranteed: that feature sets fit in memory together with some chunks; they are read whole.
    """

    def __init__(
        self,
        rooms: Rooms,
        *,
        snapshot: VersionRef,
        model: VersionRef,
        features: Sequence[JoinedFeatures],
        event_time: str | None,
        keys: tuple[str, ...],
        schemas: tuple[Schema, Schema],
        chunk_rows: int,
        work: str,
    ) -> None:
        self._rooms: Final = rooms
        self._model: Final = model
        self._signature: Final = rooms.registry.signature(model)
        self._needs: Final = needs_of(self._signature, event_time=event_time)
        self._features: Final = features
        self._event_time: Final = event_time
        self._keys: Final = keys
        self._schemas: Final = schemas
        self._chunk_rows: Final = chunk_rows
        self._work: Final = work
        self._snapshot: Final = snapshot
        self._rows: Final = rooms.data.manifest(snapshot).rows
        self._count: Final = math.ceil(self._rows / chunk_rows)

    def run(self, progress: Progress) -> list[Chunk]:
        """Score what is missing and return every chunk in order."""
        kept = self._rooms.results.chunks(self._work)
        fruitless = 0
        while missing := [number for number in range(self._count) if number not in kept]:
            before = len(kept)
            result = self._attempt(missing, kept, progress)
            fruitless = 0 if len(kept) > before else fruitless + 1
            _judge(result, fruitless)
        return [kept[number] for number in range(self._count)]

    def _attempt(self, numbers: list[int], kept: dict[int, Chunk], progress: Progress) -> JobResult:
        """Run one job over chunks and keep each as its answer appears."""
        rooms = self._rooms
        with (
            room_for(f"the chunks of {self._snapshot}"),
            tempfile.TemporaryDirectory(prefix="taut-batch-", dir=rooms.scratch) as scratch,
            ExitStack() as stack,
        ):
            folder, output = Path(scratch, CHUNKS), Path(scratch, "output")
            folder.mkdir()
            models = self._models(Path(scratch))
            feeder = Feeder(folder, numbers, self._source, self._write)
            stack.callback(feeder.close)
            feeder.start()

            def absorb(_message: str = "", _fraction: float | None = None) -> None:
                for number in feeder.waiting():
                    path = answer_path(output, number)
                    if not path.exists():
                        return  # answers come in the order of the chunks
                    kept[number] = self._absorbed(number, feeder.rows(number), path)
                    feeder.release(number)
                    path.unlink()
                    scored = min(self._rows, len(kept) * self._chunk_rows)
                    progress(f"scored {scored:,} of {self._rows:,} rows", scored / max(1, self._rows))

            task = Task(
                function=_FUNCTION,
                arguments={"signature": msgspec.to_builtins(self._signature), "numbers": numbers},
                inputs={CHUNKS: str(folder), **models},
                limits=_LIMITS,
            )
            result = rooms.jobs.run(task, output=output, progress=absorb)
            absorb()
            feeder.raise_fault()
        return result

    def _models(self, scratch: Path) -> dict[str, str]:
        """Write the model, and a graph's nodes, for the job; return where they lie by the names that it knows them by."""
        # verified byte for byte here, whatever was found when the gate asked
        loaded = self._rooms.registry.load(self._model, to_serve=True)
        found = {MODEL: scratch / self._signature.file}
        found[MODEL].write_bytes(loaded.model)
        if self._signature.form == "graph":
            plan = read_plan(loaded.model)
            for name in plan.pins:
                found[f"{NODE}{name}"] = scratch / plan.file(name)
                found[f"{NODE}{name}"].write_bytes(loaded.parts[plan.file(name)])
        return {name: str(path) for name, path in found.items()}

    def _source(self) -> Callable[[int], Prepared]:
        """Open the snapshot and the feature sets, and return what prepares a chunk of them.

        Called in the feeder's thread: the job starts meanwhile, and is not kept from the processor by a check of all files.
        """
        loaded = self._rooms.features.loaded(self._features)
        wanted = dict.fromkeys([*self._keys, *(column.name for column in self._needs.columns)])
        if self._event_time is not None:
            wanted.setdefault(self._event_time)
        windows = Windows(self._rooms.tables, self._rooms.data.manifest(self._snapshot), tuple(wanted))
        return lambda number: self._prepared(windows, loaded, number)

    def _prepared(self, windows: Windows, loaded: LoadedFeatures, number: int) -> Prepared:
        """Read a chunk's rows, join what was known at each row's time, and set apart those that do not fit."""
        frame = windows.rows(number * self._chunk_rows, self._chunk_rows)
        if self._features and self._event_time is not None:
            frame = loaded.join(frame, self._event_time)
        fit, unfit = self._needs.split(frame)
        return Prepared(fit, unfit.select(ROW_ID, *self._keys, REASONS), self._keys, count=frame.height)

    def _write(self, path: Path, frame: pl.DataFrame) -> None:
        write_chunk(path, frame, self._signature)

    def _absorbed(self, number: int, prepared: Prepared, path: Path) -> Chunk:
        """Check a chunk's answer, store it, and keep it: from then on it is not scored again."""
        tensor = read_answer(path, prepared.rows.height)
        columns, answered = answer_columns(self._signature, tensor)
        frame, rejects = prepared.rows.hstack(columns), prepared.rejects
        if not answered.all():
            mask = pl.Series(answered)
            silent = prepared.rows.filter(~mask).with_columns(pl.lit(NO_ANSWER).alias(REASONS))
            frame, rejects = frame.filter(mask), pl.concat([rejects, silent]).sort(ROW_ID)
        if frame.height + rejects.height != prepared.count:
            raise InvalidInput(
                f"chunk {number} has {prepared.count:,} rows, and {frame.height + rejects.height:,} came out"
            )
        chunk = Chunk(
            files=self._stored(frame, self._schemas[0]),
            rejects=self._stored(rejects, self._schemas[1]),
            reasons=dict(sorted(Counter(rejects[REASONS].to_list()).items())),
        )
        self._rooms.results.keep_chunk(self._work, number, chunk)
        return chunk

    def _stored(self, frame: pl.DataFrame, schema: Schema) -> tuple[TableFile, ...]:
        if frame.height == 0:
            return ()
        return self._rooms.tables.write([frame], schema=schema, first_row_id=0).files


class Prepared:
    """What control keeps of a chunk while the job has it: whose answers they will be, and who gets none."""

    def __init__(self, fit: pl.DataFrame, rejects: pl.DataFrame, keys: Sequence[str], *, count: int) -> None:
        self.fit: pl.DataFrame | None = fit  # let go of once it is written for the job
        self.rows: Final = fit.select(ROW_ID, *keys)
        self.rejects: Final = rejects
        self.count: Final = count  # rows of the snapshot, fit or not


class Feeder:
    """A thread that prepares chunks ahead of the job, at most `AHEAD` of them, and says when no more will come.

    source: called once, in the thread; returns what prepares a chunk.
    """

    def __init__(
        self,
        folder: Path,
        numbers: Sequence[int],
        source: Callable[[], Callable[[int], Prepared]],
        write: Callable[[Path, pl.DataFrame], None],
    ) -> None:
        self._folder: Final = folder
        self._numbers: Final = numbers
        self._source: Final = source
        self._write: Final = write
        self._room: Final = threading.Semaphore(AHEAD)
        self._held: Final[dict[int, Prepared]] = {}
        self._lock: Final = (
            threading.Lock()
        )  # of what is held: this thread adds, the one that absorbs takes away
        self._stop: Final = threading.Event()
        self._fault: BaseException | None = None
        self._thread: Final = threading.Thread(target=self._run, name="batch-feeder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def waiting(self) -> list[int]:
        """Return the chunks that the job has and that were not absorbed, in order."""
        with self._lock:
            return sorted(self._held)

    def rows(self, number: int) -> Prepared:
        return self._held[number]

    def release(self, number: int) -> None:
        """Forget a chunk that was absorbed; another may be prepared in its place."""
        chunk_path(self._folder, number).unlink(missing_ok=True)
        with self._lock:
            del self._held[number]
        self._room.release()

    def close(self) -> None:
        """Prepare nothing more and end the thread."""
        self._stop.set()
        self._room.release()
        self._thread.join()

    def raise_fault(self) -> None:
        """Raise what preparing ended with, if it did not end well."""
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            prepare = self._source()
            for number in self._numbers:
                self._room.acquire()
                if self._stop.is_set():
                    return
                made = prepare(number)
                fit, made.fit = made.fit, None
                assert fit is not None, "a chunk is prepared once"
                with self._lock:
                    self._held[number] = made
                self._write(chunk_path(self._folder, number), fit)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the job
            self._fault = error
        finally:
            (self._folder / STOP).touch()


def _judge(result: JobResult, fruitless: int) -> None:
    """Raise unless another job may go on: one that was killed or ran out of time after it had scored something."""
    if result.end is JobEnd.DONE and fruitless < _FRUITLESS_MAX:
        return
    said = f"the job that scores ended as {result.end}: {result.error}"
    if result.end is JobEnd.RAISED:
        if result.error_code == Corrupt.code:
            raise Corrupt(said)
        raise InvalidInput(said) if result.error_code != Unavailable.code else Unavailable(said)
    if fruitless == 0:
        return
    if result.end in (JobEnd.OUT_OF_MEMORY, JobEnd.OUTPUT_TOO_LARGE, JobEnd.TIMED_OUT):
        raise Exhausted(f"{said}; score with smaller chunks (--chunk-rows)")
    if fruitless >= _FRUITLESS_MAX:
        raise Unavailable(f"{said}, {fruitless} times without a chunk scored: look at what kills it")
