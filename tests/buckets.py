"""An S3 service on loopback: `bucket` is the URL of a bucket, reached as users reach theirs."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of the service."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket, and an environment that reaches it, for what a test starts, too."""
    import boto3
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": object_store,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"sweeps-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=name)
    # Clients remember the environment that they were made in.
    S3FileSystem.clear_instance_cache()
    yield f"s3://{name}/studies"
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[str]:
    """The URL of a bucket whose service takes connections from now on and never says anything."""
    from s3fs import S3FileSystem

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        S3FileSystem.clear_instance_cache()  # they know the address from before
        yield bucket
    S3FileSystem.clear_instance_cache()
