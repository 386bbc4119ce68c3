"""Write the images of a data module into shards."""

import json
import math
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.batches import BatchedImages, keep_batch
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.shard_index import FACTS, Index
from ssl_modules.datamodules.targets import target_shape
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import class_path, storable
from ssl_modules.utils.files import replacing

PLAN = "plan.json"


def write_shards(
    data: BaseDataModule,
    out: str | Path,
    *,
    size: int | None = None,
    quality: int = 90,
    images_per_shard: int = 2000,
) -> dict[str, Any]:
    """Write all images of a data module into tar files, which :class:`StreamingDataModule` reads.

    The shards have WebDataset's form: ``000000017.jpg`` and ``000000017.cls`` for row 17 of a part. Image files that
    can't be read are left out. If the function is interrupted, a second call with the same arguments continues after
    the last complete shards.

    Args:
        data: data module with gray or colour images, and without a validation part; it is prepared and set up.
        out: folder to write to. Copy it to any storage afterwards.
        size: side in pixels to which the shorter side of larger images is reduced; images from files then become
            JPEGs. None = keep files as they are, and images from memory as PNG.
        quality: quality of the JPEGs, 1 to 100.
        images_per_shard: images per tar file. Shards of 50 to 500 MB are good for an object storage.

    Returns:
        The facts that are written to ``out/shards.json``, with ``left_out``: the names of the files left out.

    Raises:
        ValueError: if the data are videos, have a validation part or other channels, or ``out`` holds shards that other
            arguments made.

    Example:
        >>> from ssl_modules.datamodules import DigitsDataModule, StreamingDataModule
        >>> facts = write_shards(DigitsDataModule(), "digits", images_per_shard=500)
        >>> facts["parts"]
        {'train': [500, 500, 437], 'test': [360]}
        >>> data = StreamingDataModule("digits", batch_size=64, num_workers=0)
        >>> data.setup()
        >>> next(iter(data.train_dataloader()))[0].shape
        torch.Size([64, 1, 8, 8])
    """
    if size is not None:
        check_number("size", size, least=1)
    check_number("quality", quality, least=1, most=100)
    check_number("images_per_shard", images_per_shard, least=1)
    if data.in_channels not in (1, 3):
        raise ValueError(
            f"data: expected gray or colour images, got {data.in_channels} channels; keep them in a data set"
        )
    if len(data.dims) != 3:
        raise ValueError(f"data: expected images, got clips of dims {list(data.dims)}; keep videos in their files")
    if data.val_size:
        raise ValueError(
            f"val_size: expected 0, got {data.val_size}; write all images, and give StreamingDataModule the val_size"
        )
    data.prepare_data()
    data.setup()
    parts = {"train": data.train_set, "labelled": data.labelled_set, "test": data.test_set}
    if data.labelled_set is data.train_set:
        del parts["labelled"]
    writers = {
        name: _ShardWriter(data, part, Path(out, name), size=size, quality=quality, images_per_shard=images_per_shard)
        for name, part in parts.items()
        if part is not None
    }
    plan = {
        "data": {"class_path": class_path(type(data)), "init_args": storable(data.arguments)},
        "size": size,
        "quality": quality,
        "images_per_shard": images_per_shard,
        "images": {name: writer.count for name, writer in writers.items()},
    }
    _check_plan(Path(out), json.loads(json.dumps(plan, default=str)))
    facts: dict[str, Any] = {
        "name": data.name,
        "num_classes": data.num_classes,
        "class_names": data.class_names,
        "target_type": data.target_type,
        "levels": dict(data.levels),
        "in_channels": data.in_channels,
        "image_size": data.image_size if size is None else min(data.image_size, round(size * 7 / 8)),
        "mean": data.mean,
        "std": data.std,
        "same_size": not isinstance(data.train_set, ImageFiles),
        "parts": {},
        "left_out": [],
    }
    with Progress(console=Console(stderr=True)) as progress:
        for name, writer in writers.items():
            task = progress.add_task(name, total=writer.count)
            workers = 0 if isinstance(writer.part, TensorImages) else data.num_workers
            loader = DataLoader(writer, batch_size=None, num_workers=workers, collate_fn=keep_batch)
            for images, left_out in loader:
                facts["left_out"] += left_out
                progress.advance(task, images + len(left_out))
            index = writer.merged_index()
            facts["parts"][name] = np.bincount(index.shard, minlength=len(writer)).tolist()
            with replacing("index", Path(out, f"{name}.npz")) as file:
                file.write(index.dump())
    with replacing("facts", Path(out, FACTS)) as file:
        file.write(json.dumps(facts, indent=1).encode())
    for writer in writers.values():
        writer.remove_indices()
    Path(out, PLAN).unlink()
    return facts


