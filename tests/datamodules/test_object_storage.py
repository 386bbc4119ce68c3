"""Shards are read from a server that speaks the protocol of S3.

The tests need ``pip install s3fs 'moto[server]'``. Without these packages, the tests are skipped.
"""

import fsspec
import pytest
import torch

from ssl_modules.datamodules import StreamingDataModule
from ssl_modules.utils.faults import SystemFault

pytest.importorskip("s3fs")
servers = pytest.importorskip("moto.server")


@pytest.fixture
def server(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = servers.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def options(server, shards):
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}"}
    files = fsspec.filesystem("s3", **options)
    files.makedirs("bucket", exist_ok=True)  # all servers of a process share their content
    files.put(str(shards), "bucket/digits", recursive=True)
    return options


def batches(url, **settings):
    data = StreamingDataModule(url, batch_size=64, window=2, **settings)
    data.prepare_data()
    data.setup()
    return [*data.train_dataloader(), *data.test_dataloader()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_images_are_those_of_the_local_shards(options, shards, tmp_path, num_workers):
    settings = {"storage_options": options, "cache_dir": tmp_path, "num_workers": num_workers}
    remote, local = batches("s3://bucket/digits", **settings), batches(shards, num_workers=0)
    assert len(remote) == len(local)
    for (images, targets), (local_images, local_targets) in zip(remote, local, strict=True):
        assert torch.equal(images, local_images)
        assert torch.equal(targets, local_targets)


def test_a_wrong_bucket_is_named(options, tmp_path):
    with pytest.raises(FileNotFoundError, match="url: expected tar files in s3://wrong/digits, got none"):
        batches("s3://wrong/digits", storage_options=options, cache_dir=tmp_path)


@pytest.mark.slow  # the client of S3 tries to connect several times
def test_a_server_that_stops_ends_the_epoch_with_an_error(options, server, tmp_path):
    settings = {"storage_options": options, "cache_dir": tmp_path, "cache_gb": 1e-6, "num_workers": 0}
    data = StreamingDataModule("s3://bucket/digits", batch_size=64, window=1, **settings)
    data.prepare_data()
    data.setup()
    loader = iter(data.train_dataloader())
    next(loader)
    server.stop()
    with pytest.raises(SystemFault, match=r"s3://bucket/digits/train/\d+.tar: can't be"):
        list(loader)
