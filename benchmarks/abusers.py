"""Simulated callers of an endpoint: honest ones with habits of their own, and attackers by the books."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

Row = tuple[Any, ...]
Oracle = Callable[[list[Row]], list[float]]
"""Answers rows with the probability of the positive class, as the endpoint would."""

Play = Callable[["World", Oracle, np.random.Generator], Iterator[list[Row]]]
"""A caller: yields his next queries, which he may choose by what the oracle says of earlier ones."""


class World:
    """What callers know. columns: of a request. real: rows as they come, in the order of time. ranges: of each column, the
    values that it may take (words) or the least and the greatest (numbers)."""

    def __init__(self, columns: tuple[str, ...], real: list[Row]) -> None:
        self.columns: Final = columns
        self.real: Final = real
        self.at: Final = {name: at for at, name in enumerate(columns)}
        self.numbers: Final = [at for at in range(len(columns)) if isinstance(real[0][at], int | float)]
        self.words: Final = {
            at: sorted({row[at] for row in real}) for at in range(len(columns)) if at not in self.numbers
        }
        self.low: Final = {at: min(row[at] for row in real) for at in self.numbers}
        self.high: Final = {at: max(row[at] for row in real) for at in self.numbers}

    def uniform(self, choose: np.random.Generator) -> Row:
        """Return a row of independent values, each equally likely."""
        return tuple(
            int(choose.integers(self.low[at], self.high[at] + 1))
            if at in self.low
            else self.words[at][choose.integers(len(self.words[at]))]
            for at in range(len(self.columns))
        )

    def with_value(self, row: Row, at: int, value: Any) -> Row:
        if at in self.low:
            value = int(min(max(value, self.low[at]), self.high[at]))
        return (*row[:at], value, *row[at + 1 :])

    def changed(self, row: Row, choose: np.random.Generator) -> Row:
        """Return a row with one column set to something else."""
        at = int(choose.integers(len(self.columns)))
        return self.with_value(row, at, self.uniform(choose)[at])

    def jittered(self, row: Row, choose: np.random.Generator) -> Row:
        """Return a row with small changes in numbers."""
        for at in self.numbers:
            width = max(1.0, (self.high[at] - self.low[at]) * 0.01)
            row = self.with_value(row, at, row[at] + choose.integers(-int(width), int(width) + 1))
        return row

    def any(self, choose: np.random.Generator) -> Row:
        return self.real[choose.integers(len(self.real))]


def _in_tens(rows: list[Row]) -> Iterator[list[Row]]:
    for at in range(0, len(rows), 10):
        yield rows[at : at + 10]


# honest


def of(column: str, rank: int) -> Play:
    """A firm that asks about its own rows: those of one value of a column, by how common it is."""

    def play(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
        at = world.at[column]
        values = sorted(world.words[at], key=lambda one: -sum(row[at] == one for row in world.real))
        mine = [row for row in world.real if row[at] == values[rank]]
        start = int(choose.integers(len(mine)))
        yield from _in_tens(mine[start:] + mine[:start])

    return play


def everybody(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """A data platform that scores all rows as they come."""
    start = int(choose.integers(len(world.real)))
    yield from _in_tens(world.real[start:] + world.real[:start])


def shuffled(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """An application with many users, who ask about rows in no order."""
    while True:
        yield [world.any(choose) for _ in range(10)]


def favourites(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """An application whose users ask about few rows often: heavy-tailed repetition."""
    order = choose.permutation(len(world.real))
    while True:
        yield [world.real[order[min(int(choose.zipf(1.3)), len(order)) - 1]] for _ in range(10)]


def screen(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """A screen that asks about the same twenty rows again and again, moved by a few minutes now and then."""
    rows = [world.any(choose) for _ in range(20)]
    at = world.at["departs_minute"]
    while True:
        late = choose.integers(20)
        rows[late] = world.with_value(rows[late], at, rows[late][at] + int(choose.integers(5, 40)))
        yield list(rows)
        if choose.random() < 0.1:
            rows[choose.integers(20)] = world.any(choose)


def travellers(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """People who look at a flight and at a few other times and weekdays of it, whatever the answers are."""
    while True:
        row = world.any(choose)
        yield [row]
        for _ in range(int(choose.integers(0, 4))):
            at = world.at["departs_minute" if choose.random() < 0.6 else "weekday"]
            yield [world.with_value(row, at, world.any(choose)[at])]


def analyst(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Somebody who draws what-if curves all day: a row, and one column over its whole range."""
    while True:
        row = world.any(choose)
        at = world.at["departs_minute"]
        yield [world.with_value(row, at, value) for value in range(300, 1380, 60)]


# attackers


