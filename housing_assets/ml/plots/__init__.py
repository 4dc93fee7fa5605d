"""Every figure of the pipeline, as PNG bytes.

Each function draws one figure from a frame and keeps no state; where it ends up is not its concern.
"""

from housing_assets.ml.plots.data import (
    cluster_scan,
    correlation_heatmap,
    distributions,
    imputation_comparison,
    train_test_distributions,
)
from housing_assets.ml.plots.evaluation import (
    calibration,
    learning_curve,
    permutation_importances,
    protocols,
)
from housing_assets.ml.plots.models import (
    contributions,
    feature_importances,
    model_comparison,
    predicted_vs_actual,
    residual_map,
    sweep_history,
)
from housing_assets.ml.plots.monitoring import drift_sizes, error_by_segment
from housing_assets.ml.plots.sweep import parallel_coordinates, parameter_importances

__all__ = [
    "calibration",
    "cluster_scan",
    "contributions",
    "correlation_heatmap",
    "distributions",
    "drift_sizes",
    "error_by_segment",
    "feature_importances",
    "imputation_comparison",
    "learning_curve",
    "model_comparison",
    "parallel_coordinates",
    "parameter_importances",
    "permutation_importances",
    "predicted_vs_actual",
    "protocols",
    "residual_map",
    "sweep_history",
    "train_test_distributions",
]
