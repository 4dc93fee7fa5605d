"""The fitted path from raw columns to the model's input matrix, and the scan that judges its clusters.

Every feature is computed by `housing_serving.features`; only its parameters are fitted here.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.metrics import davies_bouldin_score, silhouette_score
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from housing_assets.ml.cleaning import add_row_features
from housing_assets.ml.columns import columns_of
from housing_assets.ml.imputation import BedroomImputer
from housing_serving.features import CATEGORIES, RAW_FEATURES, FeatureSpec, FloatArray, feature_matrix

DEFAULT_CLUSTERS = 10
DEFAULT_GAMMA = 0.3
KMEANS_STARTS = 10
SCAN_KS = range(2, 21)
SCAN_SAMPLE = 2_000


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


class FeatureEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Imputed columns to the model's input matrix.

    Attributes after `fit`:
        spec_: the fitted values, all that the service needs.
    """

    def __init__(
        self, n_clusters: int = DEFAULT_CLUSTERS, gamma: float = DEFAULT_GAMMA, random_state: int = 42
    ) -> None:
        self.n_clusters = n_clusters
        self.gamma = gamma
        self.random_state = random_state

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Place the cluster centres; the categories are those of the contract, so the width never varies."""
        centers = _fit_kmeans(_coordinates(X), self.n_clusters, self.random_state).cluster_centers_
        # From south to north: the numbers then mean the same from one snapshot to the next.
        ordered = sorted((float(latitude), float(longitude)) for latitude, longitude in centers)
        self.spec_ = FeatureSpec(CATEGORIES, tuple(ordered), float(self.gamma))
        return self

    def transform(self, X: pd.DataFrame) -> FloatArray:
        """The matrix of shape (n, spec_.size)."""
        return feature_matrix(columns_of(X), self.spec_)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Names of the matrix columns."""
        return np.array(self.spec_.names, dtype=object)


def fit_preprocessing(
    imputer: BedroomImputer,
    train: pd.DataFrame,
    n_clusters: int = DEFAULT_CLUSTERS,
    gamma: float = DEFAULT_GAMMA,
    seed: int = 42,
) -> Pipeline:
    """The fitted pipeline of an already fitted imputer and the encoder."""
    encoder = FeatureEncoder(n_clusters, gamma, seed).fit(imputer.transform(train))
    return Pipeline([("imputer", imputer), ("encoder", encoder)])


def scan_clusters(
    train: pd.DataFrame, ks: Iterable[int] = SCAN_KS, sample: int = SCAN_SAMPLE, seed: int = 42
) -> pd.DataFrame:
    """How well the block groups fall into k clusters: one row per k with inertia, silhouette, davies_bouldin.

    Inertia and the clusters are those of all rows; the silhouette, whose cost grows with the square of the
    rows, is that of a random sample of them.
    """
    coordinates = _coordinates(train)
    chosen = np.random.default_rng(seed).permutation(len(coordinates))[:sample]
    rows = []
    for k in ks:
        fitted = _fit_kmeans(coordinates, k, seed, starts=3)
        with threadpool_limits(limits=1):
            silhouette = silhouette_score(coordinates[chosen], fitted.labels_[chosen])
            davies_bouldin = davies_bouldin_score(coordinates, fitted.labels_)
        rows.append((k, float(fitted.inertia_), float(silhouette), float(davies_bouldin)))
    return pd.DataFrame(rows, columns=["k", "inertia", "silhouette", "davies_bouldin"])


def _coordinates(frame: pd.DataFrame) -> FloatArray:
    return np.ascontiguousarray(frame[["latitude", "longitude"]].to_numpy(dtype=np.float64))


def _fit_kmeans(coordinates: FloatArray, k: int, seed: int, starts: int = KMEANS_STARTS) -> KMeans:
    # Parallel sums round by the number of threads.
    with threadpool_limits(limits=1):
        return KMeans(k, n_init=starts, random_state=seed).fit(coordinates)
