"""Workers: models in processes of their own, batches that cost no waiting, and a line that stays short."""

from taut.serving.workers.fleet import Fleet, StartZygote, WorkerModel
from taut.serving.workers.lane import Lane
from taut.serving.workers.queue import Item, Line, Plan, Wait, plan
from taut.serving.workers.rota import Rota, Tell
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Order

__all__ = [
    "Fleet",
    "Item",
    "Lane",
    "LaneSettings",
    "Line",
    "Order",
    "Plan",
    "Rota",
    "StartZygote",
    "Tell",
    "Wait",
    "WorkerModel",
    "plan",
]
