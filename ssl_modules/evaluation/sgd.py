"""Linear classification of fixed features by stochastic gradient descent (SGD), with the recipes of papers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from ssl_modules.evaluation.checks import check_count, check_labelled, class_count
from ssl_modules.utils.seeds import derive_generator
from ssl_modules.utils.threads import SMALL, one_thread


@dataclass(frozen=True)
class SGDRecipe:
    """Settings of :func:`sgd_classifier`.

    Args:
        learning_rate: initial learning rate, positive.
        batch_size: number of samples per step.
        epochs: number of passes over the samples.
        milestones: epochs after which the learning rate is multiplied by ``factor``. If empty, the learning rate
            follows half a cosine to 0, updated once per epoch.
        factor: see ``milestones``.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: weight decay of both weight and bias.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0


SGD_RECIPES = {
    "rince_cifar100": SGDRecipe(5.0, batch_size=512, epochs=100, milestones=(60, 75, 90), factor=0.2),
    "sce_cifar": SGDRecipe(30.0, batch_size=256, epochs=100, milestones=(60, 80)),
    "sce_imagenet": SGDRecipe(0.4, batch_size=1024, epochs=90),
}


def sgd_classifier(
    features: Tensor, targets: Tensor, num_classes: int | None = None, *, recipe: SGDRecipe, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Train a linear classifier on fixed features by SGD on the cross-entropy, with the settings of a recipe.

    ``SGD_RECIPES`` holds the recipes of published evaluation code. That code augments the images in each epoch, but
    here the features are fixed. To come closer to it, give the features of a few augmented copies of each image. The
    features are neither centred nor scaled, because the learning rates of the recipes assume this. Weights and bias
    start at zero, and the last, incomplete batch of an epoch is used. The classifier is that of the last epoch;
    published numbers may be the best of all epochs on the test part.

    Args:
        features: ``[N, D]``, N >= 1.
        targets: ``[N]``, class indices.
        num_classes: number of rows of the result; None for the largest target plus one.
        recipe: settings of SGD.
        seed: seed of the order of the samples.

    Returns:
        ``weight [num_classes, D]`` and ``bias [num_classes]``. The scores of queries are
        ``torch.nn.functional.linear(queries, weight, bias)``, ``[Q, num_classes]``.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets do not fit, or the training diverges.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> weight, bias = sgd_classifier(features, torch.tensor([0, 0, 1, 1]), recipe=SGDRecipe(1.0, 2, epochs=50))
        >>> F.linear(torch.tensor([[0.2], [2.9]]), weight, bias).argmax(dim=1)
        tensor([0, 1])
    """
    check_labelled("features", features, targets)
    check_count("features", features)
    num_classes = class_count(targets, num_classes)
    with one_thread(recipe.batch_size * features.shape[1] * num_classes < SMALL):
        weight, bias = _steps(features, targets.long(), num_classes, recipe, seed)
    if not weight.isfinite().all():
        raise ValueError(
            f"recipe: expected finite weights, got NaN or infinity at a learning_rate of {recipe.learning_rate}; lower "
            "it, or scale the features down"
        )
    return weight, bias


@torch.inference_mode(False)
@torch.enable_grad()
def _steps(features: Tensor, targets: Tensor, num_classes: int, recipe: SGDRecipe, seed: int) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(features.dtype, torch.float32)
    weight = torch.zeros(num_classes, features.shape[1], dtype=dtype, device=features.device, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=dtype, device=features.device, requires_grad=True)
    optimizer = torch.optim.SGD(
        [weight, bias], lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    schedule: LRScheduler = (
        MultiStepLR(optimizer, list(recipe.milestones), recipe.factor)
        if recipe.milestones
        else CosineAnnealingLR(optimizer, recipe.epochs)
    )
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(features), generator=derive_generator(seed, "sgd", epoch)).to(features.device)
        for rows in order.split(recipe.batch_size):
            loss = F.cross_entropy(F.linear(features[rows].to(dtype), weight, bias), targets[rows])
            weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
            optimizer.step()
        schedule.step()
    return weight.detach(), bias.detach()
