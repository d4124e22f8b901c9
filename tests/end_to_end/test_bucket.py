"""A whole run whose store is in a bucket."""

from pathlib import Path

import boto3
import pytest

from tests.end_to_end.support import CHAINS, contents, palimpsest
from tests.storage.bucket import bucket_server


@pytest.mark.slow
@pytest.mark.minutes
def test_a_run_in_a_bucket(chains_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "s3://results/chains"
    with bucket_server(tmp_path) as (_, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="results")
        said = palimpsest("run", str(CHAINS), "--set", f"store={place}").stdout
        assert f"report: {place}/report-chains.html" in said
        assert contents(place) == contents(chains_store)
        assert "rome-b1-" in palimpsest("status", "--store", place).stdout
