"""The split into training and test rows, by a hash of the id: a row never changes side when data grows."""

import hashlib

import numpy as np
import pandas as pd

from housing_assets.ml.cleaning import ID_COLUMN
from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES, NUMERIC_FEATURES, TARGET

TEST_FRACTION = 0.2
# Changing it deals the rows anew, and no score before would compare with one after.
SALT = b"housing-split-1"
HASH_BITS = 64


def split(frame: pd.DataFrame, test_fraction: float = TEST_FRACTION) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows, each in the order of the frame.

    Raises:
        ValueError: the fraction is not between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be above 0 and below 1, not {test_fraction}")
    threshold = int(test_fraction * 2**HASH_BITS)
    held_out = np.array([_position(one) < threshold for one in frame[ID_COLUMN]], dtype=bool)
    return frame[~held_out].reset_index(drop=True), frame[held_out].reset_index(drop=True)


def _position(block_group_id: str) -> int:
    """Where an id falls on the line from 0 to 2**64."""
    digest = hashlib.blake2b(block_group_id.encode(), digest_size=HASH_BITS // 8, salt=SALT)
    return int.from_bytes(digest.digest(), "big")


def compare_sets(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """How alike the sides are: mean and spread by column, and the share of each category.

    `difference` is that of the means, in standard deviations of the training rows.
    """
    sides = _indicators(train), _indicators(test)
    means, spreads = [side.mean() for side in sides], [side.std() for side in sides]
    return pd.DataFrame(
        {
            "column": sides[0].columns,
            "train_mean": means[0].to_numpy(),
            "test_mean": means[1].to_numpy(),
            "train_std": spreads[0].to_numpy(),
            "test_std": spreads[1].to_numpy(),
            "difference": ((means[1] - means[0]) / spreads[0]).to_numpy(),
        }
    )


def _indicators(frame: pd.DataFrame) -> pd.DataFrame:
    shares = {
        f"{CATEGORICAL_FEATURE}={category}": (frame[CATEGORICAL_FEATURE] == category).astype("float64")
        for category in CATEGORIES
    }
    return frame[[*NUMERIC_FEATURES, TARGET]].assign(**shares)
