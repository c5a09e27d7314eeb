"""What a lane is told: how many workers, what an answer may take, and when one of them is given up."""

from __future__ import annotations

import msgspec

from taut.serving.runtime import Cost, Profile
from taut.serving.workers.queue import Plan, plan


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """workers: processes that take batches. spares: that wait, loaded, for one of them to end. latency_s: what an answer may
    take, by which batches are sized, and how boldly, by `profile`. hang_s: a worker that takes longer over a batch, and twenty times longer than its fit
    says, is killed and replaced. memory_bytes: of one worker; one that takes clearly more is killed and replaced. 0 leaves
    it to the limit that the worker itself was given. device_pause_s: how long an accelerator that failed is left alone, the
    first time; device_load_s: how long a worker may take to load the model there, so short that another can still load it on
    the CPU before whoever waits gives up. cpus: processors that a worker may keep busy with all of its threads, for each thread that its model was given; 0
    for any. One that takes more stands still until it has paid for it. risk: of its endpoint, by which its workers may go on by grace.
    """

    workers: int = 1
    spares: int = 0
    latency_s: float = 1.0
    profile: Profile = "latency"
    hang_s: float = 10.0
    memory_bytes: int = 0
    device_pause_s: float = 5.0
    device_load_s: float = 30.0
    cpus: float = 0.0
    risk: str = "high"

    def plan(self, cost: Cost) -> Plan:
        """Return what a model of this cost allows."""
        return plan(cost, workers=self.workers, latency_s=self.latency_s, profile=self.profile)
