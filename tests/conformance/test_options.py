"""Every combination of encoder, stem, image size and augmentation that can be built can also train."""

import inspect

import pytest
import torch
from conformance.cases import CASES, ENCODER

from ssl_modules.batch import Batch

METHODS = [*{case.method: case for case in reversed(CASES)}.values()]
[SIMCLR] = [case for case in METHODS if str(case) == "SimCLR"]
REFUSED_BY = ("small_stem", "image_size", "encoder", "distances", "batch_norm_splits")
NETWORKS = [ENCODER, "amdim", "test_vit", "resnet10t"]


def trains(module):
    """Run a forward pass and the pieces of a training step."""
    channels, size = module.encoder.in_channels, module.encoder.image_size
    pixels = torch.randint(256, (max(4, module.loss.min_images), channels, size, size), dtype=torch.uint8)
    with torch.no_grad():
        module.eval()
        assert module(pixels).isfinite().all()
        module.train()
    batch = Batch(pixels, None, torch.zeros(len(pixels), module.extraction.levels - 1, dtype=torch.int64), None)
    generator = torch.Generator().manual_seed(0)
    loss = module.objective(module.contrasts(batch, module.embed(module.views(batch, generator)), generator))
    assert loss.isfinite()
    loss.backward()


def trains_or_is_refused(case, **given):
    try:
        module = case.build(**given)
    except ValueError as refused:
        argument = str(refused).partition(":")[0]
    else:
        argument = None
        trains(module)
    assert argument is None or argument in REFUSED_BY


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("small_stem", [None, True])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("case", METHODS, ids=str)
def test_what_builds_trains(case, network, small_stem, size):
    named = inspect.signature(case.method).parameters["augmentation"].default
    trains_or_is_refused(case, augmentation=named, encoder=network, small_stem=small_stem, image_size=size)


@pytest.mark.parametrize("options", [{"batch_norm_splits": 2}, {"channels_last": True}, {"in_channels": 5}], ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_options_of_the_encoder_that_build_train(network, options):
    trains_or_is_refused(SIMCLR, augmentation="simclr", encoder=network, image_size=16, **options)


@pytest.mark.parametrize("policy", ["sce-multicrop", "s2r2-multicrop", "groco-multicrop"])
@pytest.mark.parametrize("network", NETWORKS)
def test_small_crops_are_tried_when_a_module_is_built(network, policy):
    trains_or_is_refused(SIMCLR, augmentation=policy, encoder=network, image_size=32)


@pytest.mark.parametrize("network", ["amdim", "test_vit"])
def test_a_network_of_one_size_refuses_small_crops(network):
    message = rf"encoder: {network} can't take images .* 14 pixels \(a view of the augmentation\).*32 pixels alone"
    with pytest.raises(ValueError, match=message):
        SIMCLR.build(augmentation="groco-multicrop", encoder=network, image_size=32)
    trains(SIMCLR.build(augmentation="groco", encoder=network, image_size=32))


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_the_network_of_cpc_has_no_stem_to_replace(case):
    named = inspect.signature(case.method).parameters["augmentation"].default
    with pytest.raises(ValueError, match="small_stem: cpc has no ResNet stem to replace; pass small_stem=None"):
        case.build(augmentation=named, encoder="cpc", small_stem=True, image_size=16)
