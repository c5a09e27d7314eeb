"""One request through a graph: nodes of one step side by side, wherever they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Final

from taut.core.errors import DeadlineExceeded, Unavailable
from taut.serving.errors import WorkerLost
from taut.serving.graphs.model import GraphModel
from taut.serving.graphs.work import NodeWork
from taut.serving.runtime import Outcome, Outputs
from taut.serving.runtime.graph import Ask, Columns, Said, attempt, named
from taut.serving.workers import Wait, WorkerModel

Watch = Callable[[str], AbstractContextManager[None]]
RESERVE: Final = 0.1
"""Of a request's time, kept for an answer without the node that did not come."""


class GraphRun:
    """Drives the steps of one request: nodes of one step side by side, those in this process after the others were sent off.

    deadline_ns: by the gateway's counter. work: told what each node did. observe: told how long a node waited for a worker. watch: lets a node's breaker
    know how asking its workers ends, and raises BreakerOpen instead of beginning while it is open.
    """

    def __init__(
        self,
        model: GraphModel,
        work: NodeWork,
        *,
        pool: Executor,
        counter_ns: Callable[[], int],
        deadline_ns: int,
        priority: int,
        caller: str,
        observe: Callable[[int], None],
        watch: Watch,
    ) -> None:
        self._model: Final = model
        self._work: Final = work
        self._pool: Final = pool
        self._counter_ns: Final = counter_ns
        self._priority: Final = priority
        self._caller: Final = caller
        self._observe: Final = observe
        self._watch: Final = watch
        self._deadline_ns: Final = deadline_ns

    async def outcome(self, columns: Columns, count: int) -> Outcome:
        """Return the answer. Raises as `Graph.steps` does."""
        steps = self._model.graph.steps(columns, count)
        try:
            asks = next(steps)
            while True:
                said = [await self._node(asks[0])] if len(asks) == 1 else await self._together(asks)
                asks = steps.send(said)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    async def _together(self, asks: list[Ask]) -> list[Said]:
        try:
            async with asyncio.TaskGroup() as group:  # cancelled whole with whoever asked
                sent = {
                    ask.node: group.create_task(self._node(ask))
                    for ask in asks
                    if isinstance(self._model.nodes[ask.node], WorkerModel)
                }
                await asyncio.sleep(0)  # they are on their way before this loop is busy with the others
                here = {ask.node: await self._node(ask) for ask in asks if ask.node not in sent}
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [here[ask.node] if ask.node in here else sent[ask.node].result() for ask in asks]

    async def _node(self, ask: Ask) -> Said:
        began = self._work.begin()
        model = self._model.nodes[ask.node]
        try:
            if isinstance(model, WorkerModel):
                said: Said = await self._worker(ask, model)
            elif ask.rows <= self._model.inline_rows[ask.node]:
                said = attempt(ask, model)
            else:
                loop = asyncio.get_running_loop()
                left_s = (self._deadline_ns - self._counter_ns()) / 1e9
                said = await asyncio.wait_for(loop.run_in_executor(self._pool, attempt, ask, model), left_s)
        except TimeoutError:
            said = named(ask.node, DeadlineExceeded("it was not done in time: allow more time or send less"))
        except Unavailable as error:
            said = named(ask.node, error)
        self._work.end(ask.node, began, said)
        return said

    async def _worker(self, ask: Ask, model: WorkerModel) -> Outputs:
        lane = model.lane
        if not lane.alive:  # to wait for one would cost the others their time
            raise WorkerLost(f"no worker of {lane.name} is ready: try again")
        wait = Wait()
        within_s = (self._deadline_ns - self._counter_ns()) / 1e9
        try:
            with self._watch(ask.node):
                return await self._asked(ask, model, within_s, wait)
        finally:
            self._observe(int(wait.seconds * 1e9))

    async def _asked(self, ask: Ask, model: WorkerModel, within_s: float, wait: Wait) -> Outputs:
        tensor = await model.lane.run(
            ask.feed, ask.rows, within_s=within_s, priority=self._priority, caller=self._caller, wait=wait
        )
        if wait.worker:
            self._work.workers.append(wait.worker)
        return model.check(tensor, ask.rows)
