"""Cleaning: types, duplicates, ids, order, and the content hash."""

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.cleaning import (
    ID_COLUMN,
    add_row_features,
    block_group_ids,
    content_hash,
    process,
)
from housing_assets.ml.columns import columns_of
from housing_assets.sources import packaged_source, parse
from housing_serving.features import RAW_FEATURES, TARGET


def raw_rows() -> pd.DataFrame:
    """Three block groups as published, the last one without bedrooms and at the price cap."""
    return pd.DataFrame(
        {
            "longitude": [-122.23, -117.10, -118.44],
            "latitude": [37.88, 32.71, 34.04],
            "housing_median_age": [41, 52, 16],
            "total_rooms": [880, 1000, 18],
            "total_bedrooms": [129.0, 200.0, np.nan],
            "population": [322, 800, 8],
            "households": [126, 250, 6],
            "median_income": [8.3252, 3.5, 4.2],
            "ocean_proximity": ["NEAR BAY", "NEAR OCEAN", "<1H OCEAN"],
            TARGET: [452600, 150000, 500001],
        }
    )


def test_clean_rows_are_typed_identified_and_sorted_by_id() -> None:
    frame = process(raw_rows()).frame
    assert list(frame.columns) == [ID_COLUMN, *RAW_FEATURES, TARGET]
    assert frame[[*RAW_FEATURES[:8], TARGET]].dtypes.unique().tolist() == [np.dtype("float64")]
    assert frame[ID_COLUMN].tolist() == sorted(frame[ID_COLUMN])
    assert frame[ID_COLUMN].str.fullmatch("[0-9a-f]{16}").all()
    assert frame.index.tolist() == [0, 1, 2]


def test_exact_duplicates_are_dropped_and_prices_at_the_cap_counted() -> None:
    processed = process(pd.concat([raw_rows(), raw_rows().iloc[[0, 2]]]))
    assert (len(processed.frame), processed.duplicates_dropped, processed.capped_rows) == (3, 2, 1)


def test_neither_row_order_nor_number_format_of_the_source_changes_the_result() -> None:
    raw = raw_rows()
    other = raw.iloc[::-1].astype({"total_rooms": "int32", "longitude": "float64", TARGET: "float64"})
    assert content_hash(process(raw).frame) == content_hash(process(other).frame)


def test_an_id_survives_new_prices_imputed_bedrooms_and_coordinates_stored_as_float32() -> None:
    raw = raw_rows()
    changed = raw.assign(total_bedrooms=7.0, **{TARGET: 1.0}).astype({"longitude": "float32"})
    assert block_group_ids(changed) == block_group_ids(raw)
    assert block_group_ids(raw.assign(households=5)) != block_group_ids(raw)


def test_the_id_of_a_known_block_group_never_changes() -> None:
    assert block_group_ids(raw_rows())[0] == "acb8336163a8251a"


def test_the_five_identity_columns_are_unique_over_the_packaged_table() -> None:
    processed = process(parse(packaged_source()))
    assert processed.frame[ID_COLUMN].nunique() == 20_640
    assert (processed.duplicates_dropped, processed.capped_rows) == (0, 965)
    assert int(processed.frame["total_bedrooms"].isna().sum()) == 207


def test_one_block_group_with_differing_values_is_refused_with_its_rows_named() -> None:
    raw = raw_rows()
    contradicting = pd.concat([raw, raw.iloc[[1]].assign(median_income=9.9)])
    with pytest.raises(ValueError, match=r"1 block group\(s\) occur with differing values \(rows 2, 4\)"):
        process(contradicting)


def test_of_many_contradictions_the_first_ten_are_named() -> None:
    many = pd.concat([raw_rows().iloc[[0]].assign(households=number) for number in range(1, 13)])
    with pytest.raises(ValueError, match=r"12 block group\(s\).*rows 10, 22; and 2 more"):
        process(pd.concat([many, many.assign(median_income=1.0)]))


def test_cleaning_leaves_its_argument_alone() -> None:
    raw = raw_rows()
    process(raw)
    pd.testing.assert_frame_equal(raw, raw_rows())


def test_row_features_are_appended_and_null_where_bedrooms_are() -> None:
    featured = add_row_features(raw_rows())
    assert featured["rooms_per_household"].tolist() == [880 / 126, 4.0, 3.0]
    assert featured["population_per_household"].tolist() == [322 / 126, 3.2, 8 / 6]
    np.testing.assert_array_equal(featured["bedrooms_per_household"], [129 / 126, 0.8, np.nan])
    np.testing.assert_array_equal(featured["bedrooms_per_room"], [129 / 880, 0.2, np.nan])


def test_columns_are_plain_arrays_of_the_raw_features() -> None:
    columns = columns_of(process(raw_rows()).frame)
    assert tuple(columns) == RAW_FEATURES
    assert {name: array.dtype.kind for name, array in columns.items() if array.dtype.kind != "f"} == {
        "ocean_proximity": "O"
    }


def test_nullable_integers_become_floats_with_nan() -> None:
    frame = raw_rows().astype({"total_bedrooms": "Int64"})
    np.testing.assert_array_equal(columns_of(frame)["total_bedrooms"], [129.0, 200.0, np.nan])


def test_equal_content_has_one_hash_whatever_the_index_or_the_bits_of_null_and_zero() -> None:
    frame = pd.DataFrame({"a": [0.0, np.nan], "b": ["x", None], "c": [True, False], "d": [1, 2]})
    same = pd.DataFrame({"a": [-0.0, -np.nan], "b": ["x", None], "c": [True, False], "d": [1, 2]}, [5, 9])
    assert content_hash(frame) == content_hash(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": [1.0, 2.0]}, {"a": [2.0, 1.0]}),
        ({"a": [1.0]}, {"b": [1.0]}),
        ({"a": [1.0]}, {"a": [1]}),
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": ["", "x"]}, {"a": [None, "x"]}),
        ({"a": [1.0], "b": [2.0]}, {"b": [2.0], "a": [1.0]}),
        ({"a": pd.Series([], dtype="float64")}, {"a": [np.nan]}),
    ],
)
def test_any_difference_in_values_names_types_or_order_changes_the_hash(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert content_hash(pd.DataFrame(one)) != content_hash(pd.DataFrame(other))
