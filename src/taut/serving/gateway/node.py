"""A gateway with its stream: starts from disk, follows control, switches snapshots off the request path."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import structs

from taut.core.devices import Devices
from taut.core.errors import Conflict, Corrupt, TautError
from taut.ports.world import Random
from taut.serving.gateway.compiled import Stock, compile_snapshot
from taut.serving.gateway.core import Gateway
from taut.serving.gateway.feature_probe import PROBE_S, FeatureProbe, Reasons
from taut.serving.gateway.stocking import NO_DEVICES, Stocking
from taut.serving.memory import Heap, Residents, Shelf, machine_memory_bytes
from taut.serving.meters import encode_reading, process_usage
from taut.serving.snapshot import (
    Ack,
    Beat,
    Hello,
    ServingSnapshot,
    SnapshotStore,
    Subscriber,
    Talk,
    TrustFile,
    open_snapshot,
)
from taut.serving.tasks import end_task
from taut.serving.trials import encode_trials
from taut.serving.workers import Fleet
from taut.trust.quota import decode_lease

_LEASE_S: Final = 0.25  # how long a start may wait for control's first word on quotas
_SHARE_S: Final = 3.0  # and for a share of them, while those of a process before are still counted
_LOOK_S: Final = 0.02
_LOADERS: Final = 2  # so that a worker that is long in coming does not keep the next model waiting


class Switch(Protocol):
    """Decides when what a snapshot brings may be enforced, and speaks with control about it over the stream."""

    async def ready(self, snapshot: ServingSnapshot) -> None:
        """Return once requests may begin under a snapshot that is loaded. Raises Conflict where they may not any more."""
        ...

    def installed(self) -> None:
        """Requests begin under another snapshot from now on."""
        ...

    @property
    def talk(self) -> Talk: ...


class GatewayNode:
    """Feeds one Gateway with snapshots, and with models when they are asked for.

    home: artifacts are read relative to it. name: of this gateway in reports, with `@MACHINE` on a further machine. fleet: its worker processes.
    model_memory_bytes: that models may take in all gateways of this machine together; None is half of what the machine, or
    this process's control group, has.
    devices: on which its workers may run models.
    probe: looks at online features every few seconds, by the clock now_us; None where there are none.
    switch: decides when a snapshot takes effect; None lets it at once.
    Guarantees: epochs never go back, also over restarts; a snapshot that cannot be served whole is refused with the
    reason, and the one before it serves on.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        home: Path,
        name: str,
        store: SnapshotStore,
        trust: TrustFile,
        random: Random,
        fleet: Fleet | None = None,
        model_memory_bytes: int | None = None,
        devices: Devices = NO_DEVICES,
        probe: FeatureProbe | None = None,
        now_us: Callable[[], int] = lambda: 0,
        switch: Switch | None = None,
    ) -> None:
        self._gateway: Final = gateway
        self._switch: Final = switch
        self._memory_bytes: Final = model_memory_bytes or machine_memory_bytes() // 2
        self._stocking: Final = Stocking(
            home=home, fleet=fleet, heap=Heap(), devices=devices, machine=name.partition("@")[2]
        )
        self._model_loader: Final = ThreadPoolExecutor(_LOADERS, thread_name_prefix="model-loader")
        self._residents: Residents | None = None
        self._home: Final = home
        self._name: Final = name
        self._store: Final = store
        self._trust: Final = trust
        self._random: Final = random
        self._probe: Final = probe
        self._now_us: Final = now_us
        self._loader: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot-loader")

    async def start_from_disk(self) -> None:
        """Serve the best snapshot that lies on disk; without any the gateway is up, and not ready."""
        for data in self._store.candidates():
            if (await self.apply(data)).applied:
                return

    async def apply(self, data: bytes) -> Ack:
        """Switch to a signed snapshot, or refuse it and say why. Never raises."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        epoch = 0
        try:
            trusted = await loop.run_in_executor(self._loader, self._trust.read)
            snapshot = await loop.run_in_executor(self._loader, open_snapshot, data, trusted)
            epoch = snapshot.epoch
            before = self._gateway.active
            if before is None or before.snapshot != snapshot:
                current = (
                    before.epoch if before else await loop.run_in_executor(self._loader, self._store.floor)
                )
                if epoch < current or (before is not None and epoch == current):
                    raise Conflict(
                        f"the snapshot is of epoch {epoch}, this gateway is at {current}: issue a newer one"
                    )
                stock = await self._stock(snapshot)
                if before is not None:
                    self._stocking.check_shadows(snapshot, before.snapshot, stock)
                active = await loop.run_in_executor(
                    self._loader,
                    lambda: compile_snapshot(snapshot, home=self._home, before=before, stock=stock),
                )
                reasons = await self._look(snapshot)
                if self._switch is not None:
                    await self._switch.ready(snapshot)
                self._gateway.install(active)
                self._gateway.scoring.feature_reasons = reasons
                if self._switch is not None:
                    self._switch.installed()
                await self._keep(data)
        except TautError as error:
            self._gateway.refused_snapshot = error.message
            return self._ack(epoch, applied=False, reason=f"{error.code}: {error.message}", start_s=start_s)
        except Exception as error:  # noqa: BLE001 - raised here, it would end the stream, and no later snapshot be heard
            said = f"this gateway cannot read the snapshot ({type(error).__name__}: {error})"
            self._gateway.refused_snapshot = f"{said}: upgrade it and control to the same version"
            return self._ack(epoch, applied=False, reason=f"internal: {said}", start_s=start_s)
        finally:
            self._let_go()
        return self._ack(epoch, applied=True, reason="", start_s=start_s)

    async def _stock(self, snapshot: ServingSnapshot) -> Stock:
        """Get the models of a snapshot ready."""
        budget_bytes = self._memory_bytes // snapshot.gateways_at(self._name.partition("@")[2])
        if self._residents is None:
            self._residents = Residents(
                shelf=Shelf(budget_bytes), loader=self._model_loader, let_go=self._stocking.let_go,
                changed=self._gateway.resettle,
            )  # fmt: skip
        wants = self._stocking.wants(snapshot)
        return Stock(await self._residents.stock(wants, budget_bytes=budget_bytes), self._residents)

    async def _look(self, snapshot: ServingSnapshot) -> Reasons:
        """Return what is wrong with features, in the thread of snapshots, so that neither keeps the loop. Never raises."""
        if self._probe is None:
            return {}
        look = self._probe.look
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._loader, look, snapshot.endpoints, self._now_us())
        except Exception as error:  # noqa: BLE001 - raised here it would end the probing, and nothing be found any more
            said = f"its features could not be looked at ({type(error).__name__}: {error})"
            return {config.name: (said,) for config in snapshot.endpoints if config.live.signature.lookups}

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            active = self._gateway.active
            if active is not None:
                reasons = await self._look(active.snapshot)
                now = self._gateway.active
                if (
                    now is not None and now.snapshot is active.snapshot
                ):  # else what came meanwhile was looked at by itself
                    self._gateway.scoring.feature_reasons = reasons

    def _let_go(self) -> None:
        """Let models go that are served no more, or were loaded for a snapshot that was refused."""
        if self._residents is not None:
            active = self._gateway.active
            self._residents.adopt(() if active is None else self._stocking.wants(active.snapshot))

    async def close(self) -> None:
        """Load no more models, and ask none beside the path; after the last answer."""
        await self._gateway.mirror.close()
        if self._residents is not None:
            await self._residents.close()
        self._model_loader.shutdown(wait=False)

    async def _keep(self, data: bytes) -> None:
        """Keep what is served for the next start. A full disk must not undo a switch that is already made."""
        with contextlib.suppress(TautError, OSError):
            await asyncio.get_running_loop().run_in_executor(self._loader, self._store.save_applied, data)

    def _ack(self, epoch: int, *, applied: bool, reason: str, start_s: float) -> Ack:
        seconds = asyncio.get_running_loop().time() - start_s
        serving = self._epoch()
        return Ack(
            gateway=self._name, epoch=epoch, applied=applied, serving=serving, reason=reason, seconds=seconds
        )

    def _epoch(self) -> int:
        return 0 if self._gateway.active is None else self._gateway.active.epoch

    def _hello(self) -> Hello:
        return Hello(gateway=self._name, pid=os.getpid(), epoch=self._epoch())

    def _beat(self) -> Beat:
        reasons = tuple(self._gateway.reasons())
        cpu_us, resident_bytes = process_usage()
        claim = self._gateway.quota.claim(self._gateway.monotonic_s())
        meters = structs.replace(self._gateway.meters(), cpu_us=cpu_us, resident_bytes=resident_bytes)
        return Beat(
            gateway=self._name,
            epoch=self._epoch(),
            ready=not reasons,
            answers=self._gateway.outcomes.answers,
            refusals=self._gateway.outcomes.refusals,
            reasons=reasons,
            endpoints=self._gateway.endpoint_reasons(),
            callers=self._gateway.callers.reading(),
            costs=self._gateway.callers.costs(),
            claim=msgspec.Raw(msgspec.json.encode(claim)),
            meters=encode_reading(meters),
            trials=encode_trials(self._gateway.trials.reading()),
            shadows=encode_trials(self._gateway.mirror.reading()),
        )

    def _lend(self, data: bytes) -> bool:
        """Take a lease on quotas. Never raises: one that cannot be read is none."""
        try:
            return self._gateway.quota.hear(decode_lease(data), self._gateway.monotonic_s())
        except Corrupt:
            return False

    async def _await_lease(self, subscriber: Subscriber) -> None:
        """Let control say first what others leave of quotas; without control, go on with an equal part."""
        quota, now_s = self._gateway.quota, self._gateway.monotonic_s
        if self._gateway.active is None:
            return
        quota.await_lease(now_s())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(subscriber.settled.wait(), _LEASE_S)
        until_s = now_s() + _SHARE_S
        while quota.limits and not quota.share and subscriber.connected and now_s() < until_s:
            await asyncio.sleep(_LOOK_S)
        if not subscriber.connected:
            quota.go_alone(now_s())

    @contextlib.asynccontextmanager
    async def following(self, path: Path) -> AsyncIterator[Subscriber]:
        """Follow control's stream at `path` for as long as the block lasts."""
        subscriber = Subscriber(
            path, apply=self.apply, hello=self._hello, beat=self._beat, random=self._random, lend=self._lend,
            talk=None if self._switch is None else self._switch.talk,
        )  # fmt: skip
        tasks = [asyncio.create_task(subscriber.run()), asyncio.create_task(self._keep_looking())]
        try:
            await self._await_lease(subscriber)
            yield subscriber
        finally:
            for task in tasks:
                await end_task(task)
            self._loader.shutdown()
