"""Sources: every place a table can come from, and every way it can be wrong, named in the message."""

import gzip
import io
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from housing_assets import sources
from housing_assets.sources import SOURCE_COLUMNS, Source, fetch, packaged_source, parse, resolve
from housing_assets.storage import open_store
from housing_assets_tests.scripted_http import (
    ScriptedServer,
    answer,
    break_off,
    drip,
    fall_silent,
    hang,
    scripted_server,
)

HEADER = (
    "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,"
    "median_income,median_house_value,ocean_proximity"
)
FIRST = "-122.23,37.88,41,880,129,322,126,8.3252,452600,NEAR BAY"
SECOND = "-122.22,37.86,21,7099,,2401,1138,8.3014,358500,<1H OCEAN"
CSV = f"{HEADER}\n{FIRST}\n{SECOND}\n".encode()
EXPECTED = pd.DataFrame(
    {
        "longitude": [-122.23, -122.22],
        "latitude": [37.88, 37.86],
        "housing_median_age": [41.0, 21.0],
        "total_rooms": [880.0, 7099.0],
        "total_bedrooms": [129.0, np.nan],
        "population": [322.0, 2401.0],
        "households": [126.0, 1138.0],
        "median_income": [8.3252, 8.3014],
        "ocean_proximity": ["NEAR BAY", "<1H OCEAN"],
        "median_house_value": [452600.0, 358500.0],
    }
)


def table(data: bytes, location: str = "/data/housing.csv") -> Source:
    return Source(location, data, sha256(data).hexdigest(), None, datetime(2026, 11, 22, tzinfo=UTC))


def tar(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for named, data in members:
            member = tarfile.TarInfo(named) if isinstance(named, str) else named
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def parquet_bytes(frame: pd.DataFrame | pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame), buffer)
    return buffer.getvalue()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(tmp_path)))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("housing_assets.sources.download.FIRST_WAIT_SECONDS", 0.02)


# Where a table comes from


def test_the_packaged_table_needs_nothing() -> None:
    source = packaged_source()
    frame = parse(source)
    assert source.location == "package://housing_assets/data/california_block_groups.csv"
    assert source.sha256 == "0490ff2fb8e09333d45a37b908d0dc2265247c363ea941978c14ff2e02edca10"
    assert source.member is None
    assert frame.shape == (20640, 10)
    assert list(frame.columns) == list(SOURCE_COLUMNS)
    assert frame.loc[0, "median_house_value"] == 452600.0


