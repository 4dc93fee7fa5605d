"""Labels and the predictions they are about: which price became known for which answered instance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import ID_COLUMN, IDENTITY, block_group_ids
from housing_assets.monitoring.labels import (
    AMBIGUOUS,
    CONTRADICTS,
    INSTANCE,
    OBSERVED,
    REJECTED_COLUMNS,
    REQUEST,
    rejected,
    stacked,
)
from housing_assets.monitoring.served import ServedDay
from housing_serving.features import CATEGORICAL_FEATURE, TARGET

SCORED_COLUMNS = ["model_version", CATEGORICAL_FEATURE, "predicted_price", "lower", "upper", "level"]
MATCH = "match"


@dataclass(frozen=True)
class Matched:
    """The labels of one day's predictions.

    Attributes:
        scored: one row per labelled instance: what was predicted, and `median_house_value`.
        used: labels that decided a price.
        duplicates: labels that say again what another one says, or that a later one replaces.
        rejected: labels that are about this day and cannot be used.
        unmatched: labels that are about no prediction of this day.
    """

    scored: pd.DataFrame
    used: int
    duplicates: int
    rejected: pd.DataFrame
    unmatched: pd.DataFrame


def match(day: ServedDay, labels: pd.DataFrame) -> Matched:
    """Find the instances that labels are about, and one price for each.

    A label by request wins over one by block group, which is about every instance of that block group.
    """
    by_request, by_group = labels[labels[REQUEST].notna()], labels[labels[REQUEST].isna()]
    pairs = stacked([_by_request(day, by_request), _by_group(day, by_group)], PAIR_COLUMNS)
    unmatched = labels[~labels.index.isin(pairs["label"])]
    ambiguous = pairs[pairs["ambiguous"].astype(bool)]
    clear = pairs[~pairs["label"].isin(ambiguous["label"])]
    decided, contradicting = _decide(clear)
    bad = stacked(
        [
            rejected(labels[labels.index.isin(ambiguous["label"])], AMBIGUOUS),
            rejected(labels[labels.index.isin(contradicting)], CONTRADICTS),
        ],
        REJECTED_COLUMNS,
    )
    used = int(decided["label"].nunique())
    return Matched(
        scored=decided[[*SCORED_COLUMNS, TARGET]].reset_index(drop=True),
        used=used,
        duplicates=len(labels) - len(unmatched) - len(bad) - used,
        rejected=bad,
        unmatched=unmatched,
    )


def known_ids(day: ServedDay, labels: pd.DataFrame) -> "pd.Series[bool]":
    """Which labels are about a prediction of a day."""
    requests = labels[REQUEST].isin(_requests(day, labels)[REQUEST])
    groups = labels[REQUEST].isna() & labels[ID_COLUMN].isin(_groups(day, labels)[ID_COLUMN])
    return requests | groups


def _requests(day: ServedDay, labels: pd.DataFrame, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    wanted = pd.Index(labels[REQUEST].dropna().unique(), dtype=object)
    if wanted.empty or not day.rows:
        return pd.DataFrame(columns=[REQUEST, *columns])
    return day.frame([REQUEST, *columns], keep=wanted, by=REQUEST)


def _groups(day: ServedDay, labels: pd.DataFrame, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Rows of the labelled block groups; each place and size that was asked for gets its id once."""
    wanted = set(labels.loc[labels[REQUEST].isna(), ID_COLUMN])
    if not wanted or not day.rows:
        return pd.DataFrame(columns=[ID_COLUMN, *columns])
    places = day.distinct(list(IDENTITY))
    places = places.assign(**{ID_COLUMN: block_group_ids(places)})
    places = places[places[ID_COLUMN].isin(wanted)]
    rows = day.matching(places, list(IDENTITY), list(columns))
    return rows.drop(columns=[name for name in IDENTITY if name not in columns])


def _by_request(day: ServedDay, labels: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a label and an instance; ambiguous where the label does not say which of several."""
    rows = _requests(day, labels, (INSTANCE, *SCORED_COLUMNS)).rename(columns={INSTANCE: "served"})
    rows = rows.assign(
        place=np.arange(len(rows)), several=rows.groupby(REQUEST)[REQUEST].transform("size") > 1
    )
    pairs = rows.merge(_of(labels, [REQUEST, INSTANCE]), on=REQUEST)
    open_ = pairs[INSTANCE].isna()
    pairs = pairs[open_ | (pairs[INSTANCE] == pairs["served"])]
    place = "request " + pairs[REQUEST] + " " + pairs["served"].astype(str)
    ambiguous = pairs[INSTANCE].isna() & pairs["several"].astype(bool)
    return pairs.assign(match=place, rank=0, ambiguous=ambiguous)[PAIR_COLUMNS]


def _by_group(day: ServedDay, labels: pd.DataFrame) -> pd.DataFrame:
    rows = _groups(day, labels, (REQUEST, INSTANCE, *SCORED_COLUMNS))
    pairs = rows.merge(_of(labels, [ID_COLUMN]), on=ID_COLUMN)
    place = "request " + pairs[REQUEST] + " " + pairs[INSTANCE].astype(str)
    return pairs.assign(match=place, rank=1, ambiguous=False)[PAIR_COLUMNS]


PAIR_COLUMNS = [MATCH, "label", "rank", "ambiguous", *SCORED_COLUMNS, TARGET, OBSERVED]


def _of(labels: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return labels[[*keys, TARGET, OBSERVED]].rename_axis("label").reset_index()


def _decide(pairs: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[int]"]:
    """One label per instance, and those that contradict each other: same rank and moment, another price."""
    if not len(pairs):
        return pairs, pairs["label"]
    rank = pairs["rank"] == pairs.groupby(MATCH)["rank"].transform("min")
    best = pairs[rank]
    # A label without a moment is older than every label with one.
    moment = best[OBSERVED].fillna(pd.Timestamp(0, tz="UTC"))
    newest = best[moment == moment.groupby(best[MATCH]).transform("max")]
    clash = newest.groupby(MATCH)[TARGET].transform("nunique") > 1
    # By origin, so that the same labels decide whatever order they were read in.
    decided = newest[~clash].sort_values([MATCH, "label"]).drop_duplicates(MATCH)
    return decided, newest.loc[clash, "label"]
