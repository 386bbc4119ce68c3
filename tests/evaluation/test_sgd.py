from math import cos, pi

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_modules.evaluation import SGD_RECIPES, SGDRecipe, sgd_classifier
from ssl_modules.utils.seeds import derive_generator


def problem():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(50) % 4
    centres = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    return centres[targets] + torch.randn(50, 6, generator=generator, dtype=torch.float64), targets


def slow(x, y, rates, recipe, seed):
    """Train with the softmax gradient, momentum and weight decay written out."""
    x = np.hstack([x, np.ones((len(x), 1))])  # the bias is a feature
    weight = velocity = np.zeros((4, x.shape[1]))
    for epoch, rate in enumerate(rates):
        order = torch.randperm(len(x), generator=derive_generator(seed, "sgd", epoch)).numpy()
        for start in range(0, len(x), recipe.batch_size):
            rows = order[start : start + recipe.batch_size]
            scores = x[rows] @ weight.T
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            gradient = (shares - np.eye(4)[y[rows]]).T @ x[rows] / len(rows) + recipe.weight_decay * weight
            velocity = recipe.momentum * velocity + gradient
            weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize(
    ("recipe", "rates"),
    [
        (
            SGDRecipe(0.3, batch_size=16, epochs=5, milestones=(2, 4), factor=0.2, momentum=0.8, weight_decay=0.01),
            [0.3, 0.3, 0.06, 0.06, 0.012],
        ),
        (SGDRecipe(0.1, batch_size=64, epochs=4), [0.05 * (1 + cos(pi * epoch / 4)) for epoch in range(4)]),
    ],
)
def test_makes_the_steps_of_its_recipe(recipe, rates):
    features, targets = problem()
    weight, bias = sgd_classifier(features, targets, recipe=recipe, seed=3)
    expected = slow(features.numpy(), targets.numpy(), rates, recipe, 3)
    torch.testing.assert_close(torch.cat([weight, bias[:, None]], dim=1), torch.from_numpy(expected))


@pytest.mark.parametrize("name", SGD_RECIPES)
def test_the_papers_recipes_learn(name):
    features, targets = problem()
    features = F.normalize(features, dim=1).float()
    weight, bias = sgd_classifier(features, targets, recipe=SGD_RECIPES[name])
    before = features.new_zeros(50, 4)
    assert F.cross_entropy(F.linear(features, weight, bias), targets) < F.cross_entropy(before, targets) - 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features": torch.ones(2, 3) * 1e30},
            "recipe: expected finite weights, .* at a learning_rate of 1.0; lower it",
        ),
        (
            {"features": torch.ones(0, 3), "targets": torch.ones(0, dtype=torch.long)},
            "features: expected at least 1 sample, got 0",
        ),
        ({"num_classes": 1}, "num_classes: expected more than every target"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = {"features": torch.ones(2, 3), "targets": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        sgd_classifier(**{**arguments, "recipe": SGDRecipe(1.0, batch_size=1, epochs=3), **change})
