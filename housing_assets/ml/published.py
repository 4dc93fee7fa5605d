"""What the published system reports, its forest, and how a model compares with that forest on the same rows.

The published numbers stand here and nowhere else. A score depends on the split it was measured on, so what
counts is the ratio to the published forest fitted on the same training rows and scored on the same test rows.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from housing_assets.ml.bootstrap import FIGURES, RATIOS, RESAMPLES, figure_intervals, ratio_intervals
from housing_assets.ml.cleaning import ID_COLUMN, block_group_ids
from housing_assets.ml.splitters import Positions
from housing_assets.ml.warning_filters import keep_warning_filters
from housing_serving.features import CATEGORICAL_FEATURE, NUMERIC_FEATURES, RAW_FEATURES, TARGET, FloatArray

keep_warning_filters()

# What the published service answers with.
FOREST = {
    "n_estimators": 128,
    "max_depth": 23,
    "min_samples_split": 9,
    "min_samples_leaf": 9,
    "max_features": "log2",
}
CLUSTERS = 2
SEED = 42
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class PublishedFigures:
    """Scores of one published model on its own split; percent for mape and wmape, dollars for rmse and mae.

    Attributes:
        model: what it is.
        split: how its test rows were drawn.
        note: what has to be known of the scores.
    """

    model: str
    split: str
    rmse: float
    mae: float
    r2: float
    mape: float
    wmape: float | None
    note: str


_OWN_SPLIT = f"random {TEST_FRACTION:.0%}, seed {SEED}"
PUBLISHED = (
    PublishedFigures(
        "random forest, as served",
        _OWN_SPLIT,
        rmse=53_277.02,
        mae=36_119.02,
        r2=0.78339,
        mape=20.4002,
        wmape=None,
        note="chosen among 5 trials by these test rows",
    ),
    PublishedFigures(
        "gradient boosting, best committed",
        _OWN_SPLIT,
        rmse=45_076.44,
        mae=29_325.18,
        r2=0.84494,
        mape=16.547,
        wmape=14.270,
        note="chosen among 50 trials by these test rows",
    ),
)


def published_figures() -> pd.DataFrame:
    """The published scores: one row per model; null where a figure was not published."""
    return pd.DataFrame([asdict(one) for one in PUBLISHED])


def published_split(
    frame: pd.DataFrame, published: pd.DataFrame, seed: int = SEED
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows as the published system draws them: at random, from the rows as published.

    Args:
        frame: Cleaned rows with their ids, in any order.
        published: The source rows, in the published order.
        seed: Of the draw.
    """
    _, drawn = train_test_split(
        np.array(block_group_ids(published)), test_size=TEST_FRACTION, random_state=seed
    )
    held_out = frame[ID_COLUMN].isin(drawn)
    return frame[~held_out].reset_index(drop=True), frame[held_out].reset_index(drop=True)


class ClusterLabel(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Number of the nearest of k centres, as one column."""

    def __init__(self, n_clusters: int = CLUSTERS, random_state: int = SEED) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Place the centres."""
        settings = {"n_init": 10, "init": "random", "random_state": self.random_state}
        self.kmeans_ = KMeans(self.n_clusters, **settings).fit(np.asarray(X))
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.int32]:
        """The numbers, shape (n, 1)."""
        labels: NDArray[np.int32] = self.kmeans_.predict(np.asarray(X)).reshape(-1, 1)
        return labels


def fit_published_forest(train: pd.DataFrame, seed: int = SEED) -> Pipeline:
    """The published forest on the published features, from the nine raw columns.

    Eight numbers with their median for nulls, one column per category, and a cluster number. Unlike there,
    everything is fitted on training rows only; numbers are not standardised, which changes no tree.
    """
    features = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), list(NUMERIC_FEATURES)),
            ("category", OneHotEncoder(handle_unknown="ignore"), [CATEGORICAL_FEATURE]),
            ("cluster", ClusterLabel(random_state=seed), ["latitude", "longitude"]),
        ],
        sparse_threshold=0,
    )
    forest = RandomForestRegressor(**FOREST, n_jobs=-1, random_state=seed)
    with threadpool_limits(limits=1):
        fitted = Pipeline([("features", features), ("model", forest)]).fit(
            train[list(RAW_FEATURES)], train[TARGET].to_numpy(dtype=np.float64)
        )
    # Several threads would add the trees in a varying order when it predicts.
    forest.set_params(n_jobs=1)
    return fitted


@dataclass(frozen=True)
class Comparison:
    """A model next to the published forest, both scored on the same rows.

    Attributes:
        table: one row per figure: figure, ours, published_forest, ratio (ours by theirs; empty for r2), and
            its 95 % interval from low to high.
        ratios: the ratios, by figure.
    """

    table: pd.DataFrame
    ratios: dict[str, float]


def compare_with_forest(
    actual: FloatArray,
    ours: FloatArray,
    theirs: FloatArray,
    *,
    clusters: Positions | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare predictions with those of the published forest, by a paired bootstrap.

    Args:
        actual: Prices, shape (n,).
        ours: Predictions of the model, shape (n,).
        theirs: Predictions of the published forest, shape (n,).
        clusters: Number of each row's cluster, shape (n,), if whole clusters were held out.
        resamples: How often the rows, or the clusters, are drawn anew.
        seed: Of the draws.
    """
    scored = [figure_intervals(actual, one, resamples=1, seed=seed) for one in (ours, theirs)]
    ratios = ratio_intervals(actual, ours, theirs, clusters=clusters, resamples=resamples, seed=seed)
    rows: list[dict[str, Any]] = []
    for name in FIGURES:
        row = {"figure": name, "ours": scored[0][name].value, "published_forest": scored[1][name].value}
        rows.append({**row, **(asdict(ratios[name]) if name in RATIOS else {})})
    table = pd.DataFrame(rows).rename(columns={"value": "ratio"})
    return Comparison(table, {name: found.value for name, found in ratios.items()})
