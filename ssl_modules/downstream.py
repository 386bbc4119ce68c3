"""Downstream evaluation: evaluates a trained representation with the protocols of the literature."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.checkpoint import load_module
from ssl_modules.encoders import Encoder, Representation, load_encoder
from ssl_modules.evaluation import StoredFeatures, balanced_rows
from ssl_modules.evaluation.features import Features, Prepare, device_of
from ssl_modules.evaluation.protocols import (
    Labelled,
    few_label_protocol,
    knn_protocol,
    linear_protocol,
    ood_protocol,
    retrieval_protocol,
)
from ssl_modules.evaluation.shared_features import SharedFeatures
from ssl_modules.finetuning import FineTuning
from ssl_modules.utils.checks import check_instance, got

if TYPE_CHECKING:
    from ssl_modules.datamodules import BaseDataModule

Protocol = Literal["knn", "linear", "finetune", "few-label", "retrieval", "ood"]
Results = dict[str, dict[str, float]]

Split = Literal["test", "val"]


def evaluate(
    module: nn.Module,
    data: "BaseDataModule",
    protocols: Mapping[Protocol, Mapping[str, Any]] | Sequence[Protocol],
    *,
    outliers: "BaseDataModule | None" = None,
    split: Split = "test",
    features: Features = None,
    prepare: Prepare = None,
) -> Results:
    """Evaluate a representation on a data set with one or more protocols.

    The features of each image are computed once and shared by all protocols except "finetune". Classifiers and
    nearest neighbours use the labelled training part without augmentation. Hierarchical targets are evaluated at each
    level.

    Args:
        module: ``module(images)`` returns the representation ``[N, D]`` of raw pixels, such as a method or a
            :class:`~ssl_modules.encoders.Representation`; or any other network, with ``features`` and ``prepare``. It
            is not changed.
        data: labelled data module; this function prepares it and sets it up.
        protocols: names of protocols: any of "knn", "linear", "few-label", "retrieval", "ood" and "finetune". Or a
            mapping from names to settings, which are the keywords of the functions in
            ``ssl_modules.evaluation.protocols`` and of :func:`~ssl_modules.downstream.finetune`.
        outliers: data module whose test part holds the outliers for "ood".
        split: part to evaluate on: "test", or "val", the validation part, for example to choose settings.
        features: how to get features, as in :class:`~ssl_modules.callbacks.OnlineProbe`; not used by "finetune".
        prepare: how to read a batch, as in :class:`~ssl_modules.callbacks.OnlineProbe`; not used by "finetune".

    Returns:
        Metrics by protocol, each in [0, 1]. For hierarchical targets, the name of the level precedes that of the
        metric. A metric is NaN if no sample can be evaluated.

    Raises:
        ValueError: if a protocol is unknown, "ood" has no ``outliers``, the split does not exist, the data have no
            labels, or a protocol does not take its settings or the targets.

    Example:
        >>> from ssl_modules.datamodules import DigitsDataModule
        >>> evaluate(nn.Flatten(), DigitsDataModule(), {"knn": {"k": 5}})["knn"]["top1"] > 0.9
        True

        If a network takes float pixels, ``prepare`` converts them:

        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32))
        >>> floats = lambda batch: (batch[0] / 255, batch[1])
        >>> evaluate(network, DigitsDataModule(), ["knn"], prepare=floats)["knn"]["top1"] > 0.8
        True
    """
    from ssl_modules.datamodules import BaseDataModule  # noqa: PLC0415  # importing the data modules is slow

    check_instance("module", module, nn.Module, "load a checkpoint with load_module(path)")
    check_instance(
        "data", data, BaseDataModule, "make one from data sets: ImageDataModule(train, test, num_classes=...)"
    )
    settings = _settings(protocols)
    _check_protocols(settings, outliers)
    _check_data(data, outliers, split)
    for part in (data,) if outliers is None else (data, outliers):
        part.prepare_data()
        part.setup()

    learned_from = getattr(getattr(module, "encoder", None), "image_size", data.image_size)
    if learned_from != data.image_size:
        rank_zero_warn(f"the encoder is of images of {learned_from} pixels, but the data's have {data.image_size}")
    parts: list[tuple[Tensor, Tensor]] = []
    others: tuple[Tensor, ...] = ()
    if set(settings) != {"finetune"}:  # finetune trains a copy of the encoder, so it needs no features
        rank_zero_info(f"{data.name}: encoding the labelled training images and the images to evaluate on")
        shared = SharedFeatures()
        evaluated = data.test_dataloader() if split == "test" else data.val_dataloader()
        read = partial(shared.read, module, features=features, prepare=prepare)
        parts = [read(loader) for loader in (data.probe_train_dataloader(), evaluated)]
        others = () if outliers is None else (read(outliers.test_dataloader())[0],)
    tune = partial(finetune, module, data, split=split)
    return _measure(settings, parts, others, data.level_names, tune)


def evaluate_features(
    train: StoredFeatures,
    test: StoredFeatures,
    protocols: Mapping[Protocol, Mapping[str, Any]] | Sequence[Protocol],
    *,
    outliers: StoredFeatures | None = None,
    device: str = "cpu",
) -> Results:
    """Evaluate features that ``ssl-modules predict`` wrote.

    Up to rounding, the results equal those of :func:`evaluate` with the same encoder and the same images.

    Args:
        train: features of the training part, written with ``--features.part train``.
        test: features of the part to evaluate on.
        protocols: as in :func:`evaluate`, but without "finetune", which needs images.
        outliers: features of the outliers for "ood". Their targets are not used.
        device: device to compute on.

    Returns:
        Metrics by protocol, each in [0, 1], as for :func:`evaluate`.

    Raises:
        ValueError: if a protocol is unknown or is "finetune", if only one of "ood" and ``outliers`` is given, if the
            features have different widths or come from different weights, if ``train`` and ``test`` are features of the
            same part, or if a protocol does not take its settings or the targets.

    Example:
        >>> import numpy as np
        >>> rows = np.arange(4)
        >>> for part in ("train", "test"):  # write files like those of predict
        ...     np.savez(f"{part}.npz", features=np.eye(4, dtype=np.float32), index=rows, targets=rows % 2)
        >>> evaluate_features(StoredFeatures("train.npz"), StoredFeatures("test.npz"), {"knn": {"k": 1}})
        {'knn': {'top1': 1.0}}
    """
    settings = _settings(protocols)
    _check_protocols(settings, outliers)
    if "finetune" in settings:
        raise ValueError(
            "finetune: this protocol trains on images, not on features; evaluate a module with a data module"
        )
    _check_stored({"train": train, "test": test, **({} if outliers is None else {"outliers": outliers})})
    parts = [(part.features.to(device), part.targets.to(device)) for part in (train, test)]
    others = () if outliers is None else (outliers.features.to(device),)
    return _measure(settings, parts, others, test.levels)


@isolate_rng()
def finetune(
    module: nn.Module,
    data: "BaseDataModule",
    *,
    level: int = 0,
    split: Split = "test",
    share: float | None = None,
    epochs: int = 30,
    learning_rate: float = 0.05,
    backbone_lr_scale: float = 1.0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Train a copy of the encoder and a classifier with labels, and evaluate it; see :class:`~ssl_modules.FineTuning`.

    It uses SGD with Nesterov momentum 0.9, no weight decay, and a learning rate that follows half a cosine to 0. This
    is the recipe of SimCLR for few labels (Chen et al. 2020, arXiv 2002.05709, appendix B.5). SimCLR trains for 60
    epochs with 1 % of the labels, and for 30 epochs with 10 %.

    Args:
        module: any module with an ``encoder``, which is copied.
        data: data module that is set up; its ``batch_size`` is used.
        level: level of hierarchical targets, 0 for the finest.
        split: part to evaluate on, "test" or "val".
        share: share of the samples of each class to train on, in (0, 1]; None for all. Unreadable files count as
            samples.
        epochs: number of passes over these samples.
        learning_rate: initial learning rate for 256 images per batch; it is scaled linearly to the batch size.
        backbone_lr_scale: the encoder's learning rate divided by that of the classifier.
        augmentation: makes one view of an image; None = random resized crop and flip.
        seed: seed of the subset, the classifier's initial weights, the order of samples and the augmentation.

    Returns:
        Metrics by name, in [0, 1]: ``top1`` and ``top5``, or ``map`` for multi-label data.

    Raises:
        ValueError: if the module has no encoder, or the data have no targets.
    """
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"needs an Encoder at module.encoder, but {type(module).__name__} has {got(encoder)}; give "
            "Representation(Encoder(network, image_size=..., in_channels=...)) of ssl_modules.encoders"
        )
    if data.target_type == "none":
        raise ValueError(f"{data.name} has no targets to learn from; give labelled data")
    rows = None
    if share is not None:
        targets = data.labelled_targets()
        rows = balanced_rows(targets[:, level] if data.levels else targets, share=share, seed=seed)
    seed_everything(seed, verbose=False)
    tuned = FineTuning(
        encoder,
        len(data.levels[data.level_names[level]]) if data.target_type == "hierarchical" else data.num_classes,
        target_type=data.target_type,
        level=level,
        augmentation=augmentation,
        optimizer=partial(torch.optim.SGD, lr=learning_rate * data.batch_size / 256, momentum=0.9, nesterov=True),
        backbone_lr_scale=backbone_lr_scale,
        seed=seed,
    )
    trainer = Trainer(
        accelerator="gpu" if device_of(module).type == "cuda" else "cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(tuned, data.supervised_dataloader(rows))
    evaluated = data.test_dataloader() if split == "test" else data.val_dataloader()
    (metrics,) = trainer.test(tuned, evaluated, verbose=False)
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name != "test/loss"}


