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
from ssl_modules.datamodules.identity import changed, identity
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.shard_index import FACTS, PLAN, Index
from ssl_modules.datamodules.targets import target_shape
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.files import replacing


def write_shards(
    data: BaseDataModule,
    out: str | Path,
    *,
    size: int | None = None,
    quality: int = 90,
    images_per_shard: int = 2000,
) -> dict[str, Any]:
    """Write all images of a data module into tar files, which :class:`StreamingDataModule` reads.

    The shards have the format of WebDataset. For example, row 17 of a part is the image ``000000017.jpg``. Its class is
    in ``000000017.cls``. Targets that are not classes are in ``000000017.json``. Image files that can't be read are
    left out. If the function is interrupted, a second call with the same arguments writes only the shards that are
    missing.

    Args:
        data: data module with gray or colour images, and without a validation part. This function calls
            ``prepare_data`` and ``setup`` of the data module.
        out: folder to write to. You can copy it to any storage afterwards.
        size: length in pixels to which the shorter side of larger images is reduced. Images from files are then stored
            as JPEG. None = store files unchanged. Images that are not in files are stored as PNG.
        quality: quality of the JPEGs, 1 to 100.
        images_per_shard: images per tar file. Shards of 50 to 500 MB suit an object storage.

    Returns:
        The facts, which are also written to ``out/shards.json``. ``left_out`` lists the files that were left out.

    Raises:
        ValueError: in one of these cases:

            - The data are videos, have a validation part, or have neither 1 nor 3 channels.
            - ``out`` contains complete shards, or shards that were written with other arguments.
            - None of the images of a part can be read.

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
    _check_data(data)
    data.prepare_data()
    data.setup()
    parts = {"train": data.train_set, "test": data.test_set}
    if data.labelled_set is not data.train_set:
        parts["labelled"] = data.labelled_set
    writers = {
        name: _ShardWriter(data, part, Path(out, name), size=size, quality=quality, images_per_shard=images_per_shard)
        for name, part in parts.items()
        if part is not None
    }
    settings = {"size": size, "quality": quality, "images_per_shard": images_per_shard}
    _start_plan(Path(out), {**identity(data), **settings, "images": {name: w.count for name, w in writers.items()}})
    facts = _facts(data, size)
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


def _check_data(data: BaseDataModule) -> None:
    if data.in_channels not in (1, 3):
        raise ValueError(
            f"data: expected gray or colour images, got {data.in_channels} channels, which image files don't have; "
            "train on the data set itself"
        )
    if len(data.dims) != 3:
        raise ValueError(f"data: expected images, got clips of dims {list(data.dims)}; keep videos in their files")
    if data.val_size:
        raise ValueError(
            f"val_size: expected 0, got {data.val_size}; write all images, and pass val_size to StreamingDataModule"
        )


def _facts(data: BaseDataModule, size: int | None) -> dict[str, Any]:
    of_files = isinstance(data.train_set, ImageFiles)
    image_size = data.image_size
    if size is not None:  # images from files are cropped to 7/8 of their size; other images are not cropped
        image_size = min(image_size, round(size * 7 / 8) if of_files else size)
    return {
        "name": data.name,
        "num_classes": data.num_classes,
        "class_names": data.class_names,
        "target_type": data.target_type,
        "levels": dict(data.levels),
        "in_channels": data.in_channels,
        "image_size": image_size,
        "mean": data.mean,
        "std": data.std,
        "white": getattr(data.train_set, "white", None),  # unchanged files may have more than 8 bits
        "same_size": not of_files,
        "parts": {},
        "left_out": [],
    }


def _start_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan; raise an error if the folder contains shards of another plan."""
    if (out / FACTS).exists():
        raise ValueError(f"out: {out} contains complete shards already; give another folder, or remove this one")
    content, path = json.dumps(plan, indent=1, default=str), out / PLAN
    if path.exists():
        before, now = json.loads(path.read_text()), json.loads(content)
        if others := changed(before, now):
            raise ValueError(
                f"out: {out} contains shards of a run with another {', '.join(others)}; give the same arguments to "
                "continue that run, or give another folder"
            )
    with replacing("plan", path) as file:
        file.write(content.encode())


class _ShardWriter(Dataset[tuple[int, list[str]]]):
    """Data set whose item k writes shard k of a part if it is missing, and returns what the shard contains.

    An item holds the number of images in the shard, and the paths of the files that were left out.
    """

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
                tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive,
            ):
                first = number * self.images_per_shard
                for row in range(first, min(first + self.images_per_shard, self.count)):
                    try:
                        content, ending, target = self._encoded(row)
                    except _Unreadable as error:
                        left_out.append(str(error))
                        continue
                    name = f"{row:09}.{ending}"
                    offset = _add(archive, name, content)
                    _add(archive, *_label(f"{row:09}", target))
                    rows.append((number, offset, len(content), name, target.numpy()))
            with replacing("index", done) as file:
                columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0, int)] * 5
                arrays: dict[str, Any] = dict(zip(Index._fields, columns, strict=True))
                np.savez(file, left_out=np.array(left_out, str), **arrays)
        with np.load(done) as known:
            return len(known["shard"]), known["left_out"].tolist()

    def _encoded(self, row: int) -> tuple[bytes, str, Tensor]:
        """Return an image's bytes, the extension of its format, and its target."""
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
        """Return the index of all shards."""
        parts = []
        for path in self._indices():
            with np.load(path) as arrays:
                if len(arrays["shard"]):
                    parts.append([arrays[name] for name in Index._fields])
        if not parts:
            raise ValueError(f"data: none of the {self.count} images can be read; look at their files")
        return Index(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def remove_indices(self) -> None:
        """Remove the index of each shard, because the part's index contains all of them."""
        for path in self._indices():
            path.unlink()

    def _indices(self) -> Iterator[Path]:
        return (self.folder / f"{number:05}.npz" for number in range(len(self)))


class _Unreadable(Exception):
    """Raised for a file that can't be read; its text is the path."""


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a file; return the offset of its first byte."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, BytesIO(content))
    return archive.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


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
