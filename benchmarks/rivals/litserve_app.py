"""The model under LitServe: one API server, one worker, without batching, which made it slower.

Without annotations, from which LitServe would derive how a body is read.
"""

import os

import litserve as ls
from shared_model import open_model


class Api(ls.LitAPI):
    def setup(self, device):  # noqa: ARG002 - the framework calls it so
        self.score = open_model()

    def decode_request(self, request):
        return request["instances"]

    def predict(self, rows):
        return self.score(rows).tolist()

    def encode_response(self, output):
        return {"predictions": output}


if __name__ == "__main__":
    ls.LitServer(Api(), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(os.environ["PORT"]), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip
