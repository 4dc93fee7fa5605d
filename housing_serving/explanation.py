"""Why a model prices a block group as it does: exact Shapley values, in numpy alone over flat arrays.

What belongs here: the additive form of a model as `explanation.npz` holds it, its contributions in dollars,
and which of them people see as one. Writing the file is `housing_assets.ml.explanation`'s concern.

A feature that is not known counts as its training rows do: within trees they go both ways, by how many took
each (path-dependent TreeSHAP; Lundberg et al., From local explanations to global understanding with
explainable AI for trees, Nature Machine Intelligence 2020). Paths from root to leaf are explained side by
side (Mitchell et al., GPUTreeShap, PeerJ Computer Science 2022). On one path, the Shapley value is an
integral over the probability with which features are known (Owen, Multilinear extensions of games,
Management Science 1972); its integrand is a polynomial, so Gauss's quadrature is exact.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from housing_serving.features import CATEGORICAL_FEATURE, RAW_FEATURES, ROW_FEATURES, Columns, FloatArray

if TYPE_CHECKING:
    from housing_serving.bundle import Bundle

IntArray = NDArray[np.int32]

# The coordinates and whatever is computed from them.
LOCATION = "location"
COORDINATES = frozenset({"longitude", "latitude"})
# Inputs and ratios of them: each is a group of its own.
_NAMED = (frozenset(RAW_FEATURES) - COORDINATES) | frozenset(ROW_FEATURES)
# Dollars by which a price and the sum of its explanation may differ: roundings of tens of thousands of sums.
TOLERANCE = 1e-6
# A linear model's contributions to an absurd block group are billions that cancel: they round more coarsely.
LARGE_DOLLARS = 1e6
# Paths whose arrays are worked on at once: they fit into the processor's cache, and building them takes
# some ten megabytes.
LEAVES_AT_ONCE = 16_384


class ExplanationCorrupt(ValueError):
    """A file that does not hold an additive model."""


class NotAdditive(ArithmeticError):
    """An explanation that does not add up to the price: it is of another model."""


def group_of(feature: str) -> str:
    """What people know a model feature as: the input or ratio that it is, else `location`.

    Everything that is neither is computed from the coordinates: rotated ones, distances, similarities to
    places, what is known about neighbours.
    """
    if feature.startswith(f"{CATEGORICAL_FEATURE}="):
        return CATEGORICAL_FEATURE
    return feature if feature in _NAMED else LOCATION


@dataclass(frozen=True)
class AdditiveModel:
    """A model that is a sum: a constant, a line per feature, and trees.

    The trees lie one after the other in arrays of shape (nodes,), children behind their parent; a leaf has
    no children (-1), and a root is nobody's child. A row goes left where `feature <= threshold`.

    Attributes:
        constant: shape ().
        coefficients: dollars per unit, shape (features,); zero where there is no line.
        means: the training rows' means, where a line contributes nothing, shape (features,).
        feature: of each split.
        threshold: of each split.
        left: number of the left child.
        right: number of the right child.
        value: dollars of each leaf.
        cover: training rows, or their weight, that came to the node.
    """

    constant: FloatArray
    coefficients: FloatArray
    means: FloatArray
    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    value: FloatArray
    cover: FloatArray

    @classmethod
    def read(cls, data: bytes, width: int) -> "AdditiveModel":
        """The model in the content of an `explanation.npz`; `width` is the number of its features.

        Raises:
            ExplanationCorrupt: it is not one, or not of so many features.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                model = cls(**{field.name: stored[field.name] for field in fields(cls)})
        except Exception as error:  # zipfile, numpy and KeyError: all mean the same here
            raise ExplanationCorrupt("it does not hold the model's arrays as plain numbers") from error
        if problem := model.problem(width):
            raise ExplanationCorrupt(problem)
        return model

    def problem(self, width: int) -> str | None:
        """What is wrong with it as a model of so many features, if anything is."""
        nodes = len(self.left) if self.left.ndim else 0
        shapes = {"constant": (), "coefficients": (width,), "means": (width,)}
        integers = {"feature", "left", "right"}
        for name, array in vars(self).items():
            kind = np.int32 if name in integers else np.float64
            if array.shape != shapes.get(name, (nodes,)) or array.dtype != kind:
                return f"{name} has a wrong shape or type"
            if not np.isfinite(array).all():
                return f"{name} is not finite"
        split = np.flatnonzero(self.left >= 0)
        children = np.concatenate([self.left[split], self.right[split]])
        if (self.right[self.left < 0] >= 0).any() or (children <= np.tile(split, 2)).any():
            return "children do not come behind their parent, in pairs"
        if (children >= nodes).any() or len(np.unique(children)) != len(children):
            return "a child is absent, or has two parents"
        if ((self.feature[split] < 0) | (self.feature[split] >= width)).any():
            return f"a split is on a feature beyond the {width}"
        return "no training row came to some node" if (self.cover <= 0).any() else None


