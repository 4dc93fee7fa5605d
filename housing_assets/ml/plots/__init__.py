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
from housing_assets.ml.plots.models import (
    feature_importances,
    model_comparison,
    predicted_vs_actual,
    residual_map,
    sweep_history,
)
from housing_assets.ml.plots.monitoring import drift_sizes, error_by_segment

__all__ = [
    "cluster_scan",
    "correlation_heatmap",
    "distributions",
    "drift_sizes",
    "error_by_segment",
    "feature_importances",
    "imputation_comparison",
    "model_comparison",
    "predicted_vs_actual",
    "residual_map",
    "sweep_history",
    "train_test_distributions",
]
