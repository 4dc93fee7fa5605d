"""The service against its own OpenAPI document: generated requests, good and bad, with every check."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from housing_assets_tests.serving.bundles import write_files
from housing_assets_tests.serving.test_process import log_lines, service, wait_for
from housing_assets_tests.serving.test_records import decision, neighbourly_bundle
from housing_serving.records import PROMOTION_FILE

# 20,000 take some minutes of two processors.
CASES = int(os.environ.get("HOUSING_FUZZ_CASES", "2000"))
# Generating a case takes 12 ms, ten times as long as answering it, and one run uses one core.
RUNS = 4
RUN_SECONDS = 1400


def start_run(folder: Path, url: str, seed: int, *options: str) -> "subprocess.Popen[str]":
    """A run of all phases with all checks, the same one for the same seed; its report is in the folder."""
    folder.mkdir()
    # Its warnings are about parts of the document that cannot be tested.
    (folder / "schemathesis.toml").write_text("warnings.fail-on = true\n")
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{url}/openapi.json"]
    command += ["--checks", "all", "--continue-on-failure", "--request-timeout", "20"]
    command += ["--seed", str(seed), "--generation-database", "none"]
    command += ["--report", "json", "--report-json-path", "report.json", *options]
    # Its own coverage is nobody's question, and tracing it would double its time.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, cwd=folder, env=untraced, stdout=output, stderr=output, text=True)


def report_of(folder: Path, run: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        run.wait(RUN_SECONDS)
    finally:
        run.kill()
    output = (folder / "output.txt").read_text()
    assert run.returncode == 0, output[-8000:]
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert (report["complete"], report["failures"], report["errors"]) == (True, [], []), output[-8000:]
    assert report["operations"]["tested"] == report["operations"]["total"] > 0
    return report


def stop(process: "subprocess.Popen[str]") -> None:
    """End it in order: lines of its log are written together, the last ones at the end."""
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.timeout(RUN_SECONDS + 100)
def test_every_answer_to_generated_requests_is_as_documented(tmp_path: Path) -> None:
    # All that can be told of a model is on record, so that every route has something to answer.
    version = tmp_path / "home" / "storage" / "models" / "housing_price_model" / "3"
    write_files(version, neighbourly_bundle())
    (version / PROMOTION_FILE).write_text(decision().to_json())
    with service(tmp_path, HOUSING_HOME=str(tmp_path / "home")) as (url, process):
        wait_for(f"{url}/health/ready", 200, process)
        runs = {
            tmp_path / f"run-{seed}": start_run(
                tmp_path / f"run-{seed}", url, seed, "--max-examples", str(CASES // RUNS)
            )
            for seed in range(RUNS)
        }
        reports = [report_of(folder, run) for folder, run in runs.items()]
        assert process.poll() is None
        stop(process)

    cases = sum(report["test_cases"]["generated"] for report in reports)
    answered = Counter(line["status"] for line in log_lines(tmp_path) if line["message"] == "request")
    assert cases >= CASES
    # The service's own count: the cases did arrive, and both good and bad ones.
    assert answered.total() >= CASES
    assert answered[200] > CASES / 10
    assert answered[422] > CASES / 10
    assert max(answered) < 500


def test_every_answer_without_a_model_is_as_documented(tmp_path: Path) -> None:
    with service(tmp_path, HOUSING_HOME=str(tmp_path / "home")) as (url, process):
        wait_for(f"{url}/health", 200, process)
        # Both take a 503 for a failure, which it is not here; status, headers and shape are checked.
        excluded = "not_a_server_error,positive_data_acceptance"
        run = start_run(tmp_path / "run", url, 1, "--max-examples", "50", "--exclude-checks", excluded)
        report_of(tmp_path / "run", run)
        stop(process)

    statuses = {line["status"] for line in log_lines(tmp_path) if line["message"] == "request"}
    assert 503 in statuses
    assert not statuses & {422, 500}
