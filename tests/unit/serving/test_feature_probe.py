"""The probe of online features: what makes an endpoint unready, and what makes it ready again by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from taut.adapters.online import SqliteOnlineReader, open_online_writer
from taut.adapters.online.sqlite import SqliteOnlineWriter
from taut.core.schema import Column, DType, FeatureLookup, ModelInput, ModelSignature
from taut.ports.online import OnlineRow
from taut.serving.gateway import FeatureProbe
from taut.serving.snapshot import EndpointConfig, ServedModel

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


def endpoint(
    *,
    max_age_s: float | None = None,
    event_time: str | None = None,
    dtype: DType = DType.FLOAT,
    name: str = "waiting",
) -> EndpointConfig:
    columns = [Column("warehouse", DType.STRING)]
    if event_time is not None:
        columns.append(Column(event_time, DType.DATETIME))
    signature = ModelSignature(
        request=tuple(columns),
        inputs=(ModelInput(column=Column(name, dtype), feature_set="load"),),
        lookups=(
            FeatureLookup(
                feature_set="load", entity=("warehouse",), keys=("warehouse",), max_age_s=max_age_s
            ),
        ),
        event_time=event_time,
        output="value",
    )
    live = ServedModel(
        version="late@1", release="rel_1", artifact="sha256:0", path="x", signature=signature,
        feature_columns={"load": {"load@1": ("busy", "waiting")}},
    )  # fmt: skip
    return EndpointConfig(name="late", live=live)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "online.db"


@pytest.fixture
def writer(path: Path) -> Iterator[SqliteOnlineWriter]:
    with open_online_writer(path) as opened:
        yield opened


def put(
    writer: SqliteOnlineWriter, count: int = 5, *, at_us: int = NOW_US - HOUR_US, source: str = "load@1",
    values: tuple[object, ...] = (True, 2.5),
) -> None:  # fmt: skip
    writer.put("load", (((f"w{index:05}",), OnlineRow(at_us, values, source)) for index in range(count)))  # type: ignore[arg-type]  # scalars


@pytest.fixture
def look(path: Path) -> Iterator[Callable[..., str]]:
    with closing(SqliteOnlineReader(path)) as reader:
        probe = FeatureProbe(reader, rows=10)

        def look(config: EndpointConfig | None = None, *, now_us: int = NOW_US) -> str:
            found = probe.look([config or endpoint()], now_us)
            return "; ".join(found.get("late", ()))

        yield look


Look = Callable[..., str]


def test_features_that_are_there_leave_an_endpoint_ready(writer: SqliteOnlineWriter, look: Look) -> None:
    put(writer, 25)

    assert [look() for _ in range(8)] == [""] * 8


def test_a_store_that_is_absent_is_said_and_heals(path: Path, look: Look) -> None:
    assert "does not answer" in look()
    with open_online_writer(path) as writer:
        put(writer)
        assert look() == ""


def test_an_empty_set_is_said_and_heals(writer: SqliteOnlineWriter, look: Look) -> None:
    assert "'load' is empty" in look()
    put(writer)
    assert look() == ""
    writer.delete("load", [(f"w{index:05}",) for index in range(5)])
    assert "'load' is empty" in look()


def test_a_file_that_is_no_store_is_said_and_heals(path: Path, look: Look) -> None:
    path.write_bytes(b"no database at all" * 500)
    assert "is damaged" in look()
    path.unlink()
    with open_online_writer(path) as writer:
        put(writer)
        assert look() == ""


def test_one_damaged_row_of_many_is_found_in_a_pass_and_heals(
    path: Path, writer: SqliteOnlineWriter, look: Look
) -> None:
    put(writer, 45)
    writer._connection.execute("UPDATE online_rows SET row = CAST('x' || substr(row, 2) AS BLOB) WHERE key = (SELECT max(key) FROM online_rows)")  # fmt: skip

    found = [look() for _ in range(5)]

    assert [bool(said) for said in found] == [False] * 4 + [True]
    assert "is not what was written" in found[-1]
    assert "is not what was written" in look()
    put(writer, 45)
    assert look() == ""


def test_a_time_that_was_moved_beside_its_row_is_damage(writer: SqliteOnlineWriter, look: Look) -> None:
    put(writer)
    writer._connection.execute("UPDATE online_rows SET event_time_us = event_time_us + 1")

    assert "is not what was written" in look()


def test_rows_of_a_materialisation_that_nobody_knows_are_said(writer: SqliteOnlineWriter, look: Look) -> None:
    put(writer, source="load@9")

    assert "are of 'load@9', which this snapshot does not know" in look()


def test_a_few_rows_that_are_being_replaced_are_no_reason(writer: SqliteOnlineWriter, look: Look) -> None:
    put(writer, 5)
    put(writer, 2, source="load@2", at_us=NOW_US)

    assert look() == ""


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (endpoint(name="gone"), (True, 2.5), "has no column 'gone'"),
        (endpoint(), (True,), "has 1 values, not 2"),
        (endpoint(), (True, "much"), "'waiting' of load@1 is no float"),
        (endpoint(dtype=DType.STRING), (True, 2.5), "'waiting' of load@1 is no string"),
    ],
)
def test_rows_of_another_form_than_the_model_knows_are_said(
    writer: SqliteOnlineWriter, look: Look, config: EndpointConfig, values: tuple[object, ...], said: str
) -> None:
    put(writer, values=values)

    assert said in look(config)


def test_a_set_all_of_whose_rows_are_too_old_is_stale_and_heals(
    writer: SqliteOnlineWriter, look: Look
) -> None:
    config = endpoint(max_age_s=7200.0)
    put(writer, 25)

    assert look(config) == ""
    later_us = NOW_US + 2 * HOUR_US
    assert "'load' is stale: its newest row is of 2027-01-15T07:00:00+00:00, older than 7200 s" in look(
        config, now_us=later_us
    )
    put(writer, 25, at_us=later_us)
    assert look(config, now_us=later_us) == ""


def test_one_row_that_is_young_enough_keeps_a_set_from_being_stale(
    writer: SqliteOnlineWriter, look: Look
) -> None:
    put(writer, 45, at_us=NOW_US - 9 * HOUR_US)
    writer.put("load", [(("w00044",), OnlineRow(NOW_US, (True, 1.0), "load@1"))])

    assert [look(endpoint(max_age_s=7200.0)) for _ in range(12)] == [""] * 12


def test_where_requests_bring_their_own_time_no_set_is_stale(writer: SqliteOnlineWriter, look: Look) -> None:
    put(writer, at_us=1)

    assert look(endpoint(max_age_s=60.0, event_time="at")) == ""


def test_a_store_that_was_replaced_is_read_by_requests_too_and_written_by_the_writer(
    path: Path, tmp_path: Path
) -> None:
    with open_online_writer(path) as writer, closing(SqliteOnlineReader(path)) as reader:
        probe = FeatureProbe(reader)
        put(writer)
        assert reader.get_now("load", ("w00001",)) is not None
        for left in tmp_path.glob("online.db*"):
            left.unlink()
        probe.look([endpoint()], NOW_US)
        with pytest.raises(Exception, match="does not answer"):
            reader.get_now("load", ("w00001",))

        put(writer, source="load@1", values=(False, 1.0))

        assert probe.look([endpoint()], NOW_US) == {}
        found = reader.get_now("load", ("w00001",))
        assert found is not None
        assert found.values == (False, 1.0)


def test_a_failure_of_ours_is_said_and_not_taken_for_soundness(tmp_path: Path) -> None:
    import asyncio

    from taut.adapters.keys.file import FileKeys
    from taut.adapters.world import SystemRandom
    from taut.serving.gateway import GatewayNode
    from taut.testing.serving import DataPlane, open_gateway

    class Broken:
        def walk(self, *_: object) -> object:
            raise ZeroDivisionError("planted")

        newest_us = walk

    plane = DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
    with open_gateway(tmp_path, SystemRandom()) as gateway:
        node = GatewayNode(
            gateway, home=tmp_path, name="g", store=plane.store, trust=plane.trust, random=SystemRandom(),
            probe=FeatureProbe(Broken()),  # type: ignore[arg-type]  # a planted fault
        )  # fmt: skip
        reasons = asyncio.run(node._look(plane.snapshot(endpoint())))

    assert "could not be looked at (ZeroDivisionError: planted)" in reasons["late"][0]


def test_rows_of_another_definition_than_the_models_are_said_until_most_are_its_own(
    writer: SqliteOnlineWriter, look: Callable[..., str]
) -> None:
    config = endpoint()
    columns = {"load": dict.fromkeys(("load@1", "load@2", "load@3"), ("busy", "waiting"))}
    live = msgspec.structs.replace(
        config.live, feature_columns=columns, redefined={"load": ("load@2",), "other": ("load@1",)}
    )
    config = msgspec.structs.replace(config, live=live)
    put(writer, 3, source="load@1")
    assert look(config) == ""

    put(writer, 3, at_us=NOW_US - HOUR_US + 1, source="load@2")

    assert "load@2 was made by another definition than late@1 was trained with: train it again" in look(
        config
    )

    put(writer, 3, at_us=NOW_US - HOUR_US + 2, source="load@3")
    assert look(config) == ""
