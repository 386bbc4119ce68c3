import hashlib
import shutil
from pathlib import Path

import pytest
from pictures import site

from ssl_modules.datamodules import download
from ssl_modules.datamodules.download import download_and_unpack

FILES = {"inside/1.txt": "one", "inside/deep/2.txt": "two"}


@pytest.fixture
def served(tmp_path):
    """Return a folder to serve, with an archive of a few files, and the archive's checksum."""
    for name, text in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = Path(shutil.make_archive(str(tmp_path / "served" / "files"), "zip", tmp_path / "source"))
    return path.parent, hashlib.md5(path.read_bytes()).hexdigest()


def content(root):
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_files_are_merged_with_those_that_are_there(served, tmp_path):
    folder, md5 = served
    for name, text in (("inside/0.txt", "zero"), ("inside/1.txt", "old")):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    with site(folder) as address:
        download_and_unpack(f"{address}/files.zip", tmp_path / "root", md5)
    assert content(tmp_path / "root") == {**FILES, "inside/0.txt": "zero"}


def test_what_is_unpacked_half_way_is_not_there(served, tmp_path, monkeypatch):
    folder, md5 = served
    root = tmp_path / "root"
    unpack = download.extract_archive

    def half(source, target):
        unpack(source, target)
        (target / "inside" / "deep" / "2.txt").unlink()
        (target / "inside" / "left.txt").write_text("of the interrupted run")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "extract_archive", half)
    with site(folder) as address:
        with pytest.raises(KeyboardInterrupt):
            download_and_unpack(f"{address}/files.zip", root, md5)
        assert not (root / "inside").exists()
    monkeypatch.setattr(download, "extract_archive", unpack)
    download_and_unpack(f"{address}/files.zip", root, md5)  # uses the downloaded archive: the site is down
    assert content(root) == FILES


def test_a_download_that_was_cut_short_begins_again(served, tmp_path):
    folder, md5 = served
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "files.zip").write_bytes((folder / "files.zip").read_bytes()[:-10])
    with site(folder) as address:
        download_and_unpack(f"{address}/files.zip", tmp_path / "root", md5)
    assert content(tmp_path / "root") == FILES


@pytest.mark.parametrize(("name", "reason"), [("files.zip", "corrupted"), ("missing.zip", "404")])
def test_what_can_not_be_downloaded_is_named(served, tmp_path, name, reason):
    folder, _ = served
    with site(folder) as address, pytest.raises(OSError, match=f"{name} could not be downloaded to .*{reason}"):
        download_and_unpack(f"{address}/{name}", tmp_path / "root", "0" * 32)
    assert not (tmp_path / "root" / "inside").exists()
