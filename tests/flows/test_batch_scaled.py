"""A batch on PostgreSQL and an object store: the same result as on a laptop."""

from __future__ import annotations

import pytest
from scaled import Scaled

pytestmark = pytest.mark.xdist_group("scaled")


def test_a_batch_gives_the_same_answers_on_servers(scaled: Scaled) -> None:
    words = ("batch", "late", "--from", "orders", "--to", "scores", "--chunk-rows", "1500")

    told = scaled.shop(*words)

    assert (told["result"], told["rows"], told["rejected_rows"]) == ("scores@1", 5_981, 0)
    assert scaled.shop(*words)["unchanged"]
    (row,) = scaled.shop("batch", "get", "scores", "--key", "17")["rows"]
    assert row["_row_id"] == 16
    assert scaled.shop("why", "result:scores@1#16")["tree"]["made_by"][0]["activity"] == "batch"
