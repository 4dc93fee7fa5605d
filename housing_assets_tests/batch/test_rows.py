"""Rows of every format, good and bad: none is lost, none is priced wrongly, and each fault has its place."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing_assets.batch import reading
from housing_assets.batch.errors import BatchError
from housing_assets.batch.pricing import RESULT_COLUMNS
from housing_assets.batch.reading import Format, read_pieces
from housing_assets.batch.run import Outcome, price_rows
from housing_assets.batch.writing import Closing, open_writer
from housing_assets_tests.batch.tables import (
    GOOD,
    HEADER,
    POOR,
    RICH,
    as_file,
    bundle,
    csv_bytes,
    csv_row,
    expected,
    random_frame,
    read,
)
from housing_assets_tests.serving.bundles import INSTANCE, bundle_files
from housing_serving.bundle import Bundle
from housing_serving.features import CATEGORIES, RAW_FEATURES

FORMATS = tuple(Format)


def priced(
    data: bytes, kind: str = "csv", output: str = "csv", model: Bundle | None = None
) -> tuple[pd.DataFrame, Outcome]:
    """The result of pricing a file, and what became of its rows."""
    written, outcome = priced_bytes(data, kind, output, model)
    return read(written, output), outcome


def priced_bytes(
    data: bytes, kind: str = "csv", output: str = "csv", model: Bundle | None = None
) -> tuple[bytes, Outcome]:
    """The same as it was written."""
    target = io.BytesIO()
    with Closing(open_writer(target, Format(output))) as writer:
        pieces = read_pieces(io.BytesIO(data), Format(kind), f"rows.{kind}")
        outcome = price_rows(pieces, model or bundle(), f"rows.{kind}", writer.write)
    return target.getvalue(), outcome


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_becomes_every_other_with_the_prices_of_the_bundle(kind: str, output: str) -> None:
    frame = random_frame(300)
    result, outcome = priced(as_file(frame, kind), kind, output)
    assert (outcome.rows, outcome.priced, outcome.problems) == (300, 300, [])
    np.testing.assert_array_equal(
        result[["predicted_price", "lower", "upper"]].to_numpy().T, expected(frame, bundle())
    )
    assert set(result["model_version"]) == {"1"}
    assert list(result.columns) == [*RAW_FEATURES, "name", *RESULT_COLUMNS]
    for name in (*RAW_FEATURES, "name"):
        pd.testing.assert_series_equal(result[name], frame[name], check_dtype=False)


def test_a_table_in_pieces_is_priced_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = random_frame(500)
    for kind in FORMATS:
        whole, _ = priced(as_file(frame, kind), kind)
        with monkeypatch.context() as small:
            small.setattr(reading, "PIECE_ROWS", 37)
            small.setattr(reading, "CSV_BYTES", 4_096)
            pieces = list(read_pieces(io.BytesIO(as_file(frame, kind)), kind, "rows"))
            in_pieces, _ = priced(as_file(frame, kind), kind)
        assert len(pieces) > 5
        assert [piece.first_row for piece in pieces] == np.cumsum(
            [1, *(piece.table.num_rows for piece in pieces[:-1])]
        ).tolist()
        pd.testing.assert_frame_equal(in_pieces, whole)


FAULTS = {
    "total_rooms": {
        "many": "total_rooms 'many' is no number",
        "1_000": "total_rooms '1_000' is no number",
        "": "total_rooms is missing",
        "NA": "total_rooms is missing",
        "0": "total_rooms 0 is impossible: the least is 1",
        "inf": "total_rooms 'inf' is no number",
        "1e9": "total_rooms 1e+09 is impossible: the most is 1e+06",
    },
    "longitude": {"122.2": "longitude 122.2 is impossible: the most is -114"},
    "total_bedrooms": {"two": "total_bedrooms 'two' is no number"},
    "ocean_proximity": {
        "LAKE": "ocean_proximity 'LAKE' is none of <1H OCEAN, INLAND, ISLAND, NEAR BAY, NEAR OCEAN",
        "": "ocean_proximity is missing",
    },
}


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [(column, value, problem) for column, some in FAULTS.items() for value, problem in some.items()],
)
def test_a_bad_value_is_named_and_costs_no_other_row_its_price(column: str, value: str, problem: str) -> None:
    result, outcome = priced(csv_bytes(GOOD, csv_row(**{column: value}), csv_row(median_income=4)))
    assert outcome.problems == [(2, problem)]
    assert result["predicted_price"].tolist()[::2] == [RICH, POOR]
    assert np.isnan(result["predicted_price"][1])
    assert result["error"].tolist()[1] == problem


def test_what_is_wrong_with_a_row_is_told_in_full() -> None:
    _, outcome = priced(csv_bytes(csv_row(population="?", households=-1)))
    assert outcome.problems == [
        (1, "population '?' is no number; households -1 is impossible: the least is 1")
    ]


@pytest.mark.parametrize("spelling", ["near bay", " NEAR BAY ", "Near Bay"])
def test_spaces_case_and_unknown_bedrooms_are_no_faults(spelling: str) -> None:
    row = csv_row(ocean_proximity=spelling, total_bedrooms="", population=" 9 ")
    result, outcome = priced(csv_bytes(row))
    assert outcome.rejected == 0
    # Three bedrooms a household are estimated, which is worth another thousand.
    assert result["predicted_price"].tolist() == [RICH + 1_000]


def test_rows_of_the_wrong_length_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [GOOD] * 400
    short, long = "1,2,3", f"{GOOD},1,2"
    for at in (0, 7, 8, 250, 399):
        rows[at] = short if at % 2 else long
    for size in (1_024, 1_000_000):
        monkeypatch.setattr(reading, "CSV_BYTES", size)
        result, outcome = priced(csv_bytes(*rows))
        assert outcome.rows == 400
        assert [row for row, _ in outcome.problems] == [1, 8, 9, 251, 400]
        assert outcome.problems[1][1] == "it has 3 fields, the header has 9: '1,2,3'"
        assert np.flatnonzero(result["predicted_price"].isna()).tolist() == [0, 7, 8, 250, 399]


def test_lines_that_are_no_objects_keep_their_places() -> None:
    lines = [json.dumps(dict(INSTANCE)), "{", "[1]", "", json.dumps({**INSTANCE, "total_rooms": True})]
    result, outcome = priced("\n".join(lines).encode(), "jsonl", "jsonl")
    assert [row for row, _ in outcome.problems] == [2, 3, 4]
    assert outcome.problems[0][1].startswith("it is no JSON (")
    assert outcome.problems[1][1] == "it is no JSON object: '[1]'"
    assert outcome.problems[2][1] == "total_rooms 'true' is no number"
    assert result["predicted_price"][0] == RICH


def test_other_columns_are_kept_as_they_are() -> None:
    header = f"id,{HEADER},note"
    rows = [f'007,{GOOD},"a ""quoted"", text"', f"1e3,{GOOD},"]
    written, _ = priced_bytes(csv_bytes(*rows, header=header))
    result = pd.read_csv(io.BytesIO(written), dtype=str, keep_default_na=False)
    assert result["id"].tolist() == ["007", "1e3"]
    assert result["note"].tolist() == ['a "quoted", text', ""]


def test_what_training_never_saw_is_marked() -> None:
    mainland = tuple(name for name in CATEGORIES if name != "ISLAND")
    model = Bundle.from_files(bundle_files(categories=mainland), origin="bundle")
    result, outcome = priced(csv_bytes(GOOD, csv_row(ocean_proximity="ISLAND")), model=model)
    assert outcome.unusual == 1
    assert result["warnings"].fillna("").tolist() == ["", "ocean_proximity unseen_category"]


def test_a_header_alone_gives_a_header() -> None:
    for rows in ([], ["", "  "]):
        result, outcome = priced(csv_bytes(*rows))
        assert outcome.rows == 0
        assert list(result.columns) == [*RAW_FEATURES, *RESULT_COLUMNS]


@pytest.mark.parametrize(
    ("data", "kind", "problem"),
    [
        (b"", "csv", "the file is empty"),
        (b"\n", "csv", "the file is empty"),
        (b"", "jsonl", "the file is empty"),
        (
            csv_bytes(GOOD, header=HEADER.replace("latitude", "lat")),
            "csv",
            "missing column latitude; ",
        ),
        (csv_bytes(f"{GOOD},1", header=f"{HEADER},latitude"), "csv", "column latitude comes more than once"),
        (csv_bytes(f"{GOOD},1", header=f"{HEADER},error"), "csv", "column error is there already"),
        (csv_bytes(GOOD).replace(b",", b";"), "csv", "fields are separated by ';'"),
        (csv_bytes(csv_row(ocean_proximity="BAHÍA")).decode().encode("latin-1"), "csv", "in UTF-8"),
        (csv_bytes(GOOD).decode().encode("utf-16"), "csv", "its first line is not UTF-8"),
        (b"PAR1 and then something else", "parquet", "not a readable Parquet file"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(data: bytes, kind: str, problem: str) -> None:
    with pytest.raises(BatchError, match=problem) as raised:
        priced(data, kind)
    assert str(raised.value).startswith(f"rows.{kind}: ")


def test_lines_within_quotes_do_not_end_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f'{GOOD},"{number}\nof ""many""\n"' for number in range(200)]
    monkeypatch.setattr(reading, "CSV_BYTES", 300)
    result, outcome = priced(csv_bytes(*rows, header=f"{HEADER},note"))
    assert (outcome.rows, outcome.rejected) == (200, 0)
    assert result["note"].tolist() == [f'{number}\nof "many"\n' for number in range(200)]


def test_a_quotation_mark_that_is_never_closed_does_not_take_all_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "CSV_BYTES", 300)
    monkeypatch.setattr(reading, "MAX_ROW_BYTES", 1_200)
    with pytest.raises(BatchError, match="a quotation mark is opened and never closed"):
        priced(csv_bytes(f'"{GOOD}', *[GOOD] * 100))


def test_columns_that_come_late_have_no_room_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 1)
    lines: list[dict[str, Any]] = [{**INSTANCE}, {**INSTANCE, "owner": "me"}]
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    with pytest.raises(BatchError, match="column owner is not in the first rows"):
        priced(data, "jsonl", "csv")
    result, _ = priced(data, "jsonl", "jsonl")
    assert result["owner"].tolist()[1] == "me"