def random_queries(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction by uniform queries (Tramèr et al. 2016)."""
    while True:
        yield [world.uniform(choose) for _ in range(10)]


def recombined(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction by values as common as they really are, combined at random."""
    while True:
        yield [tuple(world.any(choose)[at] for at in range(len(world.columns))) for _ in range(10)]


def grid(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction by sweeping each column of a few rows."""
    while True:
        row = world.any(choose)
        for at in range(len(world.columns)):
            values = (
                np.linspace(world.low[at], world.high[at], 25).tolist()
                if at in world.low
                else world.words[at][:25]
            )
            yield [world.with_value(row, at, value) for value in values]


def augmented(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction by synthetic neighbours of a few seeds (after Papernot et al. 2017, without gradients)."""
    pool = [world.any(choose) for _ in range(50)]
    while True:
        yield (fresh := [world.changed(pool[choose.integers(len(pool))], choose) for _ in range(10)])
        pool += fresh
        if len(pool) > 2000:
            pool = pool[-1000:]


def bisecting(world: World, oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction near the decision boundary: bisect between rows of two labels (Lowd & Meek 2005; Tramèr et al. 2016)."""
    while True:
        some = [world.any(choose) for _ in range(10)]
        said = oracle(some)
        yield some
        late = [row for row, p in zip(some, said, strict=True) if p >= 0.5]
        punctual = [row for row, p in zip(some, said, strict=True) if p < 0.5]
        for one, other in zip(late, punctual, strict=False):
            left, right = one, other
            for at in choose.permutation(len(world.columns)).tolist():
                middle = world.with_value(left, at, right[at])
                yield [middle]
                if oracle([middle])[0] >= 0.5:
                    left = middle
                    continue
                right = middle
                low, high = left[at], middle[at]
                while at in world.low and abs(high - low) > 1:
                    value = (low + high) // 2
                    middle = world.with_value(left, at, value)
                    yield [middle]
                    low, high = (value, high) if oracle([middle])[0] >= 0.5 else (low, value)
                break


def uncertain(world: World, oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction by active learning: of many candidates those on which a surrogate of one's own is unsure."""
    from sklearn.tree import DecisionTreeClassifier

    rows = [world.any(choose) for _ in range(200)]
    said = oracle(rows)
    for at in range(0, 200, 10):
        yield rows[at : at + 10]
    while True:
        encoded = numbers(world, rows)
        labels = np.array(said) >= 0.5
        tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=0).fit(encoded, labels)
        pool = [world.uniform(choose) for _ in range(500)]
        sure = np.abs(tree.predict_proba(numbers(world, pool))[:, -1] - 0.5)
        batch = [pool[at] for at in np.argsort(sure)[:100].tolist()]
        said = (said + oracle(batch))[-3000:]
        rows = (rows + batch)[-3000:]
        for at in range(0, 100, 10):
            yield batch[at : at + 10]


def real_rows(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Extraction with real rows, by somebody who has such data himself."""
    while True:
        yield [world.any(choose) for _ in range(10)]


def climber(world: World, oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Inversion: from random rows uphill, one change at a time (Fredrikson et al. 2015, black box)."""
    while True:
        best = world.any(choose)
        yield [best]
        score = oracle([best])[0]
        for _ in range(60):
            tried = world.changed(best, choose)
            yield [tried]
            said = oracle([tried])[0]
            if said > score:
                best, score = tried, said


def prober(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Membership: how steady the answers are around a row (Choquette-Choo et al. 2021)."""
    while True:
        row = world.any(choose)
        yield [row] + [world.jittered(row, choose) for _ in range(9)]


def evader(world: World, oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Adversarial inputs: the smallest change of a row's numbers that turns the label (HopSkipJump-like, per column)."""
    while True:
        row = world.any(choose)
        yield [row]
        was = oracle([row])[0] >= 0.5
        for at in world.numbers:
            for towards in (world.low[at], world.high[at]):
                near, far = row[at], towards
                yield [world.with_value(row, at, far)]
                if (oracle([world.with_value(row, at, far)])[0] >= 0.5) == was:
                    continue
                while abs(far - near) > 1:
                    value = (near + far) // 2
                    yield [world.with_value(row, at, value)]
                    if (oracle([world.with_value(row, at, value)])[0] >= 0.5) == was:
                        near = value
                    else:
                        far = value


def outsider(world: World, _oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
    """Inputs that do not belong: numbers out of range, words never seen, mixed with real ones."""
    while True:
        row = list(world.any(choose))
        at = world.numbers[choose.integers(len(world.numbers))]
        row[at] = int(row[at] * 3 + 50)
        word = list(world.words)[choose.integers(len(world.words))]
        row[word] = f"Z{choose.integers(100)}"
        yield [tuple(row)]


def hidden(attack: Play, share: float) -> Play:
    """An attacker who hides each of his queries among honest ones."""

    def play(world: World, oracle: Oracle, choose: np.random.Generator) -> Iterator[list[Row]]:
        for rows in attack(world, oracle, choose):
            for row in rows:
                yield [row]
                yield [world.any(choose) for _ in range(round(1 / share) - 1)]

    return play


def numbers(world: World, rows: list[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return rows as numbers, words by their place."""
    places = {at: {word: place for place, word in enumerate(words)} for at, words in world.words.items()}
    return np.array(
        [
            [places[at].get(value, -1) if at in places else value for at, value in enumerate(row)]
            for row in rows
        ],
        dtype=np.float64,
    )


HONEST: Final[dict[str, Play]] = {
    "scores every flight as it comes": everybody,
    "an app with many users": shuffled,
    "an app with favourites": favourites,
    "a carrier's own flights": of("carrier", 0),
    "a small carrier's own flights": of("carrier", 6),
    "an airport's own flights": of("origin", 1),
    "one destination": of("dest", 0),
    "travellers who look around": travellers,
    "a screen that asks again and again": screen,
    "an analyst's what-if curves": analyst,
}
ATTACKS: Final[dict[str, Play]] = {
    "extraction, uniform": random_queries,
    "extraction, recombined": recombined,
    "extraction, sweeps": grid,
    "extraction, synthetic neighbours": augmented,
    "extraction, bisection": bisecting,
    "extraction, active learning": uncertain,
    "extraction, real rows": real_rows,
    "inversion, hill climbing": climber,
    "membership, jitter": prober,
    "adversarial, least change": evader,
    "inputs from elsewhere": outsider,
    "uniform, one in ten": hidden(random_queries, 0.1),
    "uniform, one in thirty": hidden(random_queries, 1 / 30),
    "hill climbing, one in five": hidden(climber, 0.2),
}
