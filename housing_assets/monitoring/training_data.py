"""What served data are compared with: the answering version's training rows, and its prices of them."""

from dataclasses import dataclass

import pandas as pd

from housing_assets.ml.columns import columns_of
from housing_assets.monitoring.prediction_rows import PREDICTED
from housing_serving.bundle import Bundle, BundleManifest
from housing_serving.features import RAW_FEATURES


@dataclass(frozen=True)
class Reference:
    """The training data of one model version.

    Attributes:
        manifest: what the version's bundle says of itself.
        rows: the raw features of the training rows, and `predicted_price` as this version prices them.
    """

    manifest: BundleManifest
    rows: pd.DataFrame

    @classmethod
    def of(cls, bundle: Bundle, train: pd.DataFrame) -> "Reference":
        """Price the training rows with the bundle: its predictions, not the targets, are what is served."""
        rows = train[list(RAW_FEATURES)].reset_index(drop=True)
        return cls(bundle.manifest, rows.assign(**{PREDICTED: bundle.predict(columns_of(rows)).price}))
