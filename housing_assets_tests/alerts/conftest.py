"""A certificate of an authority that nobody knows."""

from pathlib import Path

import pytest
import trustme


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 with its authority's, and its key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in (*certificate.cert_chain_pems, authority.cert_pem):
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    return chain, key
