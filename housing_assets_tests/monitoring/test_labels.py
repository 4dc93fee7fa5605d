"""Labels: exact scores whatever order, number and state they arrive in, and every unusable one listed."""

import io
import json
import random

import numpy as np
import pandas as pd
import pytest

from housing_assets.ml.cleaning import block_group_ids
from housing_assets.ml.metrics import regression_metrics
from housing_assets.monitoring.labels import AMBIGUOUS, CONTRADICTS, LabelFile, Labels, read_labels
from housing_assets.monitoring.matching import Matched, match
from housing_assets.monitoring.served import ServedDay
from housing_assets_tests.monitoring.days import answered, resampled, served
from housing_serving.features import TARGET

ROWS = 400
GROUP = "0123456789abcdef"


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """Requests of ten instances."""
    return answered(resampled(ROWS, seed=1))


@pytest.fixture(scope="module")
def day(predictions: pd.DataFrame) -> ServedDay:
    return served([predictions])


@pytest.fixture(scope="module")
def truth(predictions: pd.DataFrame) -> pd.DataFrame:
    """A price for every instance."""
    prices = predictions["predicted_price"] * np.random.default_rng(2).normal(1, 0.1, ROWS)
    return predictions[["request_id", "instance"]].assign(median_house_value=prices)


def csv(name: str, frame: pd.DataFrame) -> LabelFile:
    return LabelFile(f"{name}.csv", frame.to_csv(index=False).encode())


def lines(name: str, *rows: object) -> LabelFile:
    return LabelFile(f"{name}.jsonl", "\n".join(json.dumps(row) for row in rows).encode())


def matched(day: ServedDay, *files: LabelFile) -> tuple[Labels, Matched]:
    labels = read_labels(files)
    found = match(day, labels.rows)
    assert len(labels.rows) == found.used + found.duplicates + len(found.rejected) + len(found.unmatched)
    return labels, found


def scores(found: Matched) -> dict[str, float]:
    return regression_metrics(found.scored[TARGET], found.scored["predicted_price"])


def parquet_file(name: str, frame: pd.DataFrame) -> LabelFile:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return LabelFile(f"{name}.parquet", buffer.getvalue())


def test_labels_of_every_format_give_the_exact_scores(
    day: ServedDay, predictions: pd.DataFrame, truth: pd.DataFrame
) -> None:
    files = [
        csv("a", truth[:100]),
        parquet_file("b", truth[100:250]),
        lines("c", *truth[250:].to_dict("records")),
    ]
    labels, found = matched(day, *files)
    assert (labels.rows_read, len(labels.rejected), found.used, len(found.unmatched)) == (ROWS, 0, ROWS, 0)
    exact = regression_metrics(truth[TARGET], predictions["predicted_price"])
    assert scores(found) == pytest.approx(exact, rel=1e-12)


def test_out_of_order_and_twice_give_the_same_scores_to_the_bit(day: ServedDay, truth: pd.DataFrame) -> None:
    once = scores(matched(day, csv("a", truth))[1])
    shuffled = truth.sample(frac=1.0, random_state=3)
    pieces = [csv(f"{n}", shuffled[n * 100 : n * 100 + 150]) for n in range(4)]
    random.Random(4).shuffle(pieces)
    _, found = matched(day, *pieces)
    assert scores(found) == once
    assert (found.used, found.duplicates) == (ROWS, 150)


