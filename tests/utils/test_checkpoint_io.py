"""Checkpoint files are written completely or not at all, and damaged files raise an error."""

import errno
import os
import subprocess
import zipfile
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from modules import build, loader
from needs import needs_root

from ssl_modules import SafeCheckpointIO, SimCLR, load_module
from ssl_modules.utils.checkpoint_io import read_checkpoint

OLD, NEW = ({"state_dict": {"w": torch.full((1000,), value)}} for value in (1.0, 2.0))


def saved(path):
    """Save a small SimCLR's checkpoint by the Trainer."""
    trainer = pl.Trainer(barebones=True, accelerator="cpu", max_steps=1, plugins=[SafeCheckpointIO()])
    trainer.fit(build("test_resnet"), loader())
    trainer.save_checkpoint(path)
    return path


def test_a_file_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        SafeCheckpointIO().save_checkpoint(OLD, tmp_path / "new folder" / "last.ckpt")
    finally:
        os.umask(before)
    assert (tmp_path / "new folder" / "last.ckpt").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "new folder") == ["last.ckpt"]


def fail(monkeypatch, owner, name, error):
    def failing(*args, **kwargs):
        raise error

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("patched", "error", "reason"),
    [
        ((torch, "save"), OSError(errno.ENOSPC, "No space left on device"), "MiB free there: No space left on device"),
        ((torch, "save"), RuntimeError("unexpected pos 768 vs 662"), "MiB free there: unexpected pos"),
        ((os, "fsync"), OSError(errno.EIO, "Input/output error"), "Input/output error"),
        ((Path, "replace"), PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        ((Path, "mkdir"), PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_the_first_save_that_fails_is_an_error_and_the_file_stays(tmp_path, monkeypatch, patched, error, reason):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(OLD, path)
    fail(monkeypatch, *patched, error)
    with pytest.raises(OSError, match=rf"checkpoint: .*last.ckpt can't be written, .*{reason}"):
        SafeCheckpointIO().save_checkpoint(NEW, path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["last.ckpt"]
    torch.testing.assert_close(read_checkpoint(path), OLD, rtol=0, atol=0)


def test_a_kill_during_a_save_leaves_the_file_and_what_it_left_is_removed(tmp_path):
    path = tmp_path / "last[1].ckpt"
    SafeCheckpointIO().save_checkpoint(OLD, path)
    (tmp_path / ".last[1].ckpt.4711.part").write_bytes(b"half")
    (tmp_path / ".best.ckpt.4711.part").write_bytes(b"of another file")
    torch.testing.assert_close(read_checkpoint(path), OLD, rtol=0, atol=0)
    SafeCheckpointIO().save_checkpoint(NEW, path)
    assert sorted(os.listdir(tmp_path)) == [".best.ckpt.4711.part", "last[1].ckpt"]
    torch.testing.assert_close(read_checkpoint(path), NEW, rtol=0, atol=0)


def test_a_fit_ends_at_the_first_save_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Denied")))
    callback = pl.callbacks.ModelCheckpoint(tmp_path)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[callback], plugins=[SafeCheckpointIO()]
    )
    with pytest.raises(OSError, match=r"checkpoint: .* can't be written"):
        trainer.fit(build(), loader())
    assert trainer.current_epoch == 0


def test_object_storage_gets_and_gives_the_whole_file():
    path = "memory://folder/last.ckpt"
    SafeCheckpointIO().save_checkpoint(OLD, path)
    torch.testing.assert_close(SafeCheckpointIO().load_checkpoint(path), OLD, rtol=0, atol=0)


def test_storage_options_are_refused(tmp_path):
    with pytest.raises(TypeError, match="storage_options: expected None"):
        SafeCheckpointIO().save_checkpoint(OLD, tmp_path / "last.ckpt", storage_options={})


def flip_a_bit(path):
    """Flip one bit of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 4
    path.write_bytes(content)


def zero_a_block(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    path.write_bytes(content)


DAMAGES = {
    "bit": (flip_a_bit, "is damaged: .* has another checksum; take another checkpoint"),
    "block": (zero_a_block, "is damaged"),
    "end": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is cut off or damaged"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is cut off or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is no checkpoint"),
    "text": (lambda path: path.write_text("epoch,loss\n0,1.5\n"), "is no checkpoint"),
    "other pickle": (lambda path: torch.save([1, 2], path), "is no checkpoint"),
}
READERS = {
    "load_module": load_module,
    "load_from_checkpoint": SimCLR.load_from_checkpoint,
    "SafeCheckpointIO": SafeCheckpointIO().load_checkpoint,
    "fit": lambda path: pl.Trainer(barebones=True, accelerator="cpu", max_steps=2, plugins=[SafeCheckpointIO()]).fit(
        build("test_resnet"), loader(), ckpt_path=path
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("whole") / "last.ckpt").read_bytes()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_not_read(tmp_path, checkpoint, damage, reader):
    path = tmp_path / "run.ckpt"
    path.write_bytes(checkpoint)
    READERS[reader](path)  # not yet damaged
    change, message = DAMAGES[damage]
    change(path)
    with pytest.raises(ValueError, match=rf"path: .*run.ckpt {message}"):
        READERS[reader](path)


def test_every_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "w.ckpt"
    weights = torch.arange(50.0)
    torch.save({"state_dict": {"w": weights}}, path)
    content = path.read_bytes()
    start = content.index(weights.numpy().tobytes())
    for place in range(start, start + 200):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(ValueError, match="another checksum"):
            read_checkpoint(path)


def test_a_file_without_checksums_gives_a_warning(tmp_path):
    torch.save(OLD, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match=r"old.ckpt has no checksums"):
        torch.testing.assert_close(read_checkpoint(tmp_path / "old.ckpt"), OLD, rtol=0, atol=0)


def test_code_in_a_file_is_refused_with_what_it_would_need(tmp_path):
    torch.save({"net": torch.nn.Linear(1, 1)}, tmp_path / "net.ckpt")
    with pytest.raises(ValueError, match=r"net.ckpt holds other objects than tensors and plain data; .*weights_only"):
        read_checkpoint(tmp_path / "net.ckpt")
    assert read_checkpoint(tmp_path / "net.ckpt", weights_only=False)["net"].in_features == 1
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")


# A test above raises the same error without a disk.
@needs_root
def test_a_full_disk_leaves_the_file(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine can't mount a small disk")
    try:
        path = tmp_path / "last.ckpt"
        SafeCheckpointIO().save_checkpoint(OLD, path)
        with pytest.raises(OSError, match=r"checkpoint: .*last.ckpt can't be written, with \d MiB free there"):
            SafeCheckpointIO().save_checkpoint({"w": torch.zeros(2**19)}, path)
        assert os.listdir(tmp_path) == ["last.ckpt"]
        torch.testing.assert_close(read_checkpoint(path), OLD, rtol=0, atol=0)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
