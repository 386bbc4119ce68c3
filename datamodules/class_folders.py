"""Base class of the data modules for folders of your own images or videos."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_modules.datamodules.finding import Kind, absolute, check_test_classes, existing, find_classes, find_part
from ssl_modules.datamodules.from_files import FilesDataModule, by_channel
from ssl_modules.utils.checks import check_choice


class ClassFolders(FilesDataModule):
    """Base class of data modules whose files are in a folder, with or without one folder per class.

    Attributes:
        kind: whether the files are images or videos.
        root: folder of the training files, an absolute path.
        test: folder of the test files, or None.
        class_folders: whether the folders in ``root`` are classes.
    """

    kind: Kind
    root: str
    test: str | None
    class_folders: bool

    def read_facts(
        self,
        root: str | Path,
        test: str | Path | None,
        class_folders: bool,
        *,
        in_channels: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        """Set the facts about the data set. A constructor calls this method before ``super().__init__``.

        Args:
            root: folder of the training files.
            test: folder of the test files. None = no test part.
            class_folders: whether the folders in ``root`` are classes.
            in_channels: 3 for colour, 1 for gray.
            mean: mean of each channel. None = the default of the class.
            std: standard deviation of each channel. None = the default of the class.

        Raises:
            FileNotFoundError: if ``root`` is missing.
            ValueError: if ``class_folders`` is True, but ``root`` has no class folders, or has images or videos outside
                of the class folders.
        """
        check_choice("in_channels", in_channels, (1, 3))
        folder = Path(root).expanduser()
        self.name = folder.resolve().name
        found = find_classes(existing(folder, "root", self.kind), self.kind) if class_folders else ()
        self.class_names = tuple(found)
        self.num_classes = len(self.class_names)
        self.target_type = "single" if class_folders else "none"
        self.dims = (in_channels, *self.dims[1:])
        self.mean = by_channel(self.mean, in_channels) if mean is None else tuple(mean)
        self.std = by_channel(self.std, in_channels) if std is None else tuple(std)
        self.root = absolute(folder)
        self.test = None if test is None else absolute(test)
        self.class_folders = class_folders

    def load(self) -> tuple[Any, Any]:
        """Return the training part, and the test part or None.

        Raises:
            FileNotFoundError: if a folder is missing.
            ValueError: if there are no files, or if the test folder has none of the training folder's classes.
        """
        train = existing(self.root, "root", self.kind)
        test = None if self.test is None else existing(self.test, "test", self.kind)
        if self.class_folders and test is not None:
            check_test_classes(self.root, test, self.class_names, self.kind)
        return self._part(train, is_train=True), None if test is None else self._part(test, is_train=False)

    def _part(self, folder: Path, *, is_train: bool) -> Any:
        names = self.class_names if self.class_folders else None
        return self.data_set(folder, *find_part(folder, names, is_train=is_train, kind=self.kind))

    @abstractmethod
    def data_set(self, folder: Path, paths: Sequence[str], targets: Any) -> Any:
        """Return the data set of the files of a part.

        Args:
            folder: folder of the part.
            paths: paths of the files, relative to ``folder``.
            targets: class indices [N]; None without classes.
        """
