import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_modules.evaluation import ridge_classifier


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = load_digits(return_X_y=True)
    return torch.from_numpy(images), torch.from_numpy(targets)


@pytest.mark.parametrize("count", [40, 64, 1000])  # fewer samples than the 64 features, as many, more
@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_equals_scikit_learn(count, penalty):
    features, targets = digits()  # some of the 64 pixels are constant
    reference = make_pipeline(StandardScaler(), Ridge(alpha=penalty * count))
    expected = reference.fit(features[:count], np.eye(10)[targets[:count]]).predict(features[1000:])

    weight, bias = ridge_classifier(features[:count], targets[:count], num_classes=10, penalty=penalty)
    scores = F.linear(features[1000:], weight, bias)
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=0, atol=1e-9)

    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=penalty * count))
    guesses = classifier.fit(features[:count], targets[:count]).predict(features[1000:])
    assert scores.argmax(1).tolist() == guesses.tolist()


def test_float32_features_give_the_float64_scores():
    features, targets = digits()  # whole numbers: exact in float32
    expected = F.linear(features, *ridge_classifier(features[:1000], targets[:1000]))
    weight, bias = ridge_classifier(features[:1000].float(), targets[:1000])
    assert weight.dtype == bias.dtype == torch.float32
    torch.testing.assert_close(F.linear(features.float(), weight, bias).double(), expected, rtol=0, atol=1e-5)


def test_scale_and_offset_of_features_do_not_matter():
    features, targets = digits()
    guesses = [
        F.linear(x[1000:], *ridge_classifier(x[:1000], targets[:1000])).argmax(1)
        for x in (features, features * torch.linspace(0.1, 10, 64) + 3)
    ]
    assert torch.equal(*guesses)


def test_a_feature_that_is_constant_in_training_is_ignored():
    features, targets = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2
    features[:, 1] = 0.1  # its float32 mean is not exactly 0.1
    weight, _ = ridge_classifier(features, targets)
    assert weight[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": 0.0}, "penalty: expected a positive number, got 0.0"),
        ({"num_classes": 1}, "num_classes: expected more than every target, got 1 and a target 1"),
        ({"features": torch.full((2, 3), float("nan"))}, "expected finite features, got 2 of 2 with NaN"),
        ({"features": torch.ones(3, 3)}, "expected one target for each of 3 features, got 2"),
        (
            {"features": torch.ones(0, 3), "targets": torch.ones(0, dtype=torch.long)},
            "features: expected at least 1 sample, got 0",
        ),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        ridge_classifier(**{"features": torch.ones(2, 3), "targets": torch.tensor([0, 1]), **change})
