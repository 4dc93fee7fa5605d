"""Uploaded tables: what is read, what is refused, and that nothing is lost when the service is."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from housing_assets_tests.serving.bundles import INSTANCE
from housing_serving.features import RAW_FEATURES
from housing_serving.schemas import ConfidenceInterval, Prediction, PredictionResponse
from housing_serving.webapp.api import ApiUnavailable
from housing_serving.webapp.batch_rows import MAX_ROWS, Batch, TableRefused, read_table, template
from housing_serving.webapp.texts import ENGLISH

GOOD = {name: str(value) for name, value in INSTANCE.items()}


def table(*rows: dict[str, str], columns: Sequence[str] = RAW_FEATURES) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def result_of(batch: Batch) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(batch.to_csv(ENGLISH).decode())))


@dataclass
class FailingApi:
    """An API that prices at an income's worth, and is gone when it has answered some requests."""

    requests: int
    sizes: list[int] = field(default_factory=list)

    def predict(self, instances: Sequence[dict[str, Any]]) -> PredictionResponse:
        if len(self.sizes) == self.requests:
            raise ApiUnavailable("gone")
        self.sizes.append(len(instances))
        prices = [instance["median_income"] * 10_000 for instance in instances]
        interval = ConfidenceInterval(lower=0, upper=1e6, level=0.9)
        return PredictionResponse(
            predictions=[
                Prediction(predicted_price=price, confidence_interval=interval, warnings=[])
                for price in prices
            ],
            model_version=str(len(self.sizes)),
        )


def test_the_template_is_a_table_that_can_be_priced() -> None:
    batch = read_table(template([INSTANCE, {**INSTANCE, "total_bedrooms": None}]), ENGLISH)
    assert batch.instances == {0: INSTANCE, 1: {**INSTANCE, "total_bedrooms": None}}
    assert batch.bad == []


@pytest.mark.parametrize(
    "data",
    [
        table(GOOD),
        b"\xef\xbb\xbf" + table(GOOD),
        table(GOOD).replace(b"\r\n", b"\n"),
        table(GOOD, columns=tuple(reversed(RAW_FEATURES))),
        table({**GOOD, "ocean_proximity": " near bay "}),
    ],
    ids=["plain", "mark of a spreadsheet", "Unix lines", "another order", "small letters"],
)
def test_usual_files_are_read(data: bytes) -> None:
    [instance] = read_table(data, ENGLISH).instances.values()
    assert {**instance, "ocean_proximity": "NEAR BAY"} == INSTANCE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "These columns are missing: longitude, latitude"),
        (table(), "This file has no rows"),
        ("año\n1\n".encode("latin-1"), "cannot be read as CSV (UTF-8)"),
        (b'longitude\n"12\n', "cannot be read as CSV"),
        (table(GOOD, columns=RAW_FEATURES[1:]), "These columns are missing: longitude."),
        (table(*[GOOD] * (MAX_ROWS + 1)), "This file has 100,001 rows, and 100,000 can be priced"),
    ],
    ids=["empty", "header only", "not UTF-8", "open quote", "column missing", "too long"],
)
def test_other_files_are_refused_with_what_to_do(data: bytes, message: str) -> None:
    with pytest.raises(TableRefused) as refused:
        read_table(data, ENGLISH)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("longitude", "0", "at most -114"),
        ("latitude", "1", "at least 32.4"),
        ("population", "", "must not be empty"),
        ("population", "  ", "must not be empty"),
        ("households", "many", "must be a number, such as 12.5"),
        ("households", "nan", "must be a number, such as 12.5"),
        ("households", "inf", "must be a number, such as 12.5"),
        ("households", "2000000", "at most 1,000,000"),
        ("ocean_proximity", "LAKE", "must be one of <1H OCEAN, INLAND, ISLAND, NEAR BAY, NEAR OCEAN"),
        ("ocean_proximity", "", "must not be empty"),
    ],
)
def test_each_wrong_value_is_named(column: str, value: str, message: str) -> None:
    batch = read_table(table(GOOD, {**GOOD, column: value}), ENGLISH)
    [row] = batch.bad
    assert row.number == 2
    assert [(problem.field, problem.message) for problem in row.problems] == [(column, message)]
    assert list(batch.instances) == [0]


def test_a_row_that_is_too_short_or_too_long_is_judged_by_what_it_has() -> None:
    lines = table(GOOD).decode().splitlines()
    short, long = lines[1].rpartition(",")[0], f"{lines[1]},more"
    batch = read_table("\n".join([lines[0], short, long]).encode(), ENGLISH)
    assert [problem.field for problem in batch.bad[0].problems] == ["ocean_proximity"]
    assert list(batch.instances) == [1]


def test_rows_go_in_parts_and_what_was_priced_survives_the_service() -> None:
    incomes = [1 + number / 1000 for number in range(2_500)]
    rows = [{**GOOD, "median_income": str(income), "note": str(income)} for income in incomes]
    rows[3]["median_income"] = ""
    batch = read_table(table(*rows, columns=(*RAW_FEATURES, "note")), ENGLISH)
    api = FailingApi(2)
    with pytest.raises(ApiUnavailable):
        list(batch.price(api))  # type: ignore[arg-type]
    assert (api.sizes, len(batch.answers), len(batch.pending)) == ([1000, 1000], 2000, 499)

    again = FailingApi(9)
    assert list(batch.price(again)) == [2499]  # type: ignore[arg-type]
    assert again.sizes == [499]
    assert batch.versions == ["1", "2"]
    result = result_of(batch)
    assert [row["note"] for row in result] == [str(income) for income in incomes]
    priced = [row for row in result if row["predicted_price"]]
    assert len(priced) == 2_499
    assert all(
        float(row["predicted_price"]) == pytest.approx(1e4 * float(row["note"]), abs=0.01) for row in priced
    )
    assert result[3]["problem"] == "median_income: must not be empty"


def test_a_result_can_be_priced_again() -> None:
    batch = read_table(table(GOOD), ENGLISH)
    list(batch.price(FailingApi(1)))  # type: ignore[arg-type]
    again = read_table(batch.to_csv(ENGLISH), ENGLISH)
    assert list(again.instances) == [0]
    list(again.price(FailingApi(1)))  # type: ignore[arg-type]
    assert again.to_csv(ENGLISH) == batch.to_csv(ENGLISH)
