"""Fitted scikit-learn regressors to ONNX models that answer with the same bits.

What belongs here: the translation of one estimator. Everything is double precision, splits ask what they
asked in training, and sums run in scikit-learn's order, so nothing is approximated. What a bundle holds
beside the model is `export`'s concern.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from lightgbm import LGBMRegressor
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.linear_model import Lasso, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from sklearn.tree._tree import Tree

from housing_serving.bundle import ONNX_INPUT, ONNX_OUTPUT

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Pinned so that a newer onnx package still writes the same bytes. TreeEnsemble, the only tree operator
# with double-precision thresholds and sums, came with ai.onnx.ml 5.
OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10
AGGREGATE_SUM = 1
BRANCH_LEQ = 0
# Losses whose raw sum of leaves is the prediction itself.
IDENTITY_LOSSES = frozenset({"squared_error", "absolute_error", "quantile"})
IDENTITY_OBJECTIVES = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape"})
# Bits of a split's decision_type in LightGBM's text format.
CATEGORICAL_SPLIT = 1
MISSING_MASK = 0b1100
MISSING_IS_ZERO = 0b0100


class UnsupportedEstimator(TypeError):
    """An estimator that cannot be exported exactly."""


@dataclass(frozen=True)
class FlatTree:
    """One regression tree as parallel arrays by node number, root first; a leaf has `left` < 0.

    `cover` is the number of training rows, or their weight, that came to the node; explanations need it.
    """

    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    value: FloatArray
    cover: FloatArray


def compile_estimator(estimator: BaseEstimator, n_features: int) -> bytes:
    """The estimator as a serialised ONNX model.

    Args:
        estimator: A fitted DecisionTree, RandomForest, GradientBoosting, HistGradientBoosting, LightGBM,
            Ridge or Lasso regressor with one target, or a Pipeline of StandardScalers that ends in one.
        n_features: Width of its input.

    Returns:
        A model from `features`, double (n, n_features) without NaN, to `prediction`, double (n, 1); the same
        estimator always gives the same bytes. Where a NaN would go is not exported: no feature is ever null
        here, and looking for it at every split costs a third of the time.

    Raises:
        UnsupportedEstimator: there is no exact translation.
        ValueError: the estimator was fitted on another number of features.
    """
    fitted = getattr(estimator, "n_features_in_", None)
    if fitted != n_features:
        raise ValueError(f"{type(estimator).__name__} was fitted on {fitted} features, not {n_features}")
    graph = _Graph(n_features)
    graph.add_estimator(estimator, ONNX_INPUT, ONNX_OUTPUT)
    return graph.serialise()


class _Graph:
    """The nodes and constants of one model, in order."""

    def __init__(self, n_features: int) -> None:
        self._n_features = n_features
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add_estimator(self, estimator: BaseEstimator, source: str, output: str) -> None:
        if isinstance(estimator, Pipeline):
            *before, (_, last) = estimator.steps
            for number, (_, step) in enumerate(before):
                source = self._add_scaler(step, source, f"step_{number}")
            self.add_estimator(last, source, output)
        elif isinstance(estimator, Ridge | Lasso):
            self._add_linear(estimator, source, output)
        elif isinstance(estimator, RandomForestRegressor):
            # Divided after the sum, as scikit-learn does: a mean of pre-divided leaves rounds otherwise.
            self._add_trees(forest_trees(estimator), source, "total")
            self._add("Div", ["total", self._constant("trees", float(len(estimator.estimators_)))], output)
        else:
            self._add_trees(additive_trees(estimator), source, output)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: ArrayLike) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float64), name))
        return name

    def _add_scaler(self, scaler: BaseEstimator, source: str, prefix: str) -> str:
        if not isinstance(scaler, StandardScaler):
            raise UnsupportedEstimator(f"a {type(scaler).__name__} before the model cannot be exported")
        if scaler.with_mean:
            mean = self._constant(f"{prefix}_mean", scaler.mean_)
            source = self._add("Sub", [source, mean], f"{prefix}_centred")
        if scaler.with_std:
            scale = self._constant(f"{prefix}_scale", scaler.scale_)
            source = self._add("Div", [source, scale], f"{prefix}_scaled")
        return source

    def _add_linear(self, model: Ridge | Lasso, source: str, output: str) -> None:
        if np.ndim(model.coef_) != 1:
            raise UnsupportedEstimator("a linear model with several targets cannot be exported")
        # MatMul sums every row in one order; ReduceSum's order depends on how many rows there are.
        coefficients = self._constant("coefficients", model.coef_.reshape(-1, 1))
        weighted = self._add("MatMul", [source, coefficients], "weighted")
        self._add("Add", [weighted, self._constant("intercept", model.intercept_)], output)

    def _add_trees(self, trees: Sequence[FlatTree], source: str, output: str) -> None:
        negated = self._add("Neg", [source], "negated")
        source = self._add("Concat", [source, negated], "both_signs", axis=1)
        ordered = [_likelier_next(tree, self._n_features) for tree in trees]
        self._add("TreeEnsemble", [source], output, domain="ai.onnx.ml", **_tree_attributes(ordered))

    def serialise(self) -> bytes:
        features = helper.make_tensor_value_info(ONNX_INPUT, TensorProto.DOUBLE, [None, self._n_features])
        prediction = helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.DOUBLE, [None, 1])
        graph = helper.make_graph(self._nodes, "model", [features], [prediction], self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        serialised: bytes = model.SerializeToString(deterministic=True)
        return serialised


def forest_trees(forest: RandomForestRegressor) -> list[FlatTree]:
    """The trees of a forest, whose prediction is their mean."""
    return [_from_tree(member.tree_, 1.0) for member in forest.estimators_]


def additive_trees(estimator: BaseEstimator) -> list[FlatTree]:
    """Trees whose sum, first to last, is the prediction."""
    if isinstance(estimator, DecisionTreeRegressor):
        return [_from_tree(estimator.tree_, 1.0)]
    if isinstance(estimator, GradientBoostingRegressor):
        start = 0.0 if isinstance(estimator.init_, str) else _constant_start(estimator)
        rate = estimator.learning_rate
        return [_leaf(start), *(_from_tree(stage.tree_, rate) for stage in estimator.estimators_[:, 0])]
    if isinstance(estimator, HistGradientBoostingRegressor):
        if estimator.loss not in IDENTITY_LOSSES:
            raise UnsupportedEstimator(
                f"HistGradientBoosting with loss {estimator.loss!r} has no exact export"
            )
        # Private, but the only place where scikit-learn keeps them.
        start = float(estimator._baseline_prediction.item())
        return [_leaf(start), *(_from_histogram(one) for stage in estimator._predictors for one in stage)]
    if isinstance(estimator, LGBMRegressor):
        return _lightgbm_trees(estimator)
    raise UnsupportedEstimator(f"{type(estimator).__name__} has no exact export")


def _constant_start(estimator: GradientBoostingRegressor) -> float:
    start = getattr(estimator.init_, "constant_", None)
    if start is None:
        name = type(estimator.init_).__name__
        raise UnsupportedEstimator(f"GradientBoosting with init={name} cannot be exported")
    return float(np.asarray(start).item())


def _leaf(value: float) -> FlatTree:
    none = np.array([-1], dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    return FlatTree(zero, np.zeros(1), none, none, np.array([value]), np.ones(1))


def _from_tree(tree: Tree, factor: float) -> FlatTree:
    if tree.n_outputs != 1:
        raise UnsupportedEstimator("a tree with several targets cannot be exported")
    return FlatTree(
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        value=tree.value[:, 0, 0] * factor,
        cover=tree.weighted_n_node_samples.astype(np.float64),
    )


def _from_histogram(predictor: TreePredictor) -> FlatTree:
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise UnsupportedEstimator("HistGradientBoosting with categorical splits cannot be exported")
    leaf = nodes["is_leaf"].astype(bool)
    return FlatTree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        value=nodes["value"].astype(np.float64),
        cover=nodes["count"].astype(np.float64),
    )


def _lightgbm_trees(model: LGBMRegressor) -> list[FlatTree]:
    """The trees of a booster, read from its own text format, which spells every double exactly."""
    if model.objective_ not in IDENTITY_OBJECTIVES or model.boosting_type != "gbdt":
        raise UnsupportedEstimator(
            f"LightGBM with {model.boosting_type} and the objective {model.objective_} has no exact export"
        )
    header, *blocks = model.booster_.model_to_string().split("\nTree=")
    if "reg_sqrt" in header.splitlines() or "[reg_sqrt: 1]" in blocks[-1]:
        raise UnsupportedEstimator("LightGBM with reg_sqrt has no exact export")
    return [
        _from_lightgbm(dict(line.split("=", 1) for line in block.splitlines() if "=" in line))
        for block in blocks
    ]


def _from_lightgbm(entries: dict[str, str]) -> FlatTree:
    """One tree; there, children below zero are leaves, numbered by their complement."""
    leaves = _numbers(entries["leaf_value"])
    if len(leaves) == 1:
        return _leaf(float(leaves[0]))
    decisions = np.array(entries["decision_type"].split(), dtype=np.int64)
    if (decisions & CATEGORICAL_SPLIT).any() or (decisions & MISSING_MASK == MISSING_IS_ZERO).any():
        raise UnsupportedEstimator("LightGBM with categorical splits, or zeros as nulls, cannot be exported")
    if entries.get("is_linear", "0") != "0":
        raise UnsupportedEstimator("LightGBM with linear trees cannot be exported")
    splits = len(decisions)
    none = np.full(len(leaves), -1, dtype=np.int64)
    left, right = (_children(entries[side], splits) for side in ("left_child", "right_child"))
    return FlatTree(
        feature=np.concatenate([_numbers(entries["split_feature"]).astype(np.int64), none * 0]),
        threshold=np.concatenate([_numbers(entries["threshold"]), none * 0.0]),
        left=np.concatenate([left, none]),
        right=np.concatenate([right, none]),
        value=np.concatenate([np.zeros(splits), leaves]),
        cover=np.concatenate([_numbers(entries["internal_count"]), _numbers(entries["leaf_count"])]),
    )


def _numbers(text: str) -> FloatArray:
    return np.array(text.split(), dtype=np.float64)


def _children(text: str, splits: int) -> IntArray:
    """Node numbers: splits first, then leaves."""
    numbers = np.array(text.split(), dtype=np.int64)
    return np.where(numbers < 0, splits + ~numbers, numbers)


def _likelier_next(tree: FlatTree, n_features: int) -> FlatTree:
    """The same tree, in which more training rows go right than left at every split.

    ONNX Runtime keeps the right child next to its parent in memory, and most of a model's time goes into
    waiting for memory: a row then costs up to a third less. Where the sides change places, x > t is asked in
    place of x <= t: as -x <= the number just below -t, for a model runs faster when all its splits ask the
    same way. The negated features come after the others.
    """
    splits = np.flatnonzero(tree.left >= 0)
    turned = splits[tree.cover[tree.left[splits]] > tree.cover[tree.right[splits]]]
    feature, threshold = tree.feature.copy(), tree.threshold.copy()
    left, right = tree.left.copy(), tree.right.copy()
    feature[turned] += n_features
    threshold[turned] = np.nextafter(-threshold[turned], -np.inf)
    left[turned], right[turned] = tree.right[turned], tree.left[turned]
    return replace(tree, feature=feature, threshold=threshold, left=left, right=right)


def _tree_attributes(trees: Sequence[FlatTree]) -> dict[str, Any]:
    """The attributes of a TreeEnsemble node that sums the trees in their order.

    The operator numbers splits and leaves separately, each over all trees.
    """
    flat = [_with_split(tree) for tree in trees]
    parts: list[dict[str, NDArray[Any]]] = []
    splits = leaves = 0
    roots = []
    for tree in flat:
        is_leaf = tree.left < 0
        number = np.where(is_leaf, leaves + np.cumsum(is_leaf) - 1, splits + np.cumsum(~is_leaf) - 1)
        roots.append(int(number[0]))
        parts.append(_tree_part(tree, is_leaf, number))
        splits += int((~is_leaf).sum())
        leaves += int(is_leaf.sum())
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    weights = joined.pop("leaf_weights")
    thresholds = joined.pop("nodes_splits")
    return {
        "n_targets": 1,
        "aggregate_function": AGGREGATE_SUM,
        "post_transform": 0,
        "tree_roots": roots,
        "nodes_modes": numpy_helper.from_array(np.full(splits, BRANCH_LEQ, dtype=np.uint8)),
        "nodes_splits": numpy_helper.from_array(thresholds),
        "leaf_targetids": [0] * leaves,
        "leaf_weights": numpy_helper.from_array(weights),
        **{name: values.tolist() for name, values in joined.items()},
    }


def _with_split(tree: FlatTree) -> FlatTree:
    """A tree of one leaf as a split with that leaf on both sides: the operator's root must be a split."""
    if tree.left[0] >= 0:
        return tree
    zeros = np.zeros(3, dtype=np.int64)
    return FlatTree(
        feature=zeros,
        threshold=np.zeros(3),
        left=np.array([1, -1, -1], dtype=np.int64),
        right=np.array([2, -1, -1], dtype=np.int64),
        value=np.full(3, tree.value[0]),
        cover=np.full(3, tree.cover[0]),
    )


def _tree_part(tree: FlatTree, is_leaf: NDArray[np.bool_], number: IntArray) -> dict[str, NDArray[Any]]:
    split = ~is_leaf
    left, right = tree.left[split], tree.right[split]
    return {
        "nodes_featureids": tree.feature[split],
        "nodes_splits": tree.threshold[split],
        "nodes_truenodeids": number[left],
        "nodes_trueleafs": is_leaf[left].astype(np.int64),
        "nodes_falsenodeids": number[right],
        "nodes_falseleafs": is_leaf[right].astype(np.int64),
        "leaf_weights": tree.value[is_leaf],
    }
