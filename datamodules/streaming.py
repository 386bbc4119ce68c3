"""Data module for images in shards, which are in a folder or in an object storage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import Dataset

from ssl_modules.datamodules.finding import absolute
from ssl_modules.datamodules.from_files import FilesDataModule, by_channel
from ssl_modules.datamodules.shard_images import ShardImages
from ssl_modules.datamodules.shard_index import Index, facts_at, scan
from ssl_modules.datamodules.shards import Shards
from ssl_modules.datamodules.storage import cached_name, default_cache, is_remote, read_address, tars_at
from ssl_modules.utils.checks import check_choice, check_instance, check_number
from ssl_modules.utils.files import replacing


class StreamingDataModule(FilesDataModule):
    """Images in shards, which are tar files, for data sets that are larger than a disk or have very many files.

    ``url`` is one of two things:

    - The folder that ``ssl-modules shard`` (:func:`~ssl_modules.datamodules.write_shards`) wrote, or the address of a
      copy, such as ``s3://bucket/imagenet``, ``gs://...`` or ``hf://datasets/user/name/folder``. The file
      ``shards.json`` in this folder has the facts about the data set, such as its classes.
    - Tar files in the format of WebDataset: a folder, or an address such as ``s3://bucket/train-{0000..0099}.tar``. The
      data module reads all of them once to find their images, and stores the result in ``cache_dir``. Pass
      ``num_classes`` if the tar files contain classes, in files with the extension ``.cls``.

    Remote shards are copied to ``cache_dir`` before they are read. The next shards are copied in the background. If the
    shards don't fit into ``cache_gb``, each machine copies all of them in each epoch. ``setup`` checks that all shards
    exist. If the size, the time of writing or the etag of a shard has changed, a remote shard is copied again, and tar
    files without ``shards.json`` are searched for images again. HTTP servers may report only the size.

    The order of the training images depends only on (seed, epoch). A run that stopped in the middle of an epoch
    therefore continues without repeating or losing an image, also with another number of workers or processes. An epoch
    shuffles the shards, and then the images in each ``window`` of shards.

    :class:`~ssl_modules.datamodules.ImageFiles` describes the two ways to make training batches.

    Args:
        url: folder or address of the shards, or of tar files to train on.
        test: address of the tar files to test on, for shards without ``shards.json``.
        num_classes: number of classes, for shards without ``shards.json``. 0 = no targets.
        in_channels: 3 for colour, 1 for gray. None = the number in ``shards.json``, or 3 if there is no such file.
        image_size: side in pixels of validation images, test images and training views. None = the size in
            ``shards.json``, or 224 if there is no such file.
        mean: mean of each channel, for pixels in [0, 1]. None = the values in ``shards.json``, or those of ImageNet if
            there is no such file.
        std: standard deviation of each channel. None = the values in ``shards.json``, or those of ImageNet if there is
            no such file.
        window: number of shards whose images are shuffled together. None = all shards, which suits a local folder on a
            fast disk. ``cache_gb`` must be large enough for two windows.
        cache_dir: folder for copies of remote shards, which several processes may share. None =
            ``~/.cache/ssl-modules/shards``.
        cache_gb: limit of the total size of the copies, in 10^9 bytes. None = no limit. The limit doesn't include
            shards that are being copied. Each worker copies at most two shards at the same time.
        storage_options: keyword arguments of the storage, as for ``fsspec.open``, such as ``{"anon": True}``. Configs
            and checkpoints contain them, so pass keys and passwords in environment variables instead.
        settings: other keyword arguments of :class:`~ssl_modules.datamodules.BaseDataModule` and
            :class:`~ssl_modules.datamodules.ImageFiles`, such as batch_size, val_size, seed, num_workers and
            augmentation.

    Raises:
        FileNotFoundError: if there are no shards. ``setup`` raises this error if some of the shards are missing.
        ValueError: if an argument is out of range.
        SystemFault: if the storage can't be read.

    Example:
        >>> from ssl_modules.datamodules import DigitsDataModule, write_shards
        >>> _ = write_shards(DigitsDataModule(), "digits", images_per_shard=500)
        >>> data = StreamingDataModule("digits", batch_size=64, window=2, num_workers=0)
        >>> data.num_classes, data.dims
        (10, (1, 8, 8))
    """

    def __init__(
        self,
        url: str | Path,
        *,
        test: str | Path | None = None,
        num_classes: int = 0,
        in_channels: int | None = None,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        window: int | None = 16,
        cache_dir: str | Path | None = None,
        cache_gb: float | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if window is not None:
            check_number("window", window, least=1)
        if cache_gb is not None:
            check_number("cache_gb", cache_gb, above=0)
        check_number("num_classes", num_classes, least=0)
        if in_channels is not None:
            check_choice("in_channels", in_channels, (1, 3))
        check_instance(
            "storage_options",
            {} if storage_options is None else storage_options,
            Mapping,
            'give a dict, such as {"anon": True}',
        )
        self.url = _address(url)
        self.test = None if test is None else _address(test)
        self.window = window
        self.cache_dir = default_cache() if cache_dir is None else Path(absolute(cache_dir))
        self.cache_gb = cache_gb
        self.storage_options = dict(storage_options or {})
        self.facts = facts_at(self.url, self.storage_options)
        if self.facts is not None and (num_classes or test is not None):
            raise ValueError(
                f"{'num_classes' if num_classes else 'test'}: {self.url} has its own facts (shards.json); leave it out"
            )
        if self.facts is None:
            tars_at(self.url, self.storage_options)  # raises an error if a folder has no tar files
        facts = self.facts or {
            "name": self.url.rstrip("/").rpartition("/")[2],
            "num_classes": num_classes,
            "class_names": (),
            "target_type": "single" if num_classes else "none",
            "levels": {},
            "in_channels": in_channels or 3,
            "image_size": 224,
            "mean": None,
            "std": None,
            "white": None,
            "same_size": False,
        }
        self.name, self.num_classes, self.target_type = facts["name"], facts["num_classes"], facts["target_type"]
        self.class_names = tuple(facts["class_names"])
        self.levels = {level: tuple(names) for level, names in facts["levels"].items()}
        channels = in_channels or facts["in_channels"]
        self.dims = (channels, 0, 0)
        self.mean = tuple(mean) if mean is not None else by_channel(facts["mean"] or self.mean, channels)
        self.std = tuple(std) if std is not None else by_channel(facts["std"] or self.std, channels)
        self.white = facts["white"]
        same_size = image_size is None and facts["same_size"]
        super().__init__(image_size=facts["image_size"] if image_size is None else image_size, **settings)
        if same_size and self.decode_size is None:
            self.decode_size = self.image_size  # the stored images have this size

    def load(self) -> tuple[ShardImages, ShardImages | None]:
        """Return the labelled training images and, if there are any, the test images."""
        if self.facts is None:
            return self._scanned(self.url), None if self.test is None else self._scanned(self.test)
        parts = self.facts["parts"]
        train = self._part("labelled" if "labelled" in parts else "train")
        return train, self._part("test") if "test" in parts else None

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """Return the images to train on, which have their own shards if not all of them are labelled.

        Raises:
            ValueError: if a validation part is set aside from these labelled images.
        """
        if self.facts is None or "labelled" not in self.facts["parts"]:
            return labelled
        if self.val_size:
            raise ValueError(
                f"val_size: expected 0, got {self.val_size}; {self.url} trains on other images than the labelled ones, "
                "and these may contain the validation part"
            )
        return self._part("train")

    def _part(self, name: str) -> ShardImages:
        assert self.facts is not None
        address = f"{self.url}/{name}.npz"
        index = Index.load(read_address(address, self.storage_options), address)
        numbers = range(len(self.facts["parts"][name]))
        return self._images(self._shards([f"{self.url}/{name}/{number:05}.tar" for number in numbers]), index)

    def _scanned(self, url: str) -> ShardImages:
        shards = self._shards(tars_at(url, self.storage_options))
        known = self.cache_dir / f"{cached_name(shards.key)}.npz"
        known.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{known}.lock"):  # one of the processes makes the index, and the others wait for it
            if not known.exists():
                rank_zero_info(f"{url}: reading {len(shards)} shards once, to find their images")
                index = scan(shards)
                with replacing("index", known) as file:
                    file.write(index.dump())
        index = Index.load(known.read_bytes(), str(known))
        if not self.num_classes and (index.target >= 0).any():
            rank_zero_warn(
                f"num_classes: {url} has classes from 0 to {index.target.max()}, which are not used; pass num_classes= "
                "to use them"
            )
        return self._images(shards, index)

    def _shards(self, addresses: Sequence[str]) -> Shards:
        limit = None if self.cache_gb is None else round(self.cache_gb * 1e9)
        return Shards(addresses, self.cache_dir, limit, self.storage_options)

    def _images(self, shards: Shards, index: Index) -> ShardImages:
        if self.target_type == "none":
            index = index._replace(target=index.target * 0 - 1)
        return ShardImages(
            shards,
            index,
            self.window,
            image_size=self.image_size,
            decode_size=self.decode_size,
            in_channels=self.in_channels,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
            white=self.white,
        )


def _address(url: str | Path) -> str:
    url = str(url).rstrip("/")
    return url if is_remote(url) else absolute(url.removeprefix("file://"))
