"""All models of one gateway that may be in memory: one load for all who wait for it, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Final

import msgspec

from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.serving.memory.resident import Model, Resident
from taut.serving.memory.shelf import Shelf
from taut.serving.meters import TIME_NS, Histogram, ModelsReading
from taut.serving.tasks import end_task

Load = Callable[[], tuple[Model, int]]
"""Loads a model, verified, and returns it with the bytes that it takes. Blocks; raises TautError."""
Check = Callable[[], int]
"""Verifies a model's artifact without loading it, and returns its bytes. Blocks; raises TautError."""

LetGo = Callable[[list[Model]], None]
"""Takes the only reference to a model out of the list, and frees it. Blocks."""

_GUESS_TIMES: Final = 5
_GUESS_BYTES: Final = 5 * 2**18
_FIRST_PAUSE_S: Final = 1.0
_LAST_PAUSE_S: Final = 60.0
_LOOK_S: Final = 0.05
_ROOM_S: Final = 30.0
_MIB: Final = 2**20


class NotLoaded(Unavailable):
    """The model that should answer is not in memory: try again when it says."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a snapshot names.

    live: one that only stands in may be missing. keep: True never evicts it, False never loads it ahead of a request.
    """

    key: str
    name: str
    live: bool
    keep: bool | None
    load: Load
    check: Check


class _Entry:
    """A resident and how it comes into memory."""

    def __init__(self, resident: Resident, want: Want) -> None:
        self.resident: Final = resident
        self.want = want
        self.task: asyncio.Task[None] | None = None
        self.began_s = 0.0
        self.artifact_bytes = 0
        self.pause_s = _FIRST_PAUSE_S
        self.retry_s = 0.0
        self.dropped = False

    @property
    def guess_bytes(self) -> int:
        """Return what it will take: as measured, or about what small models take for their artifact."""
        return self.resident.size_bytes or _GUESS_TIMES * self.artifact_bytes + _GUESS_BYTES