def test_a_local_path_a_file_url_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "block groups.csv").write_bytes(CSV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    url = (tmp_path / "block groups.csv").as_uri()
    assert "%20" in url
    for location in ("block groups.csv", f"{tmp_path}/block groups.csv", url, "~/block groups.csv"):
        source = fetch(location)
        assert (source.location, source.data, source.etag) == (location, CSV, None)
        pd.testing.assert_frame_equal(parse(source), EXPECTED)


def test_http(site: str, tmp_path: Path) -> None:
    (tmp_path / "housing.csv").write_bytes(CSV)
    before = datetime.now(UTC)
    source = fetch(f"{site}/housing.csv")
    assert before <= source.fetched_at <= datetime.now(UTC)
    assert source.sha256 == sha256(CSV).hexdigest()
    pd.testing.assert_frame_equal(parse(source), EXPECTED)


def test_http_keeps_the_etag_and_the_published_bytes(scripted: ScriptedServer) -> None:
    packed = gzip.compress(CSV)
    scripted.afterwards = answer(200, packed, **{"ETag": '"v7"', "Content-Encoding": "gzip"})
    source = fetch(f"{scripted.url}/housing.csv.gz")
    assert (source.etag, source.data) == ('"v7"', packed)
    pd.testing.assert_frame_equal(parse(source), EXPECTED)


def test_a_bucket(gcs_bucket: str) -> None:
    stored = open_store(f"gs://{gcs_bucket}").write("in/housing.csv", CSV)
    source = fetch(f"gs://{gcs_bucket}/in/housing.csv")
    assert source.etag == str(stored.generation)
    pd.testing.assert_frame_equal(parse(source), EXPECTED)


@pytest.mark.parametrize(
    ("location", "data", "member"),
    [
        ("housing.csv.gz", gzip.compress(CSV), None),
        ("housing.tgz", tar(("housing.csv", CSV)), "housing.csv"),
        ("housing.tar.gz", tar((special("d", tarfile.DIRTYPE), b""), ("d/h.csv", CSV)), "d/h.csv"),
        ("nested.tgz", tar(("housing.csv.gz", gzip.compress(CSV))), "housing.csv.gz"),
        ("housing.parquet", parquet_bytes(EXPECTED), None),
        ("packed.tgz", tar(("housing.parquet", parquet_bytes(EXPECTED))), "housing.parquet"),
    ],
)
def test_every_format_gives_the_same_table(
    tmp_path: Path, location: str, data: bytes, member: str | None
) -> None:
    (tmp_path / location).write_bytes(data)
    source = fetch(str(tmp_path / location))
    assert source.member == member
    assert source.sha256 == sha256(data).hexdigest()
    pd.testing.assert_frame_equal(parse(source), EXPECTED)


def test_the_snapshot_is_filled_in() -> None:
    assert resolve("gs://b/{snapshot}/h-{snapshot}.csv", "2026-11-22") == "gs://b/2026-11-22/h-2026-11-22.csv"
    assert resolve("/data/housing.csv", "2026-11-22") == "/data/housing.csv"
    with pytest.raises(
        sources.SourceLocationInvalid,
        match=r"unknown placeholder \{date\}, only \{snapshot\} is filled in; check HOUSING_SOURCE_URI",
    ):
        resolve("/data/{snapshot}/{date}.csv", "2026-11-22")


# Where no table comes from


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://host/housing.csv", "scheme ftp is not supported, use https, http, gs or a local path"),
        ("gs://bucket", "expected gs://<bucket>/<object>"),
        ("gs://bucket/../x", "use relative names"),
        ("http://", "No host supplied"),
    ],
)
def test_a_malformed_location_names_the_setting(
    location: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(sources.SourceLocationInvalid, match=f"{reason}.*check HOUSING_SOURCE_URI"):
        fetch(location)


def test_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        sources.SourceMissing, match=rf"no file at {tmp_path}/absent\.csv; check HOUSING_SOURCE_URI"
    ):
        fetch(f"{tmp_path}/absent.csv")
    with pytest.raises(sources.SourceMissing, match=f"{tmp_path} is not a file"):
        fetch(str(tmp_path))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), sources.SourceForbidden),
        (OSError(5, "Input/output error"), sources.SourceUnreachable),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[Exception]
) -> None:
    (tmp_path / "housing.csv").write_bytes(CSV)

    def refuse(_: Path) -> bytes:
        raise error

    # Tests may run as root, whom no file mode stops.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(expected, match=rf"read {tmp_path}/housing\.csv"):
        fetch(f"{tmp_path}/housing.csv")


def test_a_missing_page(site: str) -> None:
    with pytest.raises(
        sources.SourceMissing, match=rf"{site}/absent\.csv: the server answered 404 File not found"
    ):
        fetch(f"{site}/absent.csv")


def test_a_forbidden_page_is_not_tried_again(scripted: ScriptedServer) -> None:
    scripted.afterwards = answer(403)
    with pytest.raises(sources.SourceForbidden, match="the server answered 403 Forbidden"):
        fetch(scripted.url)
    assert len(scripted.requests) == 1


def test_a_missing_object_and_a_missing_bucket(gcs_bucket: str) -> None:
    with pytest.raises(sources.SourceMissing, match=rf"no object at gs://{gcs_bucket}/absent\.csv"):
        fetch(f"gs://{gcs_bucket}/absent.csv")
    with pytest.raises(sources.SourceMissing, match=f"bucket {gcs_bucket}-absent does not exist"):
        fetch(f"gs://{gcs_bucket}-absent/housing.csv")