def _check_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan; raise if the folder holds shards of another plan."""
    if (out / FACTS).exists():
        raise ValueError(f"out: {out} holds complete shards already; give another folder, or remove it")
    path = out / PLAN
    if path.exists():
        before = json.loads(path.read_text())
        if before != plan:
            changed = [name for name in plan if plan[name] != before.get(name)]
            raise ValueError(
                f"out: {out} holds shards that were begun with another {', '.join(changed)}; give the same arguments "
                "to continue, or another folder"
            )
    with replacing("plan", path) as file:
        file.write(json.dumps(plan, indent=1).encode())


class _ShardWriter(Dataset[tuple[int, list[str]]]):
    """Item k writes shard k of a part, unless it is there, and tells what it holds and what was left out."""

    def __init__(
        self,
        data: BaseDataModule,
        part: Dataset,
        folder: Path,
        *,
        size: int | None,
        quality: int,
        images_per_shard: int,
    ) -> None:
        self.part = part
        self.folder = folder
        self.size = size
        self.quality = quality
        self.images_per_shard = images_per_shard
        self.count = len(part)  # type: ignore[arg-type]
        shape = target_shape(data.target_type, data.num_classes, len(data.levels))
        dims = part.dims if isinstance(part, TensorImages) else data.dims
        self.items = BatchedImages(part, dims, shape, white=data.white_level)

    def __len__(self) -> int:
        return math.ceil(self.count / self.images_per_shard)

    def __getitem__(self, number: int) -> tuple[int, list[str]]:
        tar, done = (self.folder / f"{number:05}.{ending}" for ending in ("tar", "npz"))
        if not done.exists():
            rows, left_out = [], []
            with (
                replacing("shard", tar) as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tape,
            ):
                first = number * self.images_per_shard
                for row in range(first, min(first + self.images_per_shard, self.count)):
                    try:
                        content, ending, target = self._encoded(row)
                    except _Unreadable as error:
                        left_out.append(str(error))
                        continue
                    name = f"{row:09}.{ending}"
                    offset = _add(tape, name, content)
                    _add(tape, *_label(f"{row:09}", target))
                    rows.append((number, offset, len(content), name, target.numpy()))
            with replacing("index", done) as file:
                columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0, int)] * 5
                arrays: dict[str, Any] = dict(zip(Index._fields, columns, strict=True))
                np.savez(file, left_out=np.array(left_out, str), **arrays)
        with np.load(done) as known:
            return len(known["shard"]), known["left_out"].tolist()

    def _encoded(self, row: int) -> tuple[bytes, str, Tensor]:
        """An image's bytes, the ending of its format, and its target."""
        files = self.part
        if not isinstance(files, ImageFiles):
            image, target = self.items[row]
            return _png(self._reduced(image)), "png", target
        path = files.path(row)
        pixels = files.unreadable_files.read(row, path, lambda: files.pixels(row, self.size))
        if pixels is None:
            raise _Unreadable(str(path))
        target = files.targets[row].long()
        if self.size is None:
            return files.content(row), Path(path).suffix[1:].lower(), target
        return _jpeg(self._reduced(pixels), self.quality), "jpg", target

    def _reduced(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.size is None or min(height, width) <= self.size:
            return image
        scale = self.size / min(height, width)
        sides = round(height * scale), round(width * scale)
        return interpolate(image[None], sides, mode="bilinear", antialias=True)[0]

    def merged_index(self) -> Index:
        """The index of all shards."""
        parts = []
        for path in self._indices():
            with np.load(path) as arrays:
                if len(arrays["shard"]):
                    parts.append([arrays[name] for name in Index._fields])
        if not parts:
            raise ValueError(f"data: none of the {self.count} images can be read; look at their files")
        return Index(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def remove_indices(self) -> None:
        """Remove the index of each shard; the part's index holds them all."""
        for path in self._indices():
            path.unlink()

    def _indices(self) -> Iterator[Path]:
        return (self.folder / f"{number:05}.npz" for number in range(len(self)))


class _Unreadable(Exception):
    """Raised for a file that can't be read; its text is the path."""


def _add(tape: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a file; return the place of its first byte."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tape.addfile(info, BytesIO(content))
    return tape.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _label(stem: str, target: Tensor) -> tuple[str, bytes]:
    if target.ndim == 0:
        return f"{stem}.cls", str(target.item()).encode()
    return f"{stem}.json", json.dumps({"label": target.tolist()}).encode()


def _png(image: Tensor) -> bytes:
    return _saved(image, "PNG")


def _jpeg(image: Tensor, quality: int) -> bytes:
    return _saved(image, "JPEG", quality=quality)


def _saved(image: Tensor, kind: str, **options: Any) -> bytes:
    array = image.permute(1, 2, 0).numpy()
    content = BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(content, kind, **options)
    return content.getvalue()
