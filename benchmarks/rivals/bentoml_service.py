"""The model under BentoML: one worker, without batching, which made it slower."""

import bentoml
from shared_model import open_model


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Plain:
    def __init__(self) -> None:
        self.score = open_model()

    @bentoml.api
    async def predict(self, instances: list[list[float]]) -> dict:
        return {"predictions": self.score(instances).tolist()}