def test_unknown_ids_and_wrong_types_change_nothing_and_are_listed(
    day: ServedDay, truth: pd.DataFrame
) -> None:
    once = scores(matched(day, csv("a", truth))[1])
    wrong = lines(
        "wrong",
        {"request_id": "request-1", "instance": 2, TARGET: "a lot"},
        {"request_id": "request-1", "instance": 2, TARGET: -5},
        {"request_id": "request-1", "instance": 2, TARGET: None},
        {"request_id": "request-1", "instance": 2, TARGET: True},
        {"request_id": "request-1", "instance": "first", TARGET: 100_000},
        {"request_id": "request-1", "instance": 1.5, TARGET: 100_000},
        {"request_id": "request-1", "instance": 2, TARGET: 100_000, "observed_at": "yesterday"},
        {"request_id": "r" * 65, "instance": 2, TARGET: 100_000},
        {"block_group_id": "block 7", TARGET: 100_000},
        {TARGET: 100_000},
        {"request_id": {"id": 1}, TARGET: [1, 2]},
        {"request_id": "never-asked", "instance": 0, TARGET: 100_000},
        {"request_id": "request-1", "instance": 99, TARGET: 100_000},
    )
    labels, found = matched(day, csv("a", truth), wrong)
    assert scores(found) == once
    assert labels.rejected[["file", "row", "reason"]].values.tolist() == [
        ["wrong.jsonl", 1, "median_house_value is no number"],
        ["wrong.jsonl", 2, "median_house_value: expected between 1 and 100,000,000"],
        ["wrong.jsonl", 3, "median_house_value: expected no nulls"],
        ["wrong.jsonl", 4, "median_house_value is no number"],
        ["wrong.jsonl", 5, "instance is no number"],
        ["wrong.jsonl", 6, "instance: expected a whole number from 0"],
        ["wrong.jsonl", 7, "observed_at is no moment in ISO 8601"],
        ["wrong.jsonl", 8, "request_id: expected 1 to 64 characters"],
        ["wrong.jsonl", 9, "block_group_id: expected 16 hexadecimal digits"],
        ["wrong.jsonl", 10, "neither request_id nor block_group_id is given"],
        ["wrong.jsonl", 11, "median_house_value is no number"],
    ]
    assert json.loads(labels.rejected["content"][0])["median_house_value"] == "a lot"
    assert found.unmatched["row"].tolist() == [12, 13]


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (LabelFile("x.csv", b"\x00\xff\xfe"), "is not a readable table"),
        (LabelFile("x.csv", b""), "is not a readable table: No columns to parse from file"),
        (LabelFile("x.parquet", b"PAR1"), "is not a readable table"),
        (LabelFile("x.jsonl", b'{"a": 1'), "is not a readable table"),
        (LabelFile("x.jsonl", b"[1]"), "is not a readable table: a line is no JSON object"),
        (LabelFile("x.xlsx", b""), "its name ends with .xlsx, not with .csv, .parquet, .jsonl"),
        (LabelFile("x.csv", b"request_id,price\n1,2"), "has unknown columns price"),
        (LabelFile("x.csv", b"request_id\n1"), "has no column median_house_value"),
        (LabelFile("x.csv", b"median_house_value\n1"), "has neither a column request_id nor block_group_id"),
    ],
)
def test_a_file_that_holds_no_labels_is_listed(file: LabelFile, problem: str) -> None:
    labels = read_labels([file, lines("good", {"block_group_id": GROUP, TARGET: 1e5})])
    assert len(labels.rows) == 1
    [(reason, name)] = labels.rejected[["reason", "file"]].values.tolist()
    assert problem in reason
    assert name == file.name


def test_a_label_of_one_of_several_instances_must_say_which(day: ServedDay) -> None:
    _, found = matched(day, lines("a", {"request_id": "request-3", TARGET: 1e5}))
    assert len(found.scored) == 0
    assert found.rejected["reason"].tolist() == [AMBIGUOUS]


def test_a_request_of_one_instance_needs_no_number(predictions: pd.DataFrame) -> None:
    single = served([predictions[predictions["instance"] == 0]])
    _, found = matched(single, lines("a", {"request_id": "request-3", TARGET: 1e5}))
    assert found.scored[TARGET].tolist() == [1e5]


def test_the_later_of_two_differing_labels_counts_whatever_comes_first(day: ServedDay) -> None:
    def label(price: float, moment: str | None) -> dict[str, object]:
        row: dict[str, object] = {"request_id": "request-3", "instance": 4, TARGET: price}
        return row if moment is None else row | {"observed_at": moment}

    first, second = label(1e5, "2026-12-01T08:00:00Z"), label(2e5, "2026-12-01T09:00:00+00:00")
    for order in ((first, second), (second, first)):
        _, found = matched(day, lines("a", *order), lines("b", label(3e5, None)))
        assert found.scored[TARGET].tolist() == [2e5]
        assert (found.used, found.duplicates) == (1, 2)


def test_labels_that_contradict_each_other_are_all_listed(day: ServedDay) -> None:
    one = {"request_id": "request-3", "instance": 4, TARGET: 1e5}
    _, found = matched(day, lines("a", one), lines("b", one | {TARGET: 2e5}))
    assert len(found.scored) == 0
    assert found.rejected[["reason", "file"]].values.tolist() == [
        [CONTRADICTS, "a.jsonl"],
        [CONTRADICTS, "b.jsonl"],
    ]


def test_a_label_of_a_block_group_is_about_each_of_its_predictions(predictions: pd.DataFrame) -> None:
    twice = pd.concat([predictions[:50], answered(resampled(ROWS, seed=1)[:50], request="other")])
    ids = block_group_ids(predictions[:50])
    labels = pd.DataFrame({"block_group_id": ids, TARGET: np.linspace(1e5, 2e5, 50)}).drop_duplicates(
        "block_group_id"
    )
    single = {"request_id": "other-0", "instance": 0, TARGET: 5e5}
    _, found = matched(served([twice]), csv("groups", labels), lines("one", single))
    assert len(found.scored) == 100
    # What is said of the instance itself wins over what is said of its block group.
    assert sorted(found.scored[TARGET])[-1] == 5e5
    assert (found.scored[TARGET] == 5e5).sum() == 1


def test_no_labels_at_all_are_no_error(day: ServedDay) -> None:
    labels, found = matched(day)
    assert (labels.rows_read, len(found.scored), len(found.rejected)) == (0, 0, 0)


def test_labels_of_a_day_without_predictions_stay_unmatched() -> None:
    _, found = matched(
        served([]), lines("a", {"request_id": "x", TARGET: 1e5}, {"block_group_id": GROUP, TARGET: 1e5})
    )
    assert len(found.unmatched) == 2