PROTOCOLS: dict[Protocol, Callable[..., dict[str, float]]] = {
    "knn": knn_protocol,
    "linear": linear_protocol,
    "few-label": few_label_protocol,
    "retrieval": retrieval_protocol,
    "ood": ood_protocol,
    "finetune": finetune,
}


def representation(
    data: "BaseDataModule",
    *,
    ckpt: str | None = None,
    encoder: str | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    small_stem: bool | None = None,
) -> nn.Module:
    """Load or build the module to evaluate: from a checkpoint, from a file of encoder weights, or by an encoder's name.

    Args:
        data: data module; an encoder given by name is built for its image size and channels. Unless ``mean`` and
            ``std`` are given, it normalises by those of the data.
        ckpt: path of a method's checkpoint.
        encoder: a timm name.
        pretrained: whether to load timm's pretrained weights. Their own mean and std are then the defaults.
        weights: path of encoder weights written by ``export``. For a plain file of weights, give also ``encoder``,
            ``mean`` and ``std``.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.
        small_stem: whether a ResNet given by name has the stem for small images. None means no for a plain file of
            weights; otherwise see :class:`~ssl_modules.encoders.Encoder`.

    Raises:
        ValueError: if not exactly one of a checkpoint and an encoder is given, or the arguments don't fit together.
    """
    if (ckpt is None) == (encoder is None and weights is None):
        raise ValueError("give either --ckpt; or --encoder, a timm name; or --weights, with --encoder if it is plain")
    others = {"pretrained": pretrained or None, "mean": mean, "std": std, "small_stem": small_stem}
    if ckpt is not None:
        if given := [name for name, value in others.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: a checkpoint has its own; leave out --{' --'.join(given)}")
        return load_module(ckpt)
    if weights is not None and pretrained:
        raise ValueError("pretrained: timm's weights and those of --weights exclude each other; give one of the two")
    told: dict[str, Any] = {"mean": mean, "std": std, "small_stem": small_stem}
    of_images: dict[str, Any] = {"image_size": data.image_size, "in_channels": data.in_channels}
    if encoder is None:
        return Representation(load_encoder(str(weights), **told))
    if weights is not None:
        return Representation(load_encoder(weights, encoder, **of_images, **told))
    if not pretrained:
        told |= {"mean": mean or data.mean, "std": std or data.std}
    return Representation(Encoder(encoder, pretrained=pretrained, **of_images, **told))


def _measure(
    settings: Mapping[Protocol, Mapping[str, Any]],
    parts: Sequence[tuple[Tensor, Tensor]],
    outliers: tuple[Tensor, ...],
    levels: Sequence[str],
    tune: Callable[..., dict[str, float]] | None = None,
) -> Results:
    """Run the protocols on the features and targets of the training part and the evaluated part, at each level.

    ``tune`` runs "finetune", which needs no features.
    """
    results: Results = {}
    for name, keywords in sorted(settings.items(), key=lambda item: item[0] == "finetune"):  # the slowest protocol last
        results[name] = {}
        for column, level in enumerate(levels or [None]):
            try:
                if tune and name == "finetune":
                    metrics = tune(level=column, **keywords)
                else:
                    train, test = (Labelled(x, y if level is None else y[:, column]) for x, y in parts)
                    metrics = PROTOCOLS[name](train, test, *(outliers if name == "ood" else ()), **keywords)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name if level is None else f'{name}, {level}'}: {error}") from error
            results[name] |= {
                metric if level is None else f"{level}/{metric}": value for metric, value in metrics.items()
            }
    return results