def test_a_forbidden_and_an_unreachable_bucket(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", scripted.url)
    scripted.afterwards = answer(403)
    with pytest.raises(sources.SourceForbidden, match="access to bucket closed is forbidden"):
        fetch("gs://closed/housing.csv")
    scripted.afterwards = answer(503)
    with pytest.raises(
        sources.SourceUnreachable, match=f"gs://closed/housing.csv: {scripted.url} gave no answer"
    ):
        fetch("gs://closed/housing.csv", timeout=0.3)


def test_a_server_that_is_down_is_tried_three_times() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/housing.csv"
    start = time.monotonic()
    with pytest.raises(
        sources.SourceUnreachable, match=rf"{url}: no connection \(.*refused\); gave up after 3 attempt\(s\)"
    ):
        fetch(url, timeout=1)
    assert time.monotonic() - start < 5


def test_transient_answers_are_tried_again(scripted: ScriptedServer) -> None:
    scripted.script = [answer(503), answer(429)]
    scripted.afterwards = answer(200, CSV)
    assert fetch(scripted.url).data == CSV
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(503), "the server answered 503 Service Unavailable"),
        (hang, "no answer within 0.2 s"),
        (fall_silent, "the server stopped sending"),
        (drip, "the answer was not complete in time"),
        (break_off, "the connection broke"),
    ],
)
def test_an_answer_that_never_completes_ends_within_its_time_out(
    scripted: ScriptedServer, behaviour: Callable[..., None], reason: str
) -> None:
    scripted.afterwards = behaviour
    start = time.monotonic()
    with pytest.raises(
        sources.SourceUnreachable, match=rf"{scripted.url}: {reason}.*gave up after 2 attempt\(s\)"
    ):
        fetch(scripted.url, timeout=0.2, attempts=2)
    assert time.monotonic() - start < 5
    assert len(scripted.requests) == 2


def test_a_broken_answer_that_cannot_be_repaired(scripted: ScriptedServer) -> None:
    scripted.afterwards = answer(302, Location=f"{scripted.url}/again")
    with pytest.raises(sources.SourceUnreachable, match="Exceeded 30 redirects"):
        fetch(scripted.url)
    with pytest.raises(sources.SourceUnreachable, match="certificate was refused"):
        fetch(scripted.url.replace("http:", "https:"))


def test_a_checksum_that_differs_names_both_and_the_setting(tmp_path: Path) -> None:
    (tmp_path / "housing.csv").write_bytes(CSV)
    location, digest = f"{tmp_path}/housing.csv", sha256(CSV).hexdigest()
    assert fetch(location, expected_sha256=f" {digest.upper()}\n").sha256 == digest
    with pytest.raises(
        sources.ChecksumMismatch,
        match=f"sha256 is {digest}, expected {'0' * 64}; check HOUSING_SOURCE_SHA256",
    ):
        fetch(location, expected_sha256="0" * 64)


def test_too_many_bytes_are_refused_before_they_are_read(
    tmp_path: Path, scripted: ScriptedServer, gcs_bucket: str
) -> None:
    (tmp_path / "housing.csv").write_bytes(CSV)
    open_store(f"gs://{gcs_bucket}").write("housing.csv", CSV)
    scripted.afterwards = answer(200, CSV)
    for location in (f"{tmp_path}/housing.csv", f"gs://{gcs_bucket}/housing.csv", scripted.url):
        with pytest.raises(sources.SourceTooLarge, match=f"{len(CSV)} bytes, at most 100 are accepted"):
            fetch(location, max_bytes=100)
    scripted.afterwards = drip
    with pytest.raises(sources.SourceTooLarge, match="more than 2 bytes"):
        fetch(scripted.url, max_bytes=2)


def test_the_packaged_table_has_a_limit_too() -> None:
    with pytest.raises(sources.SourceTooLarge, match="1176590 bytes, at most 100"):
        fetch(sources.PACKAGED_LOCATION, max_bytes=100)


# Archives