class Residents:
    """Loads and evicts. One event loop owns it; loads run on `loader`.

    shelf: empty, with the budget. let_go: frees a model that left memory; called off the loop. changed: told, on the loop, that a model came or went.

    Guarantees: a model is loaded once however many wait for it, and verified each time; what is loaded and what is being
    loaded is within the budget, as far as it is known before it is measured; nobody is evicted who is kept or asked.
    Not guaranteed: that a model takes no more later than when it was measured, just loaded and warm.
    """

    def __init__(
        self,
        *,
        shelf: Shelf,
        loader: Executor,
        let_go: LetGo,
        changed: Callable[[Resident], None] = lambda _: None,
    ) -> None:
        self._shelf: Final = shelf
        self._loader: Final = loader
        self._let_go: Final = let_go
        self._changed: Final = changed
        self._loop: Final = asyncio.get_running_loop()
        self._entries: dict[str, _Entry] = {}
        self._of: Final[dict[int, _Entry]] = {}
        self._dropped: Final[dict[str, _Entry]] = {}
        self._leaving: Final[dict[str, asyncio.Future[None]]] = {}
        self._freed: Final = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None
        self._load_ns: Final = Histogram(TIME_NS)
        self.evictions = 0
        self.failures = 0

    # a snapshot comes

    async def stock(self, wants: Iterable[Want], *, budget_bytes: int) -> dict[str, Resident]:
        """Get a snapshot's models ready before it is switched to, and return them by key.

        Live ones before those that stand in, and of them those that are kept first: as many are loaded as there is room for
        without evicting anybody, and of the rest the artifact is verified. A stand-in that cannot be had carries the
        `fault`. Raises what loading or verifying a live one does; InvalidInput when those that are kept take too much.
        """
        await self._stop_filling()
        self._all_out(self._shelf.resize(budget_bytes))
        found: dict[str, Resident] = {}
        room = True
        for want in _merged(wants):
            entry = self._entry(want)
            found[want.key] = entry.resident
            try:
                room = await self._prepare(entry, room=room)
            except TautError as error:
                if want.live:
                    raise
                entry.resident.fault = error.message
        return found

    def adopt(self, wants: Iterable[Want]) -> None:
        """Keep the models of the snapshot that is served now, let all others go, and load what there is room for."""
        merged = {want.key: want for want in _merged(wants)}
        for key, entry in tuple(self._entries.items()):
            if key not in merged:
                del self._entries[key]
                entry.dropped = True
                self._dropped[key] = entry
                self._look_at_dropped(entry)
            else:
                entry.resident.keep = merged[key].keep
        self._all_out(self._shelf.shrink())
        if self._filling is not None:
            self._filling.cancel()
        self._filling = self._loop.create_task(self._fill([self._entry(want) for want in merged.values()]))

    async def close(self) -> None:
        """Stop loading. What is in memory stays."""
        await self._stop_filling()
        tasks = [entry.task for entry in self._of.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # a request comes

    async def ready(self, resident: Resident, *, timeout_s: float) -> None:
        """Return when the model is in memory. The caller has it pinned, so that it stays until he is done with it.

        Raises NotLoaded, with the seconds to wait, when that takes longer, or it cannot be loaded and was tried lately.
        """
        if resident.model is not None:
            return
        entry = self._of.get(id(resident))
        if entry is None:
            raise NotLoaded(f"{resident.name} was taken out of service: try again")
        until_s = self._loop.time() + timeout_s
        while not resident.loaded:
            task = self._begin(entry)
            await asyncio.wait((task,), timeout=max(0.0, until_s - self._loop.time()))
            now_s = self._loop.time()
            if not task.done():
                raise NotLoaded(
                    f"{resident.name} is still being loaded: try again",
                    retry_after_s=max(1.0, resident.load_s - (now_s - entry.began_s)),
                )
            if resident.fault and not resident.loaded:
                raise NotLoaded(
                    f"{resident.name} cannot be loaded: {resident.fault}",
                    retry_after_s=max(1.0, entry.retry_s - now_s),
                )

    # an operator comes

    async def load(self, resident: Resident, *, timeout_s: float) -> None:
        """Load a model now, whatever its last fault. Raises NotLoaded."""
        entry = self._of.get(id(resident))
        if entry is not None:
            entry.retry_s = 0.0
        resident.pin()
        try:
            await self.ready(resident, timeout_s=timeout_s)
        finally:
            resident.unpin()

    async def unload(self, resident: Resident, *, timeout_s: float) -> None:
        """Take a model out of memory once no request works with it.

        Raises InvalidInput for one that is kept, Unavailable when it is in use for all of the time.
        """
        if resident.keep:
            raise InvalidInput(f"{resident.name} is kept in memory: take keep_loaded from its endpoint first")
        until_s = self._loop.time() + timeout_s
        while resident.pins:
            if self._loop.time() > until_s:
                raise Unavailable(f"{resident.name} is in use: try again")
            await self._until_freed()
        if resident.model is not None:
            self._shelf.leave(resident)
            self._all_out([resident])

    # a picture

    def reading(self) -> ModelsReading:
        return ModelsReading(
            budget_bytes=self._shelf.budget_bytes,
            used_bytes=self._shelf.used_bytes,
            known=len(self._entries),
            loaded=sum(1 for one in self._shelf if one.model is not None),
            evictions=self.evictions,
            failures=self.failures,
            load=self._load_ns.reading(),
        )

    # loading

    def _entry(self, want: Want) -> _Entry:
        entry = self._entries.get(want.key)
        if (
            entry is None and want.key in self._dropped
        ):  # it comes back before the last request of its time is answered
            entry = self._entries[want.key] = self._dropped.pop(want.key)
            entry.dropped = False
        if entry is None:
            resident = Resident(want.key, want.name, keep=want.keep, on_free=self._on_free)
            entry = self._entries[want.key] = self._of[id(resident)] = _Entry(resident, want)
        entry.want = want
        entry.resident.keep = entry.resident.keep or want.keep  # until `adopt` says what holds
        return entry

    async def _prepare(self, entry: _Entry, *, room: bool) -> bool:
        """Load or verify; return whether there seems to be room for more that nobody has asked for."""
        resident, want = entry.resident, entry.want
        if resident.model is not None:
            return room
        if not entry.artifact_bytes:
            entry.artifact_bytes = await self._loop.run_in_executor(self._loader, want.check)
        self._check_fits(resident, max(entry.artifact_bytes, resident.size_bytes))
        ahead = want.keep or (want.keep is None and room and entry.guess_bytes <= self._shelf.free_bytes)
        if ahead:
            await asyncio.shield(self._begin(entry, again=True))
        return room and not (ahead and resident.model is None)

    def _begin(self, entry: _Entry, *, again: bool = False) -> asyncio.Task[None]:
        """Return the load that is under way; a new one, unless the last failed just now."""
        if entry.task is None:
            entry.began_s = self._loop.time()
            paused = not again and entry.began_s < entry.retry_s
            entry.task = self._loop.create_task(_nothing() if paused else self._load(entry))
            entry.resident.loading = True
            entry.task.add_done_callback(lambda task: self._ended(entry, task))
        return entry.task

    def _ended(self, entry: _Entry, task: asyncio.Task[None]) -> None:
        entry.task = None
        entry.resident.loading = False
        if not task.cancelled():
            task.exception()  # told to whoever waited, and kept as the fault
        self._look_at_dropped(entry)

    async def _load(self, entry: _Entry) -> None:
        """Load into room that was made before, and correct the room by what was measured."""
        resident, shelf = entry.resident, self._shelf
        try:
            while True:
                await self._make_room(resident, min(entry.guess_bytes, self._most(resident)))
                if (
                    resident.key in self._leaving
                ):  # or the workers that are let go might be taken for new ones
                    await asyncio.wait((self._leaving[resident.key],))
                start_s = self._loop.time()
                model, size_bytes = await self._loop.run_in_executor(self._loader, entry.want.load)
                resident.load_s = self._loop.time() - start_s
                resident.size_bytes = size_bytes
                self._check_fits(resident, size_bytes)
                wanted = resident.pins or resident.keep
                more_bytes = size_bytes - resident.taken_bytes
                gone = shelf.take(resident, size_bytes) if wanted or more_bytes <= shelf.free_bytes else None
                if gone is not None:
                    self._all_out(gone)
                    self._in(entry, model)
                    return
                # larger than it looked: others are in use, or would have to go for one that nobody asked for
                self._free(resident.key, [model])
                del model
                if not wanted:
                    shelf.leave(resident)
                    return
        except BaseException as error:
            shelf.leave(resident)
            if isinstance(error, Exception):
                self._failed(entry, error)
            raise

    def _in(self, entry: _Entry, model: Model) -> None:
        resident = entry.resident
        resident.set(model)
        resident.fault = ""
        entry.pause_s = _FIRST_PAUSE_S
        self._shelf.loaded(resident)
        self._load_ns.observe(int(resident.load_s * 1e9))
        self._changed(resident)

    def _failed(self, entry: _Entry, error: Exception) -> None:
        self.failures += 1
        said = error.message if isinstance(error, TautError) else f"{type(error).__name__}: {error}"
        entry.resident.fault = said
        entry.retry_s = self._loop.time() + entry.pause_s
        entry.pause_s = min(_LAST_PAUSE_S, 2 * entry.pause_s)

    def _most(self, resident: Resident) -> int:
        """Return what a model may take at most: the budget without what is kept."""
        return (
            self._shelf.budget_bytes - self._shelf.kept_bytes + (resident.taken_bytes if resident.keep else 0)
        )

    def _check_fits(self, resident: Resident, size_bytes: int) -> None:
        most = self._most(resident)
        if size_bytes > most:
            raise InvalidInput(
                f"{resident.name} takes {_mib(size_bytes)}, and of the memory for models, {_mib(self._shelf.budget_bytes)}, "
                f"{_mib(most)} is not kept by others: raise TAUT_MODEL_MEMORY, or take keep_loaded from another"
            )

    async def _make_room(self, resident: Resident, size_bytes: int) -> None:
        """Evict until there is room; wait where everybody is in use, for as long as anybody waits for this one."""
        until_s = self._loop.time() + _ROOM_S
        self._check_fits(resident, resident.size_bytes)
        while True:
            gone = self._shelf.take(resident, size_bytes)
            if gone is not None:
                self._all_out(gone)
                return
            if not (resident.pins or resident.keep) or self._loop.time() > until_s:
                raise NotLoaded(f"there is no room for {resident.name}: all other models are in use")
            await self._until_freed()

    async def _until_freed(self) -> None:
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._freed.wait()

    async def _fill(self, entries: list[_Entry]) -> None:
        """Load what there is room for, without evicting anybody."""
        for entry in entries:
            resident = entry.resident
            free = self._shelf.free_bytes
            if resident.keep is False or resident.loaded or resident.fault:
                continue
            if resident.keep or entry.guess_bytes <= free:
                await asyncio.wait((self._begin(entry),))
                if resident.state != "loaded" and not resident.fault:
                    return  # it was larger than it looked, and so will others be

    async def _stop_filling(self) -> None:
        if self._filling is not None:
            await end_task(self._filling)
            self._filling = None

    # leaving

    def _on_free(self, resident: Resident) -> None:
        self._freed.set()
        entry = self._of.get(id(resident))
        if entry is not None and entry.dropped:
            self._look_at_dropped(entry)
        elif self._shelf.free_bytes < 0:
            self._all_out(self._shelf.shrink())

    def _look_at_dropped(self, entry: _Entry) -> None:
        """Let a model go that no snapshot names any more, once the requests that began before are answered."""
        resident = entry.resident
        if not entry.dropped or resident.pins or entry.task is not None:
            return
        self._of.pop(id(resident), None)
        self._dropped.pop(resident.key, None)
        if resident.model is not None:
            self._shelf.leave(resident)
            self._out(resident)

    def _all_out(self, residents: Iterable[Resident]) -> None:
        for one in residents:
            self.evictions += 1
            self._out(one)

    def _out(self, resident: Resident) -> None:
        held = [] if resident.model is None else [resident.model]
        resident.set(None)
        self._changed(resident)
        self._freed.set()
        self._free(resident.key, held)

    def _free(self, key: str, held: list[Model]) -> None:
        leaving = self._leaving[key] = self._loop.run_in_executor(self._loader, self._let_go, held)
        leaving.add_done_callback(lambda done: self._left(key, done))

    def _left(self, key: str, done: asyncio.Future[None]) -> None:
        if self._leaving.get(key) is done:
            del self._leaving[key]
        if not done.cancelled():
            done.result()  # what fails here is a fault of ours: let the loop say it


async def _nothing() -> None:
    return


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"


def _merged(wants: Iterable[Want]) -> list[Want]:
    """Return one want a key, in the order in which they are loaded; kept where any says so."""
    found: dict[str, Want] = {}
    for want in wants:
        known = found.get(want.key)
        if known is None:
            found[want.key] = want
            continue
        keep = True if True in (known.keep, want.keep) else known.keep if known.keep == want.keep else None
        found[want.key] = msgspec.structs.replace(known, live=known.live or want.live, keep=keep)
    return sorted(found.values(), key=lambda want: (not want.live, want.keep is not True))
