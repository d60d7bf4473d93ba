"""Generated data with planted structure, in any size, with the best answer known.

The law: every item belongs to one interest, and within it popularity falls with the rank. Every
user has one to three tastes. The next item is of the interest of the one before with probability
STAY, else of an interest drawn from the user's tastes; within the interest it is drawn by
popularity; an item that the user already has is passed over, and the draw goes on from its
interest.

So who a user is, what came last and what is popular all carry signal, and the probability of every
next item is known in closed form: `World.best_answer` is the ceiling for any model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from contract.arrays import F32, F64, I64, Bool
from contract.errors import DataError
from offline.data.tables import Tables

# {} is the row.
USER_ID = "u{}"
ITEM_ID = "i{}"
STAY = 0.7
# The share of a user's taste that is spread over all interests.
CURIOSITY = 0.05
# Users choose the interest c (from 1) with a rate of 1 / c ** MAINSTREAM.
MAINSTREAM = 0.75
# Popularity in an interest is 1 / (rank + HEAD) ** STEEPNESS. HEAD keeps the first few items from
# being most of the draws: a user takes each item once.
HEAD = 3.0
STEEPNESS = 1.5
FEWEST_INTERACTIONS = 5
# Draws per interaction asked for: the repeats among them are passed over.
SPARE = 3
# Bounds the memory that the draws take at a time.
DRAWS_PER_CHUNK = 2_000_000
MINUTES_WITHIN_SESSION = 4
DAYS_BETWEEN_SESSIONS = 3
FIRST_DAY = 1_704_067_200  # 2024-01-01
JOINING_DAYS = 180

# Interest: its nouns, its tags.
THEMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "space opera": (
        ("Nebula", "Starship", "Galaxy", "Orbit", "Comet"),
        ("space", "aliens", "future", "war", "epic"),
    ),
    "slow cooking": (
        ("Casserole", "Stew", "Broth", "Roast", "Kitchen"),
        ("food", "recipes", "family", "winter", "comfort"),
    ),
    "mountain climbing": (
        ("Summit", "Ridge", "Glacier", "Ascent", "Basecamp"),
        ("outdoors", "snow", "danger", "travel", "sport"),
    ),
    "detective stories": (
        ("Alibi", "Verdict", "Witness", "Clue", "Inspector"),
        ("crime", "mystery", "police", "city", "night"),
    ),
    "jazz history": (
        ("Trumpet", "Quartet", "Ballroom", "Saxophone", "Encore"),
        ("music", "history", "improvisation", "clubs", "legends"),
    ),
    "garden design": (
        ("Orchard", "Hedge", "Greenhouse", "Meadow", "Rosebed"),
        ("plants", "design", "spring", "home", "soil"),
    ),
    "sea voyages": (
        ("Harbour", "Schooner", "Lighthouse", "Tide", "Captain"),
        ("ocean", "ships", "storms", "islands", "discovery"),
    ),
    "romantic comedy": (
        ("Wedding", "Bouquet", "Valentine", "Honeymoon", "Proposal"),
        ("love", "humour", "friends", "dating", "holiday"),
    ),
    "robot science": (
        ("Android", "Circuit", "Automaton", "Servo", "Algorithm"),
        ("technology", "machines", "ethics", "invention", "code"),
    ),
    "ancient empires": (
        ("Temple", "Chariot", "Pharaoh", "Senate", "Oracle"),
        ("antiquity", "kings", "ruins", "myths", "battles"),
    ),
    "wild animals": (
        ("Leopard", "Falcon", "Elephant", "Wolfpack", "Savannah"),
        ("nature", "animals", "documentary", "survival", "jungle"),
    ),
    "street racing": (
        ("Engine", "Throttle", "Turbo", "Driver", "Speedway"),
        ("cars", "speed", "action", "rivals", "streets"),
    ),
    "haunted houses": (
        ("Attic", "Ghost", "Cellar", "Seance", "Manor"),
        ("horror", "ghosts", "darkness", "curses", "suspense"),
    ),
    "chess masters": (
        ("Gambit", "Bishop", "Endgame", "Rook", "Stalemate"),
        ("strategy", "games", "genius", "tournament", "patience"),
    ),
    "desert trails": (
        ("Oasis", "Dune", "Caravan", "Mirage", "Canyon"),
        ("heat", "sand", "nomads", "silence", "adventure"),
    ),
    "city cycling": (
        ("Bicycle", "Boulevard", "Courier", "Sprocket", "Commute"),
        ("bikes", "urban", "fitness", "green", "maps"),
    ),
}
ADJECTIVES = (
    *("Silent", "Golden", "Hidden", "Broken", "Gentle", "Distant", "Crimson", "Endless"),
    *("Forgotten", "Restless", "Velvet", "Wandering", "Brave", "Frozen", "Secret", "Curious"),
)
COMMON_TAGS = ("classic", "award", "new voice", "for beginners", "series", "short")
COUNTRIES = ("Argentina", "Canada", "Finland", "Ghana", "India", "Japan", "Kenya", "Portugal")


@dataclass(frozen=True, eq=False)
class World:
    """Item row n is the n-th of `tables.items`, user row u the u-th of `tables.users`.

    `user_tastes` (U, C) sums to 1 for each user; `item_interests` (N,); `popularity` (N,) is the
    probability of an item within its interest, 0 for a cold item.
    """

    tables: Tables
    interests: tuple[str, ...]
    user_tastes: F32
    item_interests: I64
    popularity: F64

    def best_answer(self, user_row: int, history: Sequence[str], k: int) -> list[str]:
        """The k item ids most likely to come next, most likely first, by the planted law.

        `history` is what the user has, oldest first: none of it is in the answer, which is
        shorter than k only where no more items are possible.
        """
        rows = np.array([int(item_id[1:]) for item_id in history], dtype=np.int64)
        unseen = self.popularity.copy()
        unseen[rows] = 0.0
        possible = int(np.count_nonzero(unseen))
        if not possible:
            return []
        scores = self._interest_weights(user_row, rows)[self.item_interests] * unseen
        best = np.argsort(-scores, kind="stable")[: min(k, possible)]
        return [ITEM_ID.format(row) for row in best.tolist()]

    def _interest_weights(self, user_row: int, rows: I64) -> F64:
        """How often each interest is expected to be drawn until a draw is no repeat: (C,)."""
        tastes = self.user_tastes[user_row].astype(np.float64)
        count = len(tastes)
        steps = STAY * np.eye(count) + (1 - STAY) * tastes  # (C, C): from interest, to interest
        first = steps[self.item_interests[rows[-1]]] if len(rows) else tastes
        repeats = np.bincount(self.item_interests[rows], self.popularity[rows], minlength=count)
        # A repeat moves the interest and is passed over, so
        # weights = first + (weights * repeats) @ steps.
        weights: F64 = np.linalg.solve(np.eye(count) - steps.T * repeats, first)
        return weights


def generate(
    users: int = 2000,
    items: int = 1000,
    interactions: int = 100_000,
    interests: int = 8,
    seed: int = 0,
    cold: int = 0,
) -> World:
    """A world of about so many interactions, in the order of time; never more than were asked for.

    `cold` more items, the last rows of `tables.items`, have features and no interaction. A user's
    history has no item twice and is shorter than half of the catalogue. Equal arguments give equal
    worlds. Raises DataError where there are fewer items than interests or any size is below 1.
    """
    if min(users, interactions, interests) < 1 or items < interests or cold < 0:
        raise DataError(
            f"cannot generate {users} users, {items} items ({cold} cold), {interactions} "
            f"interactions, {interests} interests; give one of each or more, one item an interest"
        )
    rng = np.random.default_rng(seed)
    names = tuple(_interest_name(interest) for interest in range(interests))
    tastes = _tastes(rng, users, interests)
    catalogue = _catalogue(rng, items, interests)
    lengths = _lengths(rng, users, items, interactions)
    log = _log(rng, tastes, catalogue, lengths)
    item_interests = np.concatenate([catalogue.item_interests, np.arange(cold) % interests])
    tables = Tables(
        log, _item_features(rng, names, item_interests), _user_features(rng, tastes.argmax(axis=1))
    )
    popularity = np.concatenate([catalogue.popularity, np.zeros(cold)])
    return World(tables, names, tastes, item_interests, popularity)


@dataclass(frozen=True, eq=False)
class _Catalogue:
    item_interests: I64  # (N,)
    popularity: F64  # (N,), sums to 1 within each interest
    order: I64  # (N,) item rows, by interest
    wheel: F64  # (N,) see _spin, one group per interest, places as in `order`


def _catalogue(rng: np.random.Generator, items: int, interests: int) -> _Catalogue:
    order = rng.permutation(items)
    sorted_interests = np.arange(items) * interests // items
    starts = np.searchsorted(sorted_interests, np.arange(interests))
    ranks = np.arange(items) - starts[sorted_interests]
    weights = np.power(ranks + HEAD, -STEEPNESS)
    chances = weights / np.add.reduceat(weights, starts)[sorted_interests]
    wheel = np.cumsum(chances)
    # The ends of the groups are whole numbers up to rounding, and a draw must not cross them.
    ends = np.append(starts[1:], items) - 1
    wheel[ends] = np.arange(1, interests + 1)

    item_interests = np.empty(items, np.int64)
    item_interests[order] = sorted_interests
    popularity = np.empty(items)
    popularity[order] = chances
    return _Catalogue(item_interests, popularity, order, wheel)


def _tastes(rng: np.random.Generator, users: int, interests: int) -> F32:
    counts = rng.integers(1, min(3, interests) + 1, users)
    # Waiting times: the first to arrive are chosen, and an interest of a high rate arrives early.
    waits = rng.standard_exponential((users, interests), dtype=np.float32)
    waits *= np.arange(1, interests + 1, dtype=np.float32) ** MAINSTREAM
    places = waits.argsort(axis=1).argsort(axis=1)
    # Normalised exponentials are a flat Dirichlet over the interests that were chosen.
    shares = rng.standard_exponential((users, interests), dtype=np.float32) + np.float32(1e-3)
    shares *= places < counts[:, None]
    shares *= (1 - CURIOSITY) / shares.sum(axis=1, keepdims=True)
    shares += CURIOSITY / interests
    return shares


def _lengths(rng: np.random.Generator, users: int, items: int, interactions: int) -> I64:
    least = min(FEWEST_INTERACTIONS, interactions // users)
    activity = rng.lognormal(0.0, 0.6, users)
    lengths = least + rng.multinomial(interactions - least * users, activity / activity.sum())
    return np.minimum(lengths, max(1, items // 2))


def _log(
    rng: np.random.Generator, tastes: F32, catalogue: _Catalogue, lengths: I64
) -> pl.DataFrame:
    """The interactions of all users. Users are drawn in chunks, so that memory stays bounded."""
    chunks = np.cumsum(lengths * SPARE) // DRAWS_PER_CHUNK
    bounds = np.flatnonzero(np.diff(chunks, prepend=-1, append=chunks[-1] + 1))
    parts = [
        _histories(rng, tastes[start:end], catalogue, lengths[start:end]).with_columns(
            pl.col("user") + start
        )
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    return (
        pl.concat(parts)
        .sort("timestamp", maintain_order=True)
        .select(
            pl.format(USER_ID, "user").alias("user_id"),
            pl.format(ITEM_ID, "item").alias("item_id"),
            "timestamp",
        )
    )


def _histories(
    rng: np.random.Generator, tastes: F32, catalogue: _Catalogue, lengths: I64
) -> pl.DataFrame:
    """Columns user, item (rows) and timestamp; by user, then by time."""
    interests = tastes.shape[1]
    user = np.repeat(np.arange(len(lengths)), lengths * SPARE)
    joins = np.diff(user, prepend=-1) > 0
    moves = joins | (rng.random(len(user)) >= STAY)

    fresh = _spin(rng, _taste_wheel(tastes), user) - user * interests
    interest = fresh[_latest(moves)]
    item = catalogue.order[_spin(rng, catalogue.wheel, interest)]
    seconds = _seconds(rng, joins, moves)

    kept = np.unique(user * len(catalogue.order) + item, return_index=True)[1]
    kept.sort()
    position = np.arange(len(kept)) - np.searchsorted(user[kept], user[kept])
    kept = kept[position < lengths[user[kept]]]
    return pl.DataFrame(
        {
            "user": user[kept].astype(np.int32),
            "item": item[kept].astype(np.int32),
            "timestamp": seconds[kept],
        }
    )


def _taste_wheel(tastes: F32) -> F64:
    wheel = np.cumsum(tastes, axis=1, dtype=np.float64)
    wheel /= wheel[:, -1:]
    wheel += np.arange(len(tastes))[:, None]
    return wheel.ravel()


def _spin(rng: np.random.Generator, wheel: F64, groups: I64) -> I64:
    """One draw per entry of `groups`: a place on the wheel, which holds the chances of each group
    one after the other, added up, so that group g ends at g + 1."""
    points = np.minimum(groups + rng.random(len(groups)), np.nextafter(groups + 1.0, 0.0))
    places: I64 = np.searchsorted(wheel, points, side="right")
    return places


def _latest(flags: Bool) -> I64:
    """For each position the last one, up to and with it, where the flag is set."""
    latest: I64 = np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))
    return latest


def _seconds(rng: np.random.Generator, joins: Bool, moves: Bool) -> I64:
    pause = rng.standard_exponential(len(moves))
    pause *= np.where(moves, DAYS_BETWEEN_SESSIONS * 86_400, MINUTES_WITHIN_SESSION * 60)
    clock = np.cumsum(pause.astype(np.int64) + 1)
    first_days = rng.integers(0, JOINING_DAYS * 86_400, len(moves))
    start = _latest(joins)
    return FIRST_DAY + first_days[start] + clock - clock[start]


def _item_features(
    rng: np.random.Generator, names: tuple[str, ...], item_interests: I64
) -> pl.DataFrame:
    count = len(item_interests)
    theme = item_interests % len(THEMES)
    nouns, tags = (
        pl.Series([word for words in column for word in words])
        for column in zip(*THEMES.values(), strict=True)
    )
    first = rng.integers(0, 5, count)
    second = (first + rng.integers(1, 5, count)) % 5
    words = pl.DataFrame(
        {
            "adjective": _choose(rng, ADJECTIVES, count),
            "noun": nouns.gather(5 * theme + rng.integers(0, 5, count)),
            "first": tags.gather(5 * theme + first),
            "second": tags.gather(5 * theme + second),
            "third": _choose(rng, (*COMMON_TAGS, None), count),
        }
    )
    number = pl.int_range(1, pl.len() + 1).over("adjective", "noun")
    usual_price = 8 + 4 * (item_interests % 5)
    return words.select(
        pl.format(ITEM_ID, pl.int_range(pl.len())).alias("item_id"),
        pl.format("The {} {} {}", "adjective", "noun", number).alias("title"),
        pl.Series("category", names).gather(item_interests),
        pl.concat_list("first", "second", "third").list.drop_nulls().alias("tags"),
        pl.Series("year", rng.integers(1980, 2025, count)),
        pl.Series("price", (usual_price * rng.lognormal(0.0, 0.3, count)).round(2)),
    )


def _user_features(rng: np.random.Generator, main_interests: I64) -> pl.DataFrame:
    """Half of the users live in the country of their main interest, the others anywhere."""
    count = len(main_interests)
    home = main_interests % len(COUNTRIES)
    anywhere = rng.integers(0, len(COUNTRIES), count)
    country = np.where(rng.random(count) < 0.5, home, anywhere)
    return pl.select(
        pl.format(USER_ID, pl.int_range(count)).alias("user_id"),
        pl.Series("age", rng.integers(16, 80, count)),
        pl.Series("country", COUNTRIES).gather(country),
    )


def _choose(rng: np.random.Generator, values: tuple[str | None, ...], count: int) -> pl.Series:
    return pl.Series(values, dtype=pl.String).gather(rng.integers(0, len(values), count))


def _interest_name(interest: int) -> str:
    """Interests beyond the themes share one and are told apart by a number: "space opera 2"."""
    name = tuple(THEMES)[interest % len(THEMES)]
    turn = interest // len(THEMES)
    return f"{name} {turn + 1}" if turn else name
