"""Exported estimators answer with scikit-learn's own bits."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from housing_assets.ml.onnx_compiler import (
    UnsupportedEstimator,
    _likelier_next,
    compile_estimator,
    forest_trees,
)
from housing_assets_tests.ml.block_groups import small_folds

TREES = {
    "tree": DecisionTreeRegressor(random_state=1),
    "tree of one leaf": DecisionTreeRegressor(min_samples_leaf=400),
    "forest": RandomForestRegressor(70, random_state=1),
    # More trees than the runtime takes at once.
    "forest of many": RandomForestRegressor(300, max_depth=3, random_state=1),
    "forest of one-leaf trees": RandomForestRegressor(3, min_samples_leaf=400, random_state=1),
    "boosting": GradientBoostingRegressor(n_estimators=40, max_depth=4, subsample=0.7, random_state=1),
    "boosting from zero": GradientBoostingRegressor(n_estimators=5, init="zero", random_state=1),
    "boosting of absolute errors": GradientBoostingRegressor(n_estimators=5, loss="absolute_error"),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=40, random_state=1),
    "histogram boosting of a quantile": HistGradientBoostingRegressor(
        max_iter=10, loss="quantile", quantile=0.9
    ),
}
LINEAR = {
    "ridge": Ridge(alpha=2.0),
    "scaled ridge": make_pipeline(StandardScaler(), Ridge(alpha=2.0)),
    "scaled lasso": make_pipeline(StandardScaler(), Lasso(alpha=50.0)),
    "centred ridge": make_pipeline(StandardScaler(with_std=False), Ridge()),
    "divided ridge": make_pipeline(StandardScaler(with_mean=False), Ridge()),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of histogram boosting would mostly wait for each other."""
    with threadpool_limits(limits=1):
        yield


@cache
def rows() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    fold = small_folds()[0]
    return fold.x_train, fold.y_train, np.concatenate([fold.x_train, fold.x_valid])


def compiled(model: BaseEstimator, width: int | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    data = compile_estimator(model, width or rows()[0].shape[1])
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def answers(session: ort.InferenceSession, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    (answer,) = session.run(["prediction"], {"features": matrix})
    assert answer.dtype == np.float64
    assert answer.shape == (len(matrix), 1)
    return answer[:, 0]


@pytest.mark.parametrize("model", TREES.values(), ids=TREES)
def test_trees_give_the_same_bits_in_batch_and_alone(model: BaseEstimator) -> None:
    x_train, y_train, x = rows()
    model.fit(x_train, y_train)
    session = compiled(model)
    expected = model.predict(x)
    np.testing.assert_array_equal(answers(session, x), expected)
    alone = np.concatenate([answers(session, x[row : row + 1]) for row in range(len(x))])
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize("model", LINEAR.values(), ids=LINEAR)
def test_linear_models_differ_by_no_more_than_the_last_bits(model: BaseEstimator) -> None:
    x_train, y_train, x = rows()
    model.fit(x_train, y_train)
    session = compiled(model)
    batch = answers(session, x)
    assert np.abs(batch - model.predict(x)).max() <= 1e-6
    alone = np.concatenate([answers(session, x[row : row + 1]) for row in range(len(x))])
    np.testing.assert_array_equal(alone, batch)


def test_a_value_on_a_threshold_goes_the_same_way() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    tree = DecisionTreeRegressor().fit(x, [10.0, 20.0, 30.0, 40.0])
    thresholds = np.array([[0.5], [1.5], [2.5]])
    assert tree.tree_.threshold[tree.tree_.children_left >= 0].tolist() == [1.5, 0.5, 2.5]
    assert answers(compiled(tree, 1), thresholds).tolist() == [10.0, 20.0, 30.0]
    above = np.nextafter(thresholds.astype(np.float32), np.float32(9)).astype(np.float64)
    assert answers(compiled(tree, 1), above).tolist() == [20.0, 30.0, 40.0]


def test_a_value_on_a_threshold_goes_the_same_way_whichever_side_most_rows_take() -> None:
    values = np.array([-8.0, -1.0, -0.0, 0.0, 1.0, 8.0])
    for sizes in ([40, 9, 9, 1, 1, 1], [1, 1, 1, 9, 9, 40]):
        x = np.repeat(values, sizes).reshape(-1, 1)
        tree = DecisionTreeRegressor().fit(x, np.sign(x[:, 0]) + x[:, 0])
        # Its own lie between the values; now most of them lie on one.
        tree.tree_.threshold[:] = np.ceil(tree.tree_.threshold)
        assert {-1.0, 0.0, 1.0} & set(tree.tree_.threshold[tree.tree_.children_left >= 0])
        around = np.concatenate([np.nextafter(values, side, dtype=np.float32) for side in (-9, 9)])
        asked = np.concatenate([values, around]).astype(np.float64).reshape(-1, 1)
        assert np.array_equal(answers(compiled(tree, 1), asked), tree.predict(asked))


def test_most_training_rows_go_where_the_memory_is_next() -> None:
    forest = RandomForestRegressor(5, max_depth=6, random_state=1).fit(*rows()[:2])
    width = rows()[0].shape[1]
    for tree in (_likelier_next(tree, width) for tree in forest_trees(forest)):
        splits = tree.left >= 0
        assert (tree.cover[tree.left[splits]] <= tree.cover[tree.right[splits]]).all()


def test_the_same_estimator_gives_the_same_bytes() -> None:
    x, y, _ = rows()
    one, same = (RandomForestRegressor(10, random_state=1).fit(x, y) for _ in range(2))
    assert compile_estimator(one, x.shape[1]) == compile_estimator(same, x.shape[1])


def test_another_width_is_refused() -> None:
    x, y, _ = rows()
    with pytest.raises(ValueError, match=f"Ridge was fitted on {x.shape[1]} features, not 3"):
        compile_estimator(Ridge().fit(x, y), 3)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (ExtraTreesRegressor(2), "ExtraTreesRegressor has no exact export"),
        (make_pipeline(MinMaxScaler(), Ridge()), "a MinMaxScaler before the model cannot be exported"),
        (TransformedTargetRegressor(Ridge()), "TransformedTargetRegressor has no exact export"),
        (GradientBoostingRegressor(n_estimators=1, init=LinearRegression()), "init=LinearRegression"),
        (HistGradientBoostingRegressor(loss="poisson", max_iter=1), "loss 'poisson' has no exact export"),
        (HistGradientBoostingRegressor(categorical_features=[0], max_iter=2), "categorical splits"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(model: BaseEstimator, problem: str) -> None:
    x = np.array([[value % 3, value / 7] for value in range(90)], dtype=np.float64)
    y = np.where(x[:, 0] == 1, 9.0, 1.0) + x[:, 1]
    with pytest.raises(UnsupportedEstimator, match=problem):
        compile_estimator(model.fit(x, y), 2)


@pytest.mark.parametrize("model", [Ridge(), DecisionTreeRegressor()])
def test_several_targets_are_refused(model: BaseEstimator) -> None:
    x, y, _ = rows()
    with pytest.raises(UnsupportedEstimator, match="several targets"):
        compile_estimator(model.fit(x, np.column_stack([y, y])), x.shape[1])