@dataclass(frozen=True)
class Explanation:
    """Why some rows have their prices: `base_value` and a row's contributions add up to its price.

    Attributes:
        price: as the bundle predicts it, dollars, shape (n,).
        base_value: the model's mean over its training rows, dollars.
        features: names of the model's features.
        contributions: of each feature to each price, dollars, shape (n, features).
    """

    price: FloatArray
    base_value: float
    features: tuple[str, ...]
    contributions: FloatArray

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """What people know the features as, in the order of the features."""
        return tuple(dict.fromkeys(map(group_of, self.features)))

    @cached_property
    def by_group(self) -> FloatArray:
        """The contributions of each group of features, dollars, shape (n, groups)."""
        total = np.zeros((len(self.contributions), len(self.groups)))
        for feature, name in enumerate(self.features):
            total[:, self.groups.index(group_of(name))] += self.contributions[:, feature]
        return total


class Explainer:
    """Explains the prices of one model; immutable, and safe to share between threads."""

    def __init__(self, model: AdditiveModel, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self._means = model.means
        self._coefficients = model.coefficients
        self._paths = list(_paths(model))
        self.base_value = float(model.constant + sum(paths.base_value for paths in self._paths))

    def explain(self, matrix: FloatArray, price: FloatArray) -> Explanation:
        """The contributions to the prices of rows of the model's input, shape (n, features).

        Rows are explained one after the other: the memory does not depend on how many there are.

        Raises:
            NotAdditive: a price is not what its explanation adds up to.
        """
        contributions = (matrix - self._means) * self._coefficients
        for row, values in enumerate(matrix):
            for paths in self._paths:
                contributions[row] += paths.contributions(values)
        _insist_on_sums(self.base_value, contributions, price)
        return Explanation(price, self.base_value, self.features, contributions)


def _insist_on_sums(base_value: float, contributions: FloatArray, price: FloatArray) -> None:
    difference = np.abs(base_value + contributions.sum(axis=1) - price)
    allowed = TOLERANCE * np.maximum(np.abs(contributions).sum(axis=1) / LARGE_DOLLARS, 1.0)
    # Not `>`: what is no number does not add up either.
    if not (difference <= allowed).all():
        raise NotAdditive(f"explanations differ from prices by up to {difference.max()} dollars")


def explain_rows(bundle: "Bundle", columns: Columns) -> Explanation:
    """Why a bundle prices rows of the nine raw features as it does; `total_bedrooms` may hold NaN.

    A row has the same explanation alone as within any batch. The first call for a bundle takes longer.

    Raises:
        NotExplainable: the bundle does not hold what explanations need.
        BundleCorrupt: what it holds is unusable.
        NotAdditive: what it holds is of another model.
    """
    matrix = bundle.feature_matrix(columns)
    return bundle.explainer.explain(matrix, bundle.predict_matrix(matrix).price)


@dataclass(frozen=True)
class _Paths:
    """Paths from root to leaf that all ask for the same number of features; one column per path.

    Attributes:
        feature: shape (features, paths), each once per path.
        lower: what the feature must be above for this leaf, same shape.
        upper: what it must not be above.
        share: of the training rows, how many pass the splits on this feature.
        value: of the leaf, shape (paths,).
        width: number of the model's features.
    """

    feature: NDArray[np.intp]
    lower: FloatArray
    upper: FloatArray
    share: FloatArray
    value: FloatArray
    width: int

    @property
    def base_value(self) -> float:
        """Their part of the mean prediction."""
        return float((self.value * self.share.prod(axis=0)).sum())

    def contributions(self, row: FloatArray) -> FloatArray:
        """Their part of the Shapley values of one row, shape (width,)."""
        asked = row[self.feature]
        passes = ((asked > self.lower) & (asked <= self.upper)).astype(np.float64)
        others = np.zeros_like(passes)
        for known, weight in _quadrature(len(passes)):
            # What each feature lets through when it is known with this probability; never zero.
            passing = (1 - known) * self.share + known * passes
            others += weight * passing.prod(axis=0) / passing
        sizes = self.value * (passes - self.share) * others
        # With weights, it counts in float64; its type does not say so.
        return np.bincount(self.feature.ravel(), sizes.ravel(), self.width).astype(np.float64, copy=False)


@cache
def _quadrature(features: int) -> tuple[tuple[float, float], ...]:
    """Points of [0, 1] and their weights, exact for polynomials of a degree below `features`."""
    points, weights = np.polynomial.legendre.leggauss((features + 1) // 2 or 1)
    return tuple(zip(((points + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _paths(model: AdditiveModel) -> Iterator[_Paths]:
    parent = np.full(len(model.left), -1, dtype=np.int32)
    split = np.flatnonzero(model.left >= 0)
    parent[model.left[split]] = split
    parent[model.right[split]] = split
    leaves = np.flatnonzero(model.left < 0)
    for start in range(0, len(leaves), LEAVES_AT_ONCE):
        yield from _paths_to(leaves[start : start + LEAVES_AT_ONCE], parent, model)


def _paths_to(leaves: NDArray[np.intp], parent: IntArray, model: AdditiveModel) -> Iterator[_Paths]:
    """The paths to some leaves, those with equally many features together."""
    path, node = _steps(leaves, parent)
    above = parent[node]
    asked = model.feature[above]
    # Several splits on one feature are one condition: each path sees a feature once.
    order = np.lexsort((asked, path))
    path, node, above, asked = path[order], node[order], above[order], asked[order]
    first = np.flatnonzero(np.diff(path, prepend=-1) | np.diff(asked, prepend=-1))
    is_left = model.left[above] == node
    threshold = model.threshold[above]
    lower = _merged(np.maximum, np.where(is_left, -np.inf, threshold), first)
    upper = _merged(np.minimum, np.where(is_left, threshold, np.inf), first)
    share = _merged(np.multiply, model.cover[node] / model.cover[above], first)
    counts = np.bincount(path[first], minlength=len(leaves))
    starts = np.cumsum(counts) - counts
    for count in np.unique(counts):
        chosen = np.flatnonzero(counts == count)
        at = starts[chosen] + np.arange(count)[:, np.newaxis]
        feature = asked[first][at].astype(np.intp)
        value = model.value[leaves[chosen]]
        yield _Paths(feature, lower[at], upper[at], share[at], value, len(model.means))


def _steps(leaves: NDArray[np.intp], parent: IntArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every node but the root on the way to each leaf: the leaf's position, and the node."""
    path, node = np.arange(len(leaves)), leaves
    paths, nodes = [], []
    while len(node):
        below = parent[node] >= 0
        path, node = path[below], node[below]
        paths.append(path)
        nodes.append(node)
        node = parent[node].astype(np.intp)
    return np.concatenate(paths), np.concatenate(nodes)


def _merged(operation: np.ufunc, values: FloatArray, first: NDArray[np.intp]) -> FloatArray:
    # Where there is nothing to merge, numpy refuses.
    merged: FloatArray = operation.reduceat(values, first) if len(first) else values
    return merged
