"""What control does between requests: the ledger sequenced, the prediction log sealed, gateways up to date."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

import msgspec

from taut.bootstrap.platform import MAX_AGE_S, Platform
from taut.bootstrap.retraining import look_at_triggers
from taut.core.errors import TautError
from taut.ports.records import transact
from taut.serving.predictions import Sealer as SegmentSealer
from taut.serving.predictions import SegmentSeal
from taut.trust.ledger import Entry
from taut.workflows.canary import look as look_at_canaries
from taut.workflows.decisions import tell_decisions
from taut.workflows.drills import lift_forsaken
from taut.workflows.experiment import look as look_at_experiments
from taut.workflows.publish import what_changes
from taut.workflows.rotation import finish
from taut.workflows.shadow import look_at_shadows

LogFailure = Callable[[str, BaseException], None]
Warn = Callable[..., None]
"""Called with an event and its fields, for what somebody must see."""

_TICK_S: Final = 0.1
_ADMIT_S: Final = 0.2
_PUBLISH_S: Final = 0.25
_SCALE_S: Final = 1.0
_SEQUENCE_S: Final = 0.5
_CANARY_S: Final = 1.0
_LOOK_S: Final = 2.0
_OBJECTIVES_S: Final = 5.0
_SEAL_S: Final = 2.0
_TRIGGERS_S: Final = 2.0
_DRILLS_S: Final = 5.0
_DECISIONS_S: Final = 5.0
_CHECKPOINT_S: Final = 60.0
_EMERGENCY_S: Final = 30.0
_ROTATION_S: Final = 30.0
_PAUSE_MAX_S: Final = 60.0
_IDENTITY_S: Final = 5.0
_REFRESH_S: Final = MAX_AGE_S / 6


class Housekeeper:
    """One thread with a few duties, each due at its own pace; one that fails is said and tried again, the others go on.

    A context manager; at its end the ledger is signed up to what was done last. Not guaranteed: punctuality; every duty also happens in the operation that needs it.
    """

    def __init__(self, platform: Platform, *, log: LogFailure, warn: Warn | None = None) -> None:
        self._platform: Final = platform
        self._log: Final = log
        self._warn: Final = warn
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="housekeeper", daemon=True)
        self._checkpointed = -1
        self._failures: Final[dict[str, int]] = {}
        self._duties: Final[list[tuple[str, float, Callable[[], None]]]] = [
            ("keep the fleet admitted", _ADMIT_S, self._admit),
            ("scale the fleet", _SCALE_S, self._scale),
            ("publish what changed", _PUBLISH_S, self._publish_changes),
            ("judge canaries", _CANARY_S, self._judge_canaries),
            ("judge experiments", _CANARY_S, self._judge_experiments),
            ("judge shadows", _CANARY_S, self._judge_shadows),
            ("sequence the ledger", _SEQUENCE_S, self._sequence),
            ("look for alarms", _LOOK_S, self._look),
            ("watch objectives", _OBJECTIVES_S, self._watch_objectives),
            ("tell stories of decisions", _DECISIONS_S, self._tell_decisions),
            ("lift what drills left", _DRILLS_S, self._lift_drills),
            ("look at triggers", _TRIGGERS_S, self._look_at_triggers),
            ("seal the prediction log", _SEAL_S, self._seal),
            ("sign a checkpoint", _CHECKPOINT_S, self._checkpoint),
            ("finish a rotation of keys", _ROTATION_S, self._finish_rotations),
            ("renew the serving snapshot", _REFRESH_S, self._refresh),
            ("keep this machine's identity", _IDENTITY_S, self._keep_identity),
            ("look for an emergency", _EMERGENCY_S, self._say_emergency),
        ]

    def __enter__(self) -> Housekeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)
        self._do("keep the fleet admitted", self._admit)
        self._do("keep what objectives counted", self._keep_objectives)
        self._do("sequence the ledger", self._sequence)
        self._do("sign a checkpoint", self._checkpoint)

    def _run(self) -> None:
        now_s = self._platform.clock.monotonic_s
        due = {name: now_s() + every_s for name, every_s, _ in self._duties}
        while not self._stop.wait(_TICK_S):
            for name, every_s, duty in self._duties:
                if now_s() >= due[name]:
                    due[name] = now_s() + max(every_s, self._do(name, duty))

    def _do(self, name: str, duty: Callable[[], object]) -> float:
        """Do a duty and return how long to rest it at least: longer after each failure, so that logs stay small."""
        try:
            duty()
        except TautError as error:
            self._log(f"could not {name}, will try again ({error.code})", error)
        except Exception as error:  # noqa: BLE001 - a bug in one duty must not end the others; it is said
            self._log(f"could not {name}, will try again", error)
        else:
            self._failures.pop(name, None)
            return 0.0
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        return min(_PAUSE_MAX_S, _TICK_S * 2.0 ** min(failures, 16))

    def _publish_changes(self) -> None:
        """Push to the gateways what they do not know: people, keys, revocations, the project's words.

        Also releases, which push themselves unless a crash or a failure came between, or another process made them; and
        machines that join or leave, since all gateways share a quota.
        """
        platform = self._platform
        there = () if platform.publisher is None else platform.publisher.machines()
        if what_changes(platform) != platform.published or platform.machines != tuple(
            one.machine for one in there
        ):
            platform.publish()

    def _judge_canaries(self) -> None:
        if self._platform.publisher is not None:
            look_at_canaries(self._platform, self._platform.publisher.gateways())

    def _judge_experiments(self) -> None:
        if self._platform.publisher is not None:
            look_at_experiments(self._platform, self._platform.publisher.gateways())

    def _judge_shadows(self) -> None:
        if self._platform.publisher is not None:
            look_at_shadows(self._platform, self._platform.publisher.gateways())

    def _look(self) -> None:
        self._platform.alarms.look()

    def _keep_objectives(self) -> None:
        self._platform.watches.objectives(self._platform).close()

    def _watch_objectives(self) -> None:
        self._platform.watches.standings(self._platform)

    def _admit(self) -> None:
        if self._platform.admitting is not None:
            self._platform.admitting.tick()

    def _scale(self) -> None:
        if self._platform.scaling is not None:
            self._platform.scaling.look()

    def _refresh(self) -> None:
        self._platform.publish()

    def _keep_identity(self) -> None:
        self._platform.parts.keep()

    def _say_emergency(self) -> None:
        found = self._platform.policy.glass.holding()
        if found is not None and self._warn is not None:
            self._warn("an emergency holds", id=found.id, reason=found.reason, until=found.until.isoformat())

    def _sequence(self) -> None:
        self._platform.ledger.sequence()

    def _checkpoint(self) -> None:
        size = self._platform.ledger.size()
        if size != self._checkpointed:
            self._checkpointed = self._platform.ledger.checkpoint().size

    def _tell_decisions(self) -> None:
        tell_decisions(self._platform, self._platform.stories)

    def _finish_rotations(self) -> None:
        finish(self._platform, actor="control", progress=lambda _said, _share: None)

    def _lift_drills(self) -> None:
        lift_forsaken(self._platform, self._platform.stories)

    def _look_at_triggers(self) -> None:
        look_at_triggers(self._platform)

    def _seal(self) -> None:
        seal_segments(self._platform)


def seal_segments(platform: Platform) -> int:
    """Put the root of each closed segment of the prediction log into the ledger, once; return how many."""
    sealer = SegmentSealer(platform.home / "log" / "predictions", platform.predictions.keys)
    count = 0
    for seal in sealer.pending():
        _record(platform, seal)
        sealer.mark(seal)
        count += 1
    return count


def _record(platform: Platform, seal: SegmentSeal) -> None:
    kind, subject = "predictions.sealed", f"segment:{seal.segment}"
    if platform.ledger.show(kind=kind, subject=subject, limit=1):
        return  # a crash came between the leaf and the mark; only one process seals
    entry = Entry(kind=kind, subject=subject, actor="control", body=msgspec.to_builtins(seal))
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))
