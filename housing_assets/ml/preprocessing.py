"""The fitted path from raw columns to the model's input matrix, and the scan that judges its clusters.

Every feature is computed by `housing_serving.features`; only its parameters are fitted here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.metrics import davies_bouldin_score, silhouette_score
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.cleaning import add_row_features
from housing_assets.ml.columns import columns_of
from housing_assets.ml.imputation import BedroomImputer
from housing_serving.features import (
    CATEGORIES,
    RAW_FEATURES,
    TARGET,
    FeatureSpec,
    FloatArray,
    feature_matrix,
    row_features,
)
from housing_serving.neighbours import TRAITS, Neighbourhood

DEFAULT_CLUSTERS = 50
DEFAULT_GAMMA = 2.0
KMEANS_STARTS = 3
# Where people work, from south to north.
CITIES = (
    ("san_diego", 32.72, -117.16),
    ("los_angeles", 34.05, -118.24),
    ("santa_barbara", 34.42, -119.70),
    ("monterey", 36.60, -121.89),
    ("fresno", 36.74, -119.79),
    ("san_jose", 37.34, -121.89),
    ("san_francisco", 37.77, -122.42),
    ("sacramento", 38.58, -121.49),
)
# Degrees of latitude: farther than from anybody, for a copy of a row of whose surroundings nothing is known.
NOWHERE = 1_000.0
SCAN_KS = (2, 5, 8, 10, 12, 15, 20, 30, 40, 50)
SCAN_SAMPLE = 2_000
SCAN_FOLDS = 2
SCAN_MODEL: Mapping[str, Any] = {
    "n_estimators": 100,
    "learning_rate": 0.1,
    "num_leaves": 31,
    "colsample_bytree": 0.5,
    "n_jobs": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}


class RowFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Raw columns to raw columns plus the ratios within a row; learns nothing."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Nothing to learn."""
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The nine raw columns and the row features; null bedrooms give null ratios."""
        return add_row_features(X[list(RAW_FEATURES)])

    def __sklearn_is_fitted__(self) -> bool:
        """Always: a pipeline may use it as it is."""
        return True


@dataclass(frozen=True)
class FeatureSettings:
    """Which features there are; each can be left out.

    Attributes:
        ratios: the ratios within a row.
        n_clusters: geographic centres, to each of which a similarity is a feature; 0 for none.
        gamma: of that similarity, `exp(-gamma * squared distance in degrees)`.
        rotations: coordinates along so many more directions; 0 for none.
        city_distances: distances to `CITIES`.
        neighbours: prices and traits of the nearest training rows.
        remote_share: training rows, as a share, that are shown a second time as if far from all others.
        reach: degrees of latitude from which on a place counts as far from the training rows.
    """

    ratios: bool = True
    n_clusters: int = DEFAULT_CLUSTERS
    gamma: float = DEFAULT_GAMMA
    rotations: int = 11
    city_distances: bool = True
    neighbours: bool = True
    remote_share: float = 0.3
    reach: float = 0.12


class FeatureEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Imputed columns to the model's input matrix.

    Attributes after `fit`:
        spec_: the fitted values, all that the service needs.
    """

    def __init__(
        self,
        ratios: bool = True,
        n_clusters: int = DEFAULT_CLUSTERS,
        gamma: float = DEFAULT_GAMMA,
        rotations: int = 11,
        city_distances: bool = True,
        neighbours: bool = True,
        remote_share: float = 0.3,
        reach: float = 0.12,
        random_state: int = 42,
    ) -> None:
        self.ratios = ratios
        self.n_clusters = n_clusters
        self.gamma = gamma
        self.rotations = rotations
        self.city_distances = city_distances
        self.neighbours = neighbours
        self.remote_share = remote_share
        self.reach = reach
        self.random_state = random_state

    @property
    def settings(self) -> FeatureSettings:
        """Which features there are."""
        chosen = self.get_params()
        return FeatureSettings(**{one.name: chosen[one.name] for one in fields(FeatureSettings)})

    def fit(self, X: pd.DataFrame, y: "pd.Series[float] | None" = None) -> Self:
        """Place the cluster centres, and remember the block groups and their prices.

        The categories are those of the contract, so the width never varies.

        Raises:
            ValueError: neighbours are wanted, and there are no prices.
        """
        if self.neighbours and y is None:
            raise ValueError("neighbours' prices are features, but no prices were given: pass y")
        self.spec_ = FeatureSpec(
            CATEGORIES,
            self._centers(X),
            float(self.gamma),
            ratios=self.ratios,
            rotations=self.rotations,
            cities=CITIES if self.city_distances else (),
            neighbourhood=_neighbourhood(X, y) if self.neighbours and y is not None else None,
            # A model that was shown no unknown place cannot price one.
            reach=float(self.reach) if self.neighbours and self.remote_share > 0 else None,
        )
        return self

    def _centers(self, X: pd.DataFrame) -> tuple[tuple[float, float], ...]:
        if self.n_clusters == 0:
            return ()
        centers = _fit_kmeans(_coordinates(X), self.n_clusters, self.random_state).cluster_centers_
        # From south to north: the numbers then mean the same from one snapshot to the next.
        return tuple(sorted((float(latitude), float(longitude)) for latitude, longitude in centers))

    def transform(self, X: pd.DataFrame) -> FloatArray:
        """The matrix of shape (n, spec_.size)."""
        return feature_matrix(columns_of(X), self.spec_)

    def training_rows(self, X: pd.DataFrame) -> tuple[FloatArray, NDArray[np.int64]]:
        """What a model learns from, and the positions in X that its rows come from.

        Every row without itself among its neighbours, then `remote_share` of the rows once more, as rows of
        places of whose surroundings nothing is known. A model that never saw such rows relies on neighbours
        that are not there, and on places where it has never been.

        Args:
            X: The very rows that the encoder was fitted on.

        Raises:
            ValueError: they are not.
        """
        around = self.spec_.neighbourhood
        everyone = np.arange(len(X))
        if around is None:
            return self.transform(X), everyone
        columns = columns_of(X)
        if not np.array_equal(columns["latitude"], around.latitude) or not np.array_equal(
            columns["longitude"], around.longitude
        ):
            raise ValueError("a model learns from the rows that its neighbours' prices come from, only")
        nearest = around.nearest_of_members()
        matrix = feature_matrix(columns, self.spec_, nearest)
        shuffled = np.random.default_rng(self.random_state).permutation(len(X))
        remote = np.sort(shuffled[: round(self.remote_share * len(X))])
        if len(remote) == 0:
            return matrix, everyone
        some = {name: values[remote] for name, values in columns.items()}
        found = nearest[0][remote]
        far = feature_matrix(some, self.spec_, (found, np.full(found.shape, NOWHERE)))
        return np.vstack([matrix, far]), np.concatenate([everyone, remote])

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Names of the matrix columns."""
        return np.array(self.spec_.names, dtype=object)


def _neighbourhood(X: pd.DataFrame, y: "pd.Series[float]") -> Neighbourhood:
    columns = columns_of(X)
    known = {**columns, **row_features(columns)}
    prices = np.array(y, dtype=np.float64)
    return Neighbourhood(
        columns["latitude"],
        columns["longitude"],
        prices,
        np.array([known[trait] for trait in TRAITS], dtype=np.float64),
    )


def fit_preprocessing(
    imputer: BedroomImputer, train: pd.DataFrame, settings: FeatureSettings | None = None, seed: int = 42
) -> Pipeline:
    """The fitted pipeline of an already fitted imputer and the encoder.

    Args:
        imputer: Fitted on the same rows.
        train: Training rows with the target.
        settings: Which features there are.
        seed: Seed of the clustering and of the rows that are shown twice.
    """
    chosen = asdict(settings or FeatureSettings())
    encoder = FeatureEncoder(**chosen, random_state=seed).fit(imputer.transform(train), train[TARGET])
    return Pipeline([("imputer", imputer), ("encoder", encoder)])


def training_matrix(preprocessing: Pipeline, train: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """What a model is fitted on: matrix and target, of the rows that the preprocessing was fitted on."""
    imputed = preprocessing["imputer"].transform(train)
    matrix, positions = preprocessing["encoder"].training_rows(imputed)
    return matrix, train[TARGET].to_numpy(dtype=np.float64)[positions]


def scan_clusters(
    train: pd.DataFrame, ks: Iterable[int] = SCAN_KS, sample: int = SCAN_SAMPLE, seed: int = 42
) -> pd.DataFrame:
    """How well the block groups fall into k clusters, and how well prices are told by the similarities.

    Inertia, Davies-Bouldin and the clusters are those of all rows; the silhouette, whose cost grows with the
    square of the rows, is that of a random sample of them. `price_wmape` is that of a small boosted model in
    shuffled folds, in each of which the centres are placed anew.

    Args:
        train: Training rows with the target, bedrooms imputed.
        ks: Numbers of clusters.
        sample: Rows for the silhouette.
        seed: Of sample, clustering and folds.

    Returns:
        One row per k: k, inertia, silhouette, davies_bouldin, price_wmape (percent).
    """
    coordinates = _coordinates(train)
    chosen = np.random.default_rng(seed).permutation(len(coordinates))[:sample]
    rows = []
    # Parallel sums round by the number of threads; the limit is the process's, so it is set around threads.
    with threadpool_limits(limits=1):
        for k in ks:
            fitted = _fit_kmeans(coordinates, k, seed)
            silhouette = float(silhouette_score(coordinates[chosen], fitted.labels_[chosen]))
            davies_bouldin = float(davies_bouldin_score(coordinates, fitted.labels_))
            error = _price_error(train, k, seed)
            rows.append((k, float(fitted.inertia_), silhouette, davies_bouldin, error))
    return pd.DataFrame(rows, columns=["k", "inertia", "silhouette", "davies_bouldin", "price_wmape"])


def best_k(scan: pd.DataFrame) -> int:
    """The number of clusters with the least price error, of the rows of `scan_clusters`."""
    return int(scan["k"].iloc[int(scan["price_wmape"].argmin())])


def _price_error(train: pd.DataFrame, k: int, seed: int) -> float:
    """Cross-validated wMAPE with k centres and without the features that know places by other means."""
    prices = train[TARGET].to_numpy(dtype=np.float64)
    predicted = np.empty(len(train))

    def score(learned: NDArray[np.int64], asked: NDArray[np.int64]) -> None:
        encoder = FeatureEncoder(
            n_clusters=k, rotations=0, city_distances=False, neighbours=False, random_state=seed
        ).fit(train.iloc[learned])
        model = LGBMRegressor(**SCAN_MODEL, random_state=seed)
        model.fit(encoder.transform(train.iloc[learned]), prices[learned])
        predicted[asked] = model.predict(encoder.transform(train.iloc[asked]))

    folds = KFold(SCAN_FOLDS, shuffle=True, random_state=seed).split(train)
    Parallel(n_jobs=-1, prefer="threads")(delayed(score)(learned, asked) for learned, asked in folds)
    return float(np.abs(prices - predicted).sum() / prices.sum() * 100)


def _coordinates(frame: pd.DataFrame) -> FloatArray:
    return np.ascontiguousarray(frame[["latitude", "longitude"]].to_numpy(dtype=np.float64))


def _fit_kmeans(coordinates: FloatArray, k: int, seed: int, starts: int = KMEANS_STARTS) -> KMeans:
    # Parallel sums round by the number of threads.
    with threadpool_limits(limits=1):
        return KMeans(k, n_init=starts, random_state=seed).fit(coordinates)
