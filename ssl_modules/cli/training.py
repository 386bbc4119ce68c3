"""Lightning's CLI with our defaults: ``ssl-modules fit``, ``validate``, ``test`` and ``predict``."""

import inspect
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from jsonargparse.typing import import_object
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from ssl_modules.callbacks import CollapseMonitor, OnlineKNNProbe, OnlineLinearProbe, OnlineProbe
from ssl_modules.cli.failures import Conflict, cannot_hold, cause_in_configuration, check_optimizer
from ssl_modules.cli.parser import Parser, as_namespace, swapped_classes_inherit_nothing
from ssl_modules.cli.prediction import FeatureWriter
from ssl_modules.cli.progress import ProgressBar
from ssl_modules.cli.saved_config import SavedConfig
from ssl_modules.datamodules import BaseDataModule
from ssl_modules.last_checkpoint import LastCheckpoint
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.checkpoint_io import SafeCheckpointIO, read_checkpoint
from ssl_modules.utils.configurable import Configurable, find_class, not_stored
from ssl_modules.utils.lightning import ended_processes
from ssl_modules.utils.plain_checkpoint import STATE

_LINKED = ("image_size", "in_channels", "mean", "std")  # arguments of the model that come from the data


class ContrastiveCLI(LightningCLI):
    """Trains any method on any data module from a YAML file.

    Image size, channels, mean and std of the model come from the data. By default, a run has both online probes,
    monitors of collapse and learning rate, the last checkpoint and the one with the best k-NN accuracy. Each is
    configured under its own key: ``knn_probe``, ``linear_probe``, ``collapse_monitor``, ``lr_monitor``,
    ``best_checkpoint``, ``last_checkpoint``; ``null`` switches it off. The probes use the finest level of hierarchical
    targets unless ``level`` is given. If the data have no targets, a single class, or several labels per image, the run
    has no probes, and the log says why. If the run lacks the probe whose metric the best checkpoint monitors, it has no
    best checkpoint either. The run's progress bar fits into 80 columns; ``trainer`` can replace it or switch it off.
    """

    def __init__(
        self,
        model_class: type[LightningModule] | Callable[..., LightningModule] | None = None,
        datamodule_class: type[LightningDataModule] | Callable[..., LightningDataModule] | None = None,
        **settings: Any,
    ) -> None:
        defaults: dict[str, Any] = {
            "parser_class": Parser,
            "save_config_callback": SavedConfig,
            "auto_configure_optimizers": False,
            "seed_everything_default": 0,
            "subclass_mode_model": model_class is None,
            "subclass_mode_data": datamodule_class is None,
        }
        args = sys.argv[1:] if settings.get("args") is None else settings["args"]
        self._adding: str | None = None  # the subcommand whose parser is being built
        self._first = args[0] if isinstance(args, list) and args else None
        with swapped_classes_inherit_nothing():
            super().__init__(
                model_class or ContrastiveModule, datamodule_class or BaseDataModule, **(defaults | settings)
            )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Where the first word is a subcommand, only its parser gets arguments: adding them is slower than parsing."""
        if self._first in self.subcommands() and subcommand != self._first:
            self._subcommand_method_arguments[subcommand] = []
            return self.init_parser(**kwargs)
        self._adding = subcommand
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        assert isinstance(parser, Parser)
        model = "model.init_args" if self.subclass_mode_model else "model"
        for name in _LINKED:
            if self.subclass_mode_model or f"model.{name}" in parser.get_defaults():
                link = partial(self._of_the_data, name)
                parser.link_arguments("data", f"{model}.{name}", link, apply_on="instantiate")
        parser.add_lightning_class_args(OnlineKNNProbe, "knn_probe")
        parser.add_lightning_class_args(OnlineLinearProbe, "linear_probe")
        parser.add_lightning_class_args(CollapseMonitor, "collapse_monitor")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        if self._adding == "predict":
            parser.add_lightning_class_args(FeatureWriter, "features")
        for key in parser.callback_keys:
            parser.let_be_null(key)
        parser.set_defaults(
            {
                "best_checkpoint.monitor": "probe/knn_top1",
                "best_checkpoint.mode": "max",
                "best_checkpoint.filename": "best",
            }
        )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Return keyword arguments for the Trainer. By default, a checkpoint is read with ``weights_only=True``."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if kwargs.get("weights_only") is None:  # Lightning would run code from a file that it downloads
            kwargs["weights_only"] = True
        if subcommand == "predict":
            kwargs["return_predictions"] = False  # the features of all images may not fit in memory
        return kwargs

    def _parse_ckpt_path(self) -> None:
        """Do nothing: only options define the module. Lightning would import and build what the checkpoint names."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and store what options and configs give separately, without the defaults of classes."""
        super().parse_arguments(parser, args)
        parse = parser.parse_object if isinstance(args, Mapping | Namespace) else parser.parse_args
        self.given = parse(args, defaults=False)

    def _of_the_data(self, name: str, data: Any) -> Any:
        """The data's value of a linked argument of the model; raises if a different one was given."""
        value = getattr(data, name)
        given = _arguments(self._get(self.given, "model"))
        if name in given and _plain(given[name]) != _plain(value):
            fix = (
                f"give data.init_args.{name}, or leave it out"
                if name in getattr(data, "arguments", ())
                else "leave it out"
            )
            raise Conflict(f"model > {name}: got {_plain(given[name])}, but the data have {_plain(value)}; {fix}")
        return value

    def instantiate_classes(self) -> None:
        """Build data, model and Trainer; constructors get only what was given, and use their own defaults otherwise."""
        config = self.config
        self.config = config.clone()
        section = self.config[self.subcommand] if self.subcommand else self.config
        for key in ("model", "data"):
            if section.get(key) is None:
                continue
            given = self._get(self.given, key) or Namespace()
            stored = self._stored(section) if key == "model" else {}
            stored = {name: value for name, value in stored.items() if name not in _arguments(given)}
            _arguments(self._get(config, key)).update(stored)  # the run saves this config
            # A link applies only to arguments that are in the config.
            linked = {name: value for name, value in _arguments(section[key]).items() if name in _LINKED}
            arguments = Namespace(stored | (linked if key == "model" else {}) | _arguments(given))
            by_class = "class_path" in section[key]
            section[key] = Namespace({**vars(given), "init_args": arguments}) if by_class else arguments
        with self._errors_in_one_line(building=True):
            self.config_init = self.parser.instantiate_classes(self.config)
        self.config = config
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        for key, built in (("model", self.model), ("data", self.datamodule)):
            self._forget_unused(key, built)
        self._add_configure_optimizers_method_to_model(self.subcommand)
        with self._errors_in_one_line(building=True):
            self.trainer = self.instantiate_trainer()

    def _stored(self, section: Namespace) -> dict[str, Any]:
        """The model's arguments in the checkpoint that the run continues or evaluates; options override them."""
        path = section.get("ckpt_path")
        if not path or not Path(path).is_file():  # "best" and "last" name no file
            return {}
        with self._errors_in_one_line():
            checkpoint = read_checkpoint(path, "meta", weights_only=section.get("weights_only") is not False)
        name = checkpoint.get(STATE, {}).get("class")
        found, asked = find_class(name) if name else None, section.model.get("class_path")
        if found is None or (asked is not None and import_object(asked) is not found):
            return {}  # the module compares the classes when it reads the checkpoint
        accepted = inspect.signature(found).parameters
        stored = checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
        return {name: as_namespace(value) for name, value in stored.items() if name in accepted}

    def _forget_unused(self, key: str, built: Any) -> None:
        """Remove defaults that the class didn't use from the config, because the run saves its config."""
        if isinstance(built, Configurable):
            arguments = _arguments(self._get(self.config, key))
            for name in arguments.keys() - built.arguments.keys() - _arguments(self._get(self.given, key)).keys():
                del arguments[name]

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with self._errors_in_one_line():
                super()._run_subcommand(subcommand)
        except Exception as error:  # for example, if the connection to a process that died is closed
            for ended in ended_processes(self.trainer):
                error.add_note(ended)
            raise

    @contextmanager
    def _errors_in_one_line(self, building: bool = False) -> Iterator[None]:
        """Report errors that a configured value causes in one line; other errors keep their traceback."""
        try:
            yield
        except SIGTERMException as stop:
            stop.code = 128 + signal.SIGTERM  # the exit code of a process that SIGTERM ends
            raise
        except (ValueError, TypeError, OSError, FloatingPointError, MisconfigurationException) as error:
            message = cause_in_configuration(error, building)
            if message is None:
                raise
            self.parser.error(message)

    def before_fit(self) -> None:
        """Report problems before the first step: a wrong optimiser, and arguments that a checkpoint can't hold."""
        if isinstance(self.model, ContrastiveModule):
            check_optimizer(self.model)
            for name, kind in not_stored(self.model.arguments).items():
                rank_zero_warn(cannot_hold(name, kind))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        """Build the Trainer without callbacks that are null or can't work with its flags or the data."""
        given = [callback for callback in callbacks if callback is not None]
        reason = _why_no_probes(self.datamodule)
        if reason is not None and any(isinstance(callback, OnlineProbe) for callback in given):
            rank_zero_info(f"no probes: {reason}")
            given = [callback for callback in given if not isinstance(callback, OnlineProbe)]
        own = _listed(config["callbacks"] or [])
        probes = [c for c in (*given, *own) if isinstance(c, OnlineProbe)]
        for probe in given:
            if isinstance(probe, OnlineProbe) and self.datamodule.target_type == "hierarchical" and probe.level is None:
                probe.level = 0

        def is_useless(callback: Callback) -> bool:
            if isinstance(callback, LearningRateMonitor):
                return config["logger"] is False
            if isinstance(callback, ModelCheckpoint):
                return config["enable_checkpointing"] is False or _lacks_its_probe(callback, probes)
            return False

        wanted = [callback for callback in given if not is_useless(callback)]
        if config["enable_progress_bar"] is not False and not any(
            isinstance(callback, AnyProgressBar) for callback in own
        ):
            wanted.append(ProgressBar())
        if config["logger"] is False:  # the run has no folder for its config
            self.save_config_callback = None
        plugins = _listed(config.get("plugins") or [])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, SafeCheckpointIO()]
        return super()._instantiate_trainer(config, wanted)

    def before_validate(self) -> None:
        """Exit with an error if there is no validation part; Lightning would exit silently, without one."""
        if not self.datamodule.val_size:
            self.parser.error(
                "validate: the data have no validation part; give data val_size=, a number of training images, or run "
                "test"
            )

    def before_predict(self) -> None:
        """Have the data return the row of each image, because unreadable files may be missing."""
        self.datamodule.return_index = True

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A Trainer; by default it logs to a CSV file, and to TensorBoard if that is installed."""
        trainer = self._get(self.config_init, "trainer")
        if trainer.logger is None:
            kwargs["logger"] = _default_loggers(trainer.default_root_dir or ".")
        return super().instantiate_trainer(**kwargs)


def _why_no_probes(data: BaseDataModule) -> str | None:
    """The reason why the default probes can't use these data; None if they can."""
    if data.target_type == "none":
        return f"{data.name} has no targets"
    if data.target_type == "multilabel":
        return f"an image of {data.name} has several labels"
    if data.num_classes < 2:
        return f"{data.name} has one class, {', '.join(data.class_names)}"
    return None


def _lacks_its_probe(checkpoint: ModelCheckpoint, probes: list[OnlineProbe]) -> bool:
    """Whether a checkpoint monitors the metric of a probe that the run does not have."""
    monitor = str(checkpoint.monitor)
    if not monitor.startswith("probe/"):
        return False
    kinds = {"knn": OnlineKNNProbe, "linear": OnlineLinearProbe}
    kind = kinds.get(monitor.removeprefix("probe/").partition("_")[0], OnlineProbe)
    return not any(isinstance(probe, kind) and probe.name == "probe" for probe in probes)


def _arguments(config: Any) -> dict[str, Any]:
    """The arguments of a class in a config, with or without its class path."""
    if config is None:
        return {}
    return vars(config.get("init_args", Namespace()) if "class_path" in config else config)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _default_loggers(folder: str) -> list[Logger]:
    csv = CSVLogger(folder, flush_logs_every_n_steps=1)  # a killed run loses no row
    if find_spec("tensorboard") is None:
        return [csv]
    return [csv, TensorBoardLogger(folder, version=f"version_{csv.version}")]