def _settings(protocols: Mapping[Protocol, Mapping[str, Any]] | Sequence[Protocol]) -> dict[Protocol, Any]:
    """Return the settings of each protocol."""
    if isinstance(protocols, str):
        raise ValueError(f"protocols: expected a list such as [{protocols!r}], got {protocols!r}")
    return dict(protocols) if isinstance(protocols, Mapping) else {name: {} for name in protocols}


def _check_protocols(settings: Mapping[Any, Any], outliers: Any) -> None:
    if not settings:
        raise ValueError('protocols: expected a list such as ["knn", "linear"], got none')
    if unknown := set(settings) - set(PROTOCOLS):
        raise ValueError(f"protocols: there is no {', '.join(sorted(unknown))}; there are {', '.join(PROTOCOLS)}")
    if ("ood" in settings) != (outliers is not None):
        raise ValueError('outliers: goes with the protocol "ood": give both, or neither')


def _check_data(data: "BaseDataModule", outliers: "BaseDataModule | None", split: str) -> None:
    if outliers is not None and outliers.dims != data.dims:
        raise ValueError(
            f"outliers: expected images of the data's dims {list(data.dims)}, got {list(outliers.dims)}; give both the "
            "same image_size and channels, because other dims alone would separate them"
        )
    if split not in get_args(Split):
        raise ValueError(f"split: expected one of {', '.join(get_args(Split))}, got {split!r}")
    if split == "val" and not data.val_size:
        raise ValueError("split: there is no validation part; give the data val_size=, or take the test part")


def _check_stored(parts: Mapping[str, StoredFeatures]) -> None:
    """Raise an error if features don't fit together; warn if images have no features."""
    train, test = parts["train"], parts["test"]
    for name, part in parts.items():
        if part.features.shape[1] != train.features.shape[1]:
            raise ValueError(
                f"{name}: expected features of width {train.features.shape[1]}, as in train, got "
                f"{part.features.shape[1]}; give features of the same encoder"
            )
        if part.record and train.record and part.record["weights"] != train.record["weights"]:
            raise ValueError(
                f"{name}: these features come from other weights than those of train; run predict for both parts with "
                "the same checkpoint"
            )
        if part.record and len(part) < part.record["images"]:
            rank_zero_warn(
                f"{name}: {len(part)} of {part.record['images']} images have features; run predict again for the "
                "other images"
            )
    if test.record and test.record == train.record:
        raise ValueError(
            "test: expected features of other images than train, got features of the same part; write the features "
            "of the training images with --features.part train"
        )