@pytest.mark.parametrize(
    ("members", "error", "reason"),
    [
        ([("../evil.csv", CSV)], sources.UnsafeArchive, r"member '\.\./evil\.csv' points outside"),
        ([("a/../../evil.csv", CSV)], sources.UnsafeArchive, "points outside the archive"),
        ([("/etc/evil.csv", CSV)], sources.UnsafeArchive, "member '/etc/evil.csv' points outside"),
        ([("..\\evil.csv", CSV)], sources.UnsafeArchive, "points outside"),
        ([("C:evil.csv", CSV)], sources.UnsafeArchive, "points outside"),
        ([("h.csv", CSV), (special("../d", tarfile.DIRTYPE), b"")], sources.UnsafeArchive, "points outside"),
        (
            [(special("l.csv", tarfile.SYMTYPE, "/etc/passwd"), b"")],
            sources.UnsafeArchive,
            "'l.csv' is a link",
        ),
        ([(special("pipe", tarfile.FIFOTYPE), b"")], sources.UnsafeArchive, "'pipe' is a link, device"),
        (
            [("a.csv", CSV), ("b.csv", CSV)],
            sources.AmbiguousArchive,
            r"exactly one file, found 2: a\.csv, b\.csv",
        ),
        ([(special("only-a-folder", tarfile.DIRTYPE), b"")], sources.AmbiguousArchive, "found 0: none"),
    ],
)
def test_an_archive_holds_exactly_one_harmless_file(
    tmp_path: Path,
    members: list[tuple[str | tarfile.TarInfo, bytes]],
    error: type[Exception],
    reason: str,
) -> None:
    path = tmp_path / "housing.tgz"
    path.write_bytes(tar(*members))
    with pytest.raises(error, match=f"{path}: .*{reason}"):
        fetch(str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["housing.tgz"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("h.csv.gz", gzip.compress(CSV)[:-20], "damaged gzip file"),
        ("h.tgz", tar(("h.csv", CSV))[:60], "damaged gzip file"),
        ("h.tgz", gzip.compress(CSV), "not a tar archive"),
        ("h.tgz", CSV, "not a tar archive"),
        ("h.tgz", gzip.compress(gzip.decompress(tar(("h.csv", CSV)))[:700]), "damaged tar archive"),
    ],
    # Compressed data holds the time of day, and names of tests must not.
    ids=["cut gzip", "cut tar of gzip", "gzip alone", "neither", "cut tar"],
)
def test_a_damaged_archive(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(sources.UnreadableSource, match=f"{tmp_path}/{name}: {reason}"):
        fetch(f"{tmp_path}/{name}")


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("housing_assets.sources.fetching.MAX_BYTES", 100_000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(sources.SourceTooLarge, match="unpacks to more than 100000 bytes"):
        fetch(f"{tmp_path}/bomb.csv.gz")


# What a table looks like


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + CSV,
        CSV.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
        CSV.replace(b"\n", b"\n\n"),
        CSV.replace(b"NEAR BAY", b'"NEAR BAY"').replace(b"-122.23", b" -122.23 "),
        CSV.replace(b"880", b"880.0").replace(b"7099,,", b"7099,NA,").replace(b"452600", b"4.526e5"),
    ],
    ids=["byte-order mark", "CRLF", "both", "blank lines", "quotes and spaces", "spellings of numbers"],
)
def test_harmless_differences_are_accepted(data: bytes) -> None:
    pd.testing.assert_frame_equal(parse(table(data)), EXPECTED)


def test_columns_in_another_order_are_put_in_order() -> None:
    shuffled = EXPECTED[list(EXPECTED.columns[::-1])]
    pd.testing.assert_frame_equal(parse(table(shuffled.to_csv(index=False).encode())), EXPECTED)
    pd.testing.assert_frame_equal(parse(table(parquet_bytes(shuffled), "h.parquet")), EXPECTED)


def changed(old: str, new: str) -> bytes:
    assert old.encode() in CSV
    return CSV.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"", sources.EmptySource, "the file is empty"),
        (b"\xef\xbb\xbf\r\n \n", sources.EmptySource, "the file is empty"),
        (HEADER.encode(), sources.HeaderOnly, "a header and no rows"),
        (f"{HEADER}\r\n\r\n".encode(), sources.HeaderOnly, "a header and no rows"),
        (
            CSV.replace(b",", b";"),
            sources.WrongDelimiter,
            "line 1: fields are separated by ';', expected ','",
        ),
        (CSV.replace(b",", b"\t"), sources.WrongDelimiter, r"separated by '\\t'"),
        (CSV.replace(b",", b"|"), sources.WrongDelimiter, r"separated by '\|'"),
        (changed("latitude", "lat"), sources.MissingColumn, "missing column 'latitude'; unexpected 'lat'"),
        (f"{FIRST}\n{SECOND}".encode(), sources.MissingColumn, "missing column 'longitude', 'latitude'"),
        (changed("households,", "households,zip,"), sources.ExtraColumn, "unexpected column 'zip'; expected"),
        (changed("households,", "households,population,"), sources.DuplicateColumn, "column 'population'"),
        (
            changed("NEAR BAY", "NEAR BAY,9"),
            sources.RaggedRow,
            r"row 1 \(line 2\) has 11 fields, the header has 10",
        ),
        (changed(",<1H OCEAN", ""), sources.RaggedRow, r"row 2 \(line 3\) has 9 fields"),
        (changed("7099", "many"), sources.NotANumber, r"column total_rooms, row 2 \(line 3\): 'many'"),
        (changed("7099", "1_000"), sources.NotANumber, "column total_rooms, row 2"),
        (changed("7099", "inf"), sources.NotANumber, "column total_rooms, row 2"),
        (changed("7099", '"7,099"'), sources.NotANumber, "'7,099'"),
        (changed("<1H OCEAN", '"<1H'), sources.UnreadableSource, "line 3: unexpected end of data"),
        (CSV + b"\xff\xfe", sources.UnreadableSource, "line 4 is not UTF-8 text"),
    ],
)
def test_a_table_that_is_not_one(data: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=f"^/data/housing.csv: .*{reason}") as caught:
        parse(table(data))
    assert type(caught.value) is error
    assert isinstance(caught.value, sources.SourceError)


