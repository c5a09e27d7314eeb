"""The installation, furnished: every room made from ports, on first use."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taut.adapters.durable import as_unavailable
from taut.bootstrap import adapters
from taut.bootstrap.alarms import Alarms
from taut.bootstrap.config import Config
from taut.bootstrap.joined import refuse_joined
from taut.bootstrap.parts import Parts
from taut.bootstrap.people import People
from taut.bootstrap.watches import Watches
from taut.core.canonical import canonical_json, digest_bytes
from taut.core.errors import Denied
from taut.core.refs import VersionRef
from taut.ports.blobs import Blobs
from taut.ports.jobs import Jobs
from taut.ports.keys import Keys
from taut.ports.online import OnlineReader, OnlineWriter
from taut.ports.records import Records
from taut.ports.secrets import Secrets
from taut.ports.stories import Stories
from taut.ports.tables import Tables
from taut.ports.world import Clock, Ids, Random

if TYPE_CHECKING:
    from taut.bootstrap.admitting import Admitting
    from taut.bootstrap.scaling import Scaling
    from taut.lifecycle.batch import Results
    from taut.lifecycle.data import Data
    from taut.lifecycle.features import FeatureStore
    from taut.lifecycle.plans import Plans
    from taut.lifecycle.registry import Registry
    from taut.lifecycle.release import Releases
    from taut.lifecycle.training import Training
    from taut.serving.predictions import PredictionReader
    from taut.serving.snapshot import Machine, Publisher, SnapshotStore
    from taut.trust.envelope import InstallationKeys
    from taut.trust.identity import Identity
    from taut.trust.ledger import Ledger
    from taut.trust.lineage import Lineage
    from taut.trust.sealing import Sealer
    from taut.workflows.rights import Rights
    from taut.workflows.rooms import Published

MAX_AGE_S: Final = 3600.0
_PUSH_TIMEOUT_S: Final = 10.0
_SCRATCH: Final = "tmp"


class Platform:
    """One installation in one process. Rooms and adapters are made on first use and closed together.

    people: the rooms by which people sign in. parts: those of the platform's own identities. watches: those that look for what should not happen. alarms: those of who is
    told and who is contained because of it.
    publisher: set by the process that gateways follow; without one, a snapshot is kept on disk for the next. admitting: set by
    the process that admits them, as is scaling.
    exposed: whether other machines reach the planes.
    patience_s: how long a story waits for a database that went away before it is left to the next process.
    published: what `what_changes` said of the last snapshot; None before the first. machines: the further ones in it.
    scratch: folder for files of work under way, training rows among them; emptied by `open_platform`.
    gateways: how many run on this machine. url: of the data plane here, empty where none runs.
    """

    def __init__(self, config: Config, stack: ExitStack) -> None:
        self.config: Final = config
        self.home: Final = config.home
        self.scratch: Final = config.work / _SCRATCH
        self.clock: Clock
        self.ids: Ids
        self.random: Random
        self.clock, self.ids, self.random = adapters.open_world()
        self.people: Final = People(self)
        self.parts: Final = Parts(self)
        self.alarms: Final = Alarms(self)
        self.watches: Final = Watches(self, hearing=self.alarms.hearing)
        self.publisher: Publisher | None = None
        self.admitting: Admitting | None = None
        self.scaling: Scaling | None = None
        self.published: tuple[object, ...] | None = None
        self.machines: tuple[Machine, ...] = ()
        self.gateways = 1
        self.url = ""
        self.exposed = False
        self.patience_s = 60.0
        self._stack: Final = stack
        self._publishing: Final = threading.Lock()

    @cached_property
    def records(self) -> Records:
        records = adapters.open_records(self.config)
        self._stack.callback(records.close)
        return records

    @property
    def reached(self) -> bool:
        """Whether the database was opened; where it was not, nothing was done either."""
        return "records" in self.__dict__

    def own_database(self) -> None:
        """Prove that the database is this installation's, or begin with it. Raises Conflict for another's."""
        from taut.bootstrap.ownership import own_database

        own_database(self.records, self.ledger, self.keys, home=str(self.home))

    @cached_property
    def blobs(self) -> Blobs:
        return adapters.open_blobs(
            self.config, key=lambda: self.data_keys.versions("blobs")[0], stack=self._stack
        )

    @cached_property
    def tables(self) -> Tables:
        return adapters.open_tables(self.blobs)

    @cached_property
    def keys(self) -> Keys:
        from taut.bootstrap.keys import open_keys

        return open_keys(self.config, clock=self.clock, random=self.random, stack=self._stack)

    @cached_property
    def secrets(self) -> Secrets:
        return adapters.open_secrets(self.config, self.keys, self.random)

    @cached_property
    def jobs(self) -> Jobs:
        return adapters.open_jobs(
            self.config, yields=lambda: self.scaling is not None and self.scaling.strained
        )

    @cached_property
    def _online(self) -> tuple[OnlineReader, OnlineWriter]:
        return self._stack.enter_context(adapters.open_online(self.config))

    @property
    def online(self) -> OnlineReader:
        return self._online[0]

    @cached_property
    def ledger(self) -> Ledger:
        from taut.trust.ledger import DirectoryCopy, Ledger

        folder = self.config.ledger_copy or str(self.home / "ledger" / "checkpoints")
        return Ledger(
            self.records,
            self.keys,
            self.clock,
            self.ids,
            origin="taut",
            copies=(DirectoryCopy(Path(folder)),),
        )

    @cached_property
    def lineage(self) -> Lineage:
        from taut.trust.lineage import Lineage

        return Lineage(self.clock)

    @cached_property
    def identity(self) -> Identity:
        from taut.trust.identity import Identity

        return Identity(self.records, self.keys, self.ledger, self.clock, self.ids, self.random)

    @cached_property
    def policy(self) -> Rights:
        from taut.trust.breakglass import BreakGlass
        from taut.workflows.rights import Rights

        glass = BreakGlass(self.records, self.ledger, self.clock, self.ids)
        return Rights(self.plans, glass, held=self.alarms.held)

    @cached_property
    def data_keys(self) -> InstallationKeys:
        """Keys of what is written and is of no person."""
        from taut.trust.envelope import InstallationKeys, Keyring

        return InstallationKeys(self.records, Keyring(self.keys, self.random, self.clock))

    @cached_property
    def sealer(self) -> Sealer:
        from taut.trust.sealing import Sealer

        return Sealer(self.records, self.keys, self.random, self.clock)

    @cached_property
    def data(self) -> Data:
        from taut.lifecycle.data import Data

        return Data(
            records=self.records, blobs=self.blobs, tables=self.tables, ledger=self.ledger, lineage=self.lineage,
            sealer=self.sealer, sources=adapters.open_sources(self.config), clock=self.clock, ids=self.ids,
            random=self.random, scratch=self.scratch,
        )  # fmt: skip

    @cached_property
    def features(self) -> FeatureStore:
        from taut.lifecycle.features import FeatureStore

        return FeatureStore(
            records=self.records, blobs=self.blobs, tables=self.tables, ledger=self.ledger, lineage=self.lineage,
            jobs=self.jobs, online_writer=self._online[1], clock=self.clock, scratch=self.scratch,
        )  # fmt: skip

    @cached_property
    def training(self) -> Training:
        from taut.lifecycle.training import Training

        return Training(
            records=self.records, blobs=self.blobs, tables=self.tables, ledger=self.ledger, lineage=self.lineage,
            jobs=self.jobs, keys=self.keys, clock=self.clock, ids=self.ids, environment=self.plans.environment(),
            scratch=self.scratch,
        )  # fmt: skip

    @cached_property
    def registry(self) -> Registry:
        from taut.lifecycle.registry import Registry

        return Registry(
            records=self.records, blobs=self.blobs, keys=self.keys, ledger=self.ledger, lineage=self.lineage,
            clock=self.clock, ids=self.ids,
        )  # fmt: skip

    @cached_property
    def releases(self) -> Releases:
        from taut.lifecycle.release import Releases

        return Releases(
            records=self.records, ledger=self.ledger, lineage=self.lineage, clock=self.clock, ids=self.ids
        )

    @cached_property
    def results(self) -> Results:
        from taut.lifecycle.batch import Results

        return Results(
            records=self.records, tables=self.tables, ledger=self.ledger, lineage=self.lineage, clock=self.clock
        )  # fmt: skip

    @cached_property
    def plans(self) -> Plans:
        from taut.lifecycle.plans import Plans

        return Plans(
            records=self.records, blobs=self.blobs, ledger=self.ledger, lineage=self.lineage, clock=self.clock,
            ids=self.ids, keys=self.keys,
        )  # fmt: skip

    @cached_property
    def stories(self) -> Stories:
        from taut.adapters.stories import JournalStories
        from taut.workflows.stories import stories

        engine = JournalStories(
            self.records, stories(self), clock=self.clock, ids=self.ids, random=self.random,
            patience_s=self.patience_s,
        )  # fmt: skip
        self._stack.callback(engine.stop)
        return engine

    @cached_property
    def snapshots(self) -> SnapshotStore:
        from taut.serving.snapshot import SnapshotStore, TrustFile

        folder = self.home / "serving"
        store = SnapshotStore(folder, TrustFile(folder / "trust.json"))
        store.trust(self.keys.public_keys(purpose="snapshot"))
        return store

    @cached_property
    def predictions(self) -> PredictionReader:
        from taut.serving.predictions import PredictionReader, SegmentKeys

        keys = SegmentKeys(lambda: self.data_keys.versions("predictions"))
        return PredictionReader(self.home / "log" / "predictions", keys)

    @cached_property
    def environment_lock(self) -> str:
        """Digest of every installed distribution and its version, which are kept in Blobs."""
        found = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
        return self.blobs.put(canonical_json(found))

    def publish(self) -> Published:
        """Compose, sign and push what is to be served now; see `taut.workflows.rooms.Publish`."""
        from taut.serving.snapshot import sign_snapshot
        from taut.workflows.publish import compose, outcome, what_changes
        from taut.workflows.rooms import Published

        with self._publishing:
            told = what_changes(self)  # before: what changes meanwhile is found to be new
            if self.publisher is not None:
                self.machines = tuple(one.machine for one in self.publisher.machines())
            snapshot = compose(
                self, policy=self.policy.now(), max_age_s=MAX_AGE_S, gateways=self.gateways, machines=self.machines,
                url=self.url, log_key=self.predictions.keys.public,
                above=self.snapshots.issued(),
            )  # fmt: skip
            statement = sign_snapshot(self.keys, snapshot)
            self.snapshots.trust(self.keys.public_keys(purpose="snapshot"))  # after: the key may be a new one
            if self.admitting is not None:
                self.admitting.offer(snapshot.epoch, snapshot.policy_digest)
            if self.publisher is None:
                self.snapshots.save(statement.to_json())
            else:
                self.publisher.publish(statement)
            self.published = told
        if self.publisher is None:
            return Published(epoch=snapshot.epoch)
        return outcome(snapshot.epoch, self.publisher.wait(snapshot.epoch, timeout_s=_PUSH_TIMEOUT_S))

    def place_model(self, version: VersionRef) -> tuple[str, str]:
        """Put a version's model, as it was signed, into home/serving/models, where gateways read it.

        What lies there whole is taken: a stored model that was damaged later does not keep it from being served.
        """
        from taut.serving.snapshot.store import write_atomically

        digest = self.registry.model_digest(version)
        suffix = Path(self.registry.signature(version).file).suffix
        target = self.home / "serving" / "models" / f"{digest.removeprefix('sha256:')}{suffix}"
        if not (target.exists() and digest_bytes(target.read_bytes()) == digest):
            write_atomically(target, self.registry.load(version, to_serve=True).model)
        return digest, str(target.relative_to(self.home))


@contextmanager
def open_platform(home: Path, *, environ: Mapping[str, str]) -> Iterator[Platform]:
    """Yield the installation in `home`; the caller holds its lock. Everything opened is closed at the end.

    What work that was killed left in the home's scratch folder is removed first: nobody else works in the home.
    Raises Conflict where the home is a further machine of another installation.
    """
    config = Config.load(home, environ)
    refuse_joined(config.home)
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(config.work)
    _empty(config.work / _SCRATCH)
    with ExitStack() as stack:
        yield Platform(config, stack)


def _own(folder: Path) -> None:
    """Make the folder for what is worked on. Raises Denied where somebody else made it before, to read what comes there."""
    with as_unavailable(f"{folder} cannot be made or read"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            raise Denied(f"{folder} is not yours: remove it, or name another folder by TAUT_SCRATCH")


def _empty(folder: Path) -> None:
    """Leave a private folder with nothing in it; it stays once made, so that a full disk is no reason not to start."""
    with as_unavailable(f"{folder} cannot be made or read"):
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
