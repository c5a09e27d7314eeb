"""New York flights of 2013: will this flight arrive more than 15 minutes late?

Asked at the beginning of its hour of departure, with what is known then: the schedule, the last weather report of
its airport, and how late the flights were that arrived there in the hours before.
"""

import polars as pl

import taut

flights = taut.Dataset(
    "flights",
    source=taut.files("data/flights-*.csv"),
    contract=taut.Contract.from_odcs("contracts/flights.yaml"),
    entity="flight_id",
    event_time="hour_at",
)

weather = taut.Dataset(
    "weather",
    source=taut.files("data/weather.csv"),
    contract=taut.Contract(
        columns=[
            taut.column("origin", "string", allowed=["EWR", "JFK", "LGA"]),
            taut.column("time_hour", "datetime"),
            taut.column("temp", "float", nullable=True, minimum=-30, maximum=120),
            taut.column("dewp", "float", nullable=True, minimum=-40, maximum=100),
            taut.column("humid", "float", nullable=True, minimum=0, maximum=100),
            taut.column("wind_speed", "float", nullable=True, minimum=0, maximum=150),
            taut.column("precip", "float", minimum=0, maximum=10),
            taut.column("pressure", "float", nullable=True, minimum=870, maximum=1085),
            taut.column("visib", "float", minimum=0, maximum=20),
        ],
        rules=[taut.rule("dew point not above temperature", "dewp IS NULL OR temp IS NULL OR dewp <= temp")],
        unique=[["origin", "time_hour"]],
        extra_columns="drop",
    ),
    entity="origin",
    event_time="time_hour",
)

planes = taut.Dataset(
    "planes",
    source=taut.files("data/planes.csv"),
    contract=taut.Contract(
        columns=[
            taut.column("tailnum", "string", pattern="N[0-9A-Z]{2,5}", unique=True),
            taut.column("year", "int", minimum=1950, maximum=2014),
            taut.column("manufacturer", "string"),
            taut.column("engines", "int", minimum=1, maximum=4),
            taut.column("seats", "int", minimum=1, maximum=500),
        ],
        extra_columns="drop",
    ),
    entity="tailnum",
)


@taut.features(
    "sky", entity=["origin"], event_time="time_hour", sources=[weather], max_age="3h", online=True,
)  # fmt: skip
def sky(weather: pl.LazyFrame) -> pl.LazyFrame:
    """The last weather report of an airport."""
    return weather.select(
        "origin", "time_hour", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"
    )


@taut.features(
    "congestion", entity=["origin"], event_time="known_at", sources=[flights], max_age="3h", online=True,
)  # fmt: skip
def congestion(flights: pl.LazyFrame) -> pl.LazyFrame:
    """How late the flights were of which the arrival became known in the last three hours.

    An hour's figures are stamped with the end of that hour, so that nothing is read before it was known.
    """
    hourly = (
        flights.with_columns(known_at=pl.col("arrived_at").dt.truncate("1h") + pl.duration(hours=1))
        .group_by("origin", "known_at")
        .agg(late=pl.col("late").sum(), landed=pl.len(), delay=pl.col("dep_delay").sum())
        .sort("origin", "known_at")
    )
    return (
        hourly.rolling("known_at", period="3h", group_by="origin")
        .agg(late=pl.col("late").sum(), landed=pl.col("landed").sum(), delay=pl.col("delay").sum())
        .select(
            "origin", "known_at",
            late_share=pl.col("late") / pl.col("landed"),
            mean_delay=pl.col("delay") / pl.col("landed"),
        )
    )  # fmt: skip


@taut.model(
    "delay",
    dataset=flights,
    features=[sky, congestion],
    request=["carrier", "origin", "dest", "distance", "departs_minute", "weekday"],
    label="late",
    label_at="arrived_at",
    split=taut.by_time(test="30d", gap="1d"),
    gates=[taut.metric("auc", minimum=0.65), taut.no_regression("auc", tolerance=0.01)],
    approval=taut.approval(1),
    resources=taut.Resources(cpu=2, memory="4GiB", timeout="10m"),
    params={"trees": 150, "leaves": 31},
    risk="medium",
)
def train(ctx: taut.TrainContext) -> taut.Trained:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    words = ["carrier", "origin", "dest"]
    numbers = [
        "distance", "departs_minute", "weekday",
        "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib",
        "late_share", "mean_delay",
    ]  # fmt: skip
    model = make_pipeline(
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), words),
            ("passthrough", numbers),
        ),
        HistGradientBoostingClassifier(
            max_iter=ctx.params["trees"], max_leaf_nodes=ctx.params["leaves"], random_state=ctx.seed
        ),
    )
    model.fit(ctx.train.select(words + numbers), ctx.train["late"])
    return taut.Trained(model, inputs=words + numbers, output="probability")


delay = taut.Endpoint(
    "delay",
    model=train,
    release=taut.Direct(),
    slo=taut.SLO(availability=0.999, latency_p95_ms=20),
    audit="crash-safe",
)
