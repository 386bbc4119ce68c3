"""Shards are read from a server that answers as the Hub of Hugging Face does."""

import json
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch

from ssl_modules.datamodules import StreamingDataModule
from ssl_modules.utils.faults import SystemFault


class Hub(BaseHTTPRequestHandler):
    """A Hub with the data set user/name, whose main branch is a local folder."""

    def __init__(self, *args, folder):
        self.folder = Path(folder)
        super().__init__(*args)

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        if path == "/api/datasets/user/name":
            self.answer(json.dumps({"id": "user/name", "sha": "0" * 40}).encode())
        elif found := re.fullmatch("/api/datasets/user/name/tree/main/?(.*)", path):
            self.list_folder(self.folder / found[1])
        elif found := re.fullmatch("/datasets/user/name/resolve/main/(.*)", path):
            self.send_file(self.folder / found[1])
        else:
            self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def list_folder(self, folder):
        if not folder.is_dir():
            return self.answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})
        entries = [
            {
                "type": "directory" if path.is_dir() else "file",
                "path": path.relative_to(self.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in sorted(folder.iterdir())
        ]
        return self.answer(json.dumps(entries).encode())

    def send_file(self, path):
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        self.answer(path.read_bytes()[first : last + 1], 206)

    def answer(self, content, status=200, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def options(shards):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder=shards.parent)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"endpoint": f"http://127.0.0.1:{server.server_port}", "token": False}
        server.shutdown()
        thread.join()


def batches(url, **settings):
    data = StreamingDataModule(url, batch_size=64, window=2, **settings)
    data.prepare_data()
    data.setup()
    return [*data.train_dataloader(), *data.test_dataloader()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_images_are_those_of_the_local_shards(options, shards, tmp_path, num_workers):
    settings = {"storage_options": options, "cache_dir": tmp_path, "num_workers": num_workers}
    remote, local = batches("hf://datasets/user/name/digits", **settings), batches(shards, num_workers=0)
    assert len(remote) == len(local)
    for (images, targets), (local_images, local_targets) in zip(remote, local, strict=True):
        assert torch.equal(images, local_images)
        assert torch.equal(targets, local_targets)


def test_a_wrong_folder_is_named(options, tmp_path):
    with pytest.raises(FileNotFoundError, match="url: expected tar files in hf://datasets/user/name/wrong, got none"):
        batches("hf://datasets/user/name/wrong", storage_options=options, cache_dir=tmp_path)


def test_a_repository_that_is_missing_or_private_is_named(options, tmp_path):
    with pytest.raises(SystemFault, match=r"hf://datasets/user/wrong/digits: can't be listed .*credentials"):
        batches("hf://datasets/user/wrong/digits", storage_options=options, cache_dir=tmp_path)
