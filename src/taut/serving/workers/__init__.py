"""Workers: models in processes of their own, batches that cost no waiting, and a line that stays short."""

from taut.serving.workers.fleet import Fleet, StartZygote, Warden, WorkerModel
from taut.serving.workers.lane import Lane
from taut.serving.workers.leave import Charge, Granted, Leave, Refused, Unwarded, Ward
from taut.serving.workers.queue import Item, Line, Plan, Wait, plan
from taut.serving.workers.rota import Rota, Tell
from taut.serving.workers.settings import LaneSettings
from taut.serving.workers.worker import Order

__all__ = [
    "Charge",
    "Fleet",
    "Granted",
    "Item",
    "Lane",
    "LaneSettings",
    "Leave",
    "Line",
    "Order",
    "Plan",
    "Refused",
    "Rota",
    "StartZygote",
    "Tell",
    "Unwarded",
    "Wait",
    "Ward",
    "Warden",
    "WorkerModel",
    "plan",
]