def test_the_first_ten_of_many_bad_cells_are_named_in_row_order() -> None:
    rows = "\n".join([FIRST.replace("880", "?").replace("37.88", "north")] * 8)
    with pytest.raises(sources.NotANumber) as caught:
        parse(table(f"{HEADER}\n{rows}\n".encode()))
    message = str(caught.value)
    assert re.findall(r"row (\d+) \(line (\d+)\)", message) == [
        (str(row), str(row + 1)) for row in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
    ]
    assert message.endswith("; and 6 more")


def test_the_member_of_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.tgz").write_bytes(tar(("data/housing.csv", changed("880", "?"))))
    with pytest.raises(
        sources.NotANumber, match=rf"{tmp_path}/h\.tgz \(data/housing\.csv\): .*row 1 \(line 2\)"
    ):
        parse(fetch(f"{tmp_path}/h.tgz"))


def test_values_are_not_judged_here() -> None:
    odd = changed("-122.23", "10.5").replace(b"322", b"-322").replace(b"NEAR BAY", b"MOON")
    frame = parse(table(odd + FIRST.encode() + b"\n" + FIRST.encode()))
    assert frame.loc[0, ["longitude", "population", "ocean_proximity"]].tolist() == [10.5, -322.0, "MOON"]
    assert int(frame.duplicated().sum()) == 1


def test_a_blank_category_is_null() -> None:
    assert parse(table(changed("NEAR BAY", "")))["ocean_proximity"].tolist() == [None, "<1H OCEAN"]


# Parquet


def test_parquet_columns_of_other_number_types_and_text() -> None:
    typed = pa.table(
        {
            **{name: pa.array(EXPECTED[name]) for name in EXPECTED.columns},
            "total_rooms": pa.array([880, 7099], pa.int32()),
            "population": pa.array(["322", " 2401"]),
            "households": pa.array([126, 1138]).cast(pa.decimal128(21, 2)),
            "total_bedrooms": pa.array(["129", None]).dictionary_encode(),
            "ocean_proximity": pa.array(["NEAR BAY", "<1H OCEAN"]).dictionary_encode(),
        }
    )
    pd.testing.assert_frame_equal(parse(table(parquet_bytes(typed), "h.parquet")), EXPECTED)


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"PAR1 but no more", sources.UnreadableParquet, "not a readable parquet file"),
        (CSV, sources.UnreadableParquet, "not a readable parquet file"),
        (b"", sources.EmptySource, "the file is empty"),
        (parquet_bytes(EXPECTED.head(0)), sources.HeaderOnly, "columns and no rows"),
        (
            parquet_bytes(EXPECTED.drop(columns="latitude")),
            sources.MissingColumn,
            "missing column 'latitude'",
        ),
        (parquet_bytes(EXPECTED.assign(zip=1)), sources.ExtraColumn, "unexpected column 'zip'"),
        (
            parquet_bytes(EXPECTED.assign(population=["322", "many"])),
            sources.NotANumber,
            "text where a number belongs: column population, row 2: 'many'",
        ),
        (
            parquet_bytes(EXPECTED.assign(population=[True, False])),
            sources.NotANumber,
            "column population holds bool, expected numbers",
        ),
    ],
)
def test_a_parquet_file_that_is_no_such_table(data: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=f"^gs://b/h.parquet: {reason}"):
        parse(table(data, "gs://b/h.parquet"))
