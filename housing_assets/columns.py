"""What each column of the stored tables means, for the pages of the assets."""

from collections.abc import Mapping

from housing_assets.ml.cleaning import ID_COLUMN
from housing_serving.features import CATEGORICAL_FEATURE, TARGET

DESCRIPTIONS: Mapping[str, str] = {
    ID_COLUMN: "Identity of the block group: a hash of where and how large it is.",
    "longitude": "Degrees, negative to the west.",
    "latitude": "Degrees.",
    "housing_median_age": "Years; the median of the block group's homes.",
    "total_rooms": "Rooms of all homes of the block group.",
    "total_bedrooms": "Bedrooms of all homes; null where it was not counted.",
    "population": "People of the block group.",
    "households": "Occupied homes.",
    "median_income": "Tens of thousands of dollars a year.",
    CATEGORICAL_FEATURE: "Where the block group lies to the ocean.",
    TARGET: "Dollars of 1990, capped at 500,001; what is learned.",
    "rooms_per_household": "total_rooms by households.",
    "population_per_household": "population by households.",
    "bedrooms_per_household": "total_bedrooms by households; null where those are.",
    "bedrooms_per_room": "total_bedrooms by total_rooms; null where those are.",
}
