import warnings

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_modules.evaluation import logistic_classifier, multilabel_logistic_classifier

_images, _targets = load_digits(return_X_y=True)
FEATURES, TARGETS = torch.from_numpy(_images), torch.from_numpy(_targets)  # some of the 64 pixels are constant


def scikit_learns(penalty, count):
    return LogisticRegression(C=1 / (penalty * count), solver="newton-cg", tol=1e-10)


@pytest.mark.parametrize("count", [40, 1000])  # fewer samples than features, and more
@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_equals_scikit_learn(count, penalty):
    reference = make_pipeline(StandardScaler(), scikit_learns(penalty, count))
    expected = reference.fit(FEATURES[:count], TARGETS[:count]).predict_proba(FEATURES[1000:])
    weight, bias = logistic_classifier(FEATURES[:count], TARGETS[:count], num_classes=10, penalty=penalty)
    probabilities = F.linear(FEATURES[1000:], weight, bias).softmax(dim=1)
    # With a gradient of up to 1e-9, weights may differ by 1e-9 / penalty; there are 64 features of size 1.
    torch.testing.assert_close(probabilities, torch.from_numpy(expected), rtol=0, atol=64e-9 / penalty)


def test_several_labels_equal_scikit_learn():
    labels = torch.stack([TARGETS % 2 == 0, TARGETS > 6, TARGETS == 3], dim=1).long()
    reference = make_pipeline(StandardScaler(), OneVsRestClassifier(scikit_learns(1e-2, 500)))
    expected = reference.fit(FEATURES[:500], labels[:500]).decision_function(FEATURES[1000:])
    weight, bias = multilabel_logistic_classifier(FEATURES[:500], labels[:500], penalty=1e-2)
    scores = F.linear(FEATURES[1000:], weight, bias)
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=0, atol=64e-9 / 1e-2)


def clusters(classes, dim, count, spread):
    source = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(classes, dim, generator=source, dtype=torch.float64)
    targets = torch.arange(count) % classes
    return centres[targets] + spread * torch.randn(count, dim, generator=source, dtype=torch.float64), targets


def like_a_networks(count):
    source = torch.Generator().manual_seed(0)  # 512 features of 64 pixels: strongly correlated
    return (FEATURES[:count] @ torch.randn(64, 512, generator=source, dtype=torch.float64)).relu(), TARGETS[:count]


@pytest.mark.parametrize("penalty", [1e-3, 1e-6])
@pytest.mark.parametrize(
    ("features", "targets"),
    [
        pytest.param(*like_a_networks(150), id="512 correlated features"),
        pytest.param(*like_a_networks(10), id="one image of each class"),
        pytest.param(*clusters(5, dim=8, count=200, spread=0.1), id="separable classes"),
        pytest.param(*clusters(100, dim=32, count=1000, spread=3.0), id="100 classes"),
        pytest.param(torch.cat([FEATURES, 1e3 * FEATURES[:, 20:30]], dim=1)[:300], TARGETS[:300], id="equal features"),
        pytest.param(*clusters(2, dim=4, count=1, spread=1.0), id="one image"),
    ],
)
def test_the_gradient_at_the_result_is_zero(features, targets, penalty):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight, bias = logistic_classifier(features, targets, num_classes=101, penalty=penalty)
    std = features.std(dim=0, correction=0)
    scaled = (weight * std.where(std > 0, 1)).requires_grad_()  # the weights of the standardised features
    offset = (bias + weight @ features.mean(dim=0)).requires_grad_()
    x = (features - features.mean(dim=0)) / std.where(std > 0, 1)
    loss = F.cross_entropy(F.linear(x, scaled, offset), targets) + penalty / 2 * scaled.square().sum()
    for gradient in torch.autograd.grad(loss, [scaled, offset]):
        assert gradient.abs().max() < 2e-9  # the tolerance of the fit, 1e-9, plus rounding errors


def test_float32_features_give_the_float64_probabilities():
    expected = F.linear(FEATURES, *logistic_classifier(FEATURES[:1000], TARGETS[:1000])).softmax(dim=1)
    weight, bias = logistic_classifier(FEATURES[:1000].float(), TARGETS[:1000])
    assert weight.dtype == bias.dtype == torch.float32
    probabilities = F.linear(FEATURES.float(), weight, bias).softmax(dim=1)
    torch.testing.assert_close(probabilities.double(), expected, rtol=0, atol=1e-5)


def test_nothing_of_the_surroundings_is_needed_or_kept():
    features = FEATURES[:100].clone().requires_grad_()
    expected = logistic_classifier(features, TARGETS[:100])
    assert features.grad is None
    assert not expected[0].requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = logistic_classifier(FEATURES[:100] * 1, TARGETS[:100])
        assert all(map(torch.equal, found, expected))


def test_it_warns_where_it_has_not_converged():
    with pytest.warns(UserWarning, match="not converged in max_iter=3; raise it") as caught:
        weight, _ = logistic_classifier(FEATURES[:100], TARGETS[:100], max_iter=3)
    assert caught[0].filename == __file__
    assert weight.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": 0.0}, "penalty: expected a positive number, got 0.0"),
        ({"num_classes": 1}, "num_classes: expected more than every target, got 1 and a target 1"),
        ({"features": torch.full((2, 3), float("nan"))}, "expected finite features, got 2 of 2 with NaN"),
        (
            {"features": torch.ones(0, 3), "targets": torch.ones(0, dtype=torch.long)},
            "features: expected at least 1 sample, got 0",
        ),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        logistic_classifier(**{"features": torch.ones(2, 3), "targets": torch.tensor([0, 1]), **change})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 1]), r"expected targets \[2, classes\] of 0 and 1, got torch.int64 \[2\]"),
        (torch.tensor([[0, -1], [0, 1]]), "from -1 to 1"),
        (torch.tensor([[0, 1]]), r"\[2, classes\] of 0 and 1, got torch.int64 \[1, 2\]"),
    ],
)
def test_labels_that_are_not_0_and_1_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        multilabel_logistic_classifier(torch.ones(2, 3), targets)
