import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import Dataset

from ssl_modules.datamodules import (
    BaseDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    COCODataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    ImageNetDataModule,
    STL10DataModule,
    TensorImages,
    TinyImageNetDataModule,
)
from ssl_modules.datamodules.loader import available_workers

SIZE = 20


def part(size=SIZE, targets=None, channels=1, side=2):
    """Return images whose pixels all equal their row."""
    images = torch.arange(size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, side, side).contiguous()
    return TensorImages(images, torch.arange(size) % 4 if targets is None else targets)


def make(train=None, test=None, setup=True, **kwargs):
    kwargs = {"num_classes": 4, "batch_size": 8, **kwargs}
    data = ImageDataModule(part() if train is None else train, part(9) if test is None else test, **kwargs)
    if setup:
        data.setup()
    return data


def rows(loader):
    return [images[:, 0, 0, 0].tolist() for images, *_ in loader]


def flat(loader):
    return [row for batch in rows(loader) for row in batch]


class Pictures(Dataset):
    """The same images as PIL images, as torchvision's data sets give them."""

    def __init__(self, size=SIZE):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return Image.new("L", (2, 2), index), index % 4


def test_known_before_setup():
    data = make(setup=False, class_names=tuple("abcd"))
    assert (data.name, data.num_classes, data.dims, data.in_channels, data.image_size) == ("images", 4, (1, 2, 2), 1, 2)
    assert data.mean == pytest.approx((9.5 / 255,))
    assert data.std == pytest.approx((torch.arange(20.0).std(correction=0).item() / 255,))
    assert (data.class_names, data.target_type, data.level_names, data.batch_size) == (
        ("a", "b", "c", "d"),
        "single",
        (),
        8,
    )
    assert make(setup=False).class_names == ("0", "1", "2", "3")


def test_parts_and_their_order():
    data = make()
    assert isinstance(data.train_set, TensorImages)
    assert data.val_set is None
    assert data.val_dataloader() == []
    assert [len(batch) for batch in rows(data.train_dataloader())] == [8, 8]  # drops the last 4
    order = flat(data.train_dataloader())
    assert len(set(order)) == 16
    assert order != sorted(order)
    test = [[0, 1, 2, 3, 4, 5, 6, 7], [8]]
    assert rows(data.test_dataloader()) == rows(data.probe_test_dataloader()) == rows(data.predict_dataloader()) == test
    assert flat(data.probe_train_dataloader()) == list(range(20))


def test_supervised_loader_goes_through_all_labelled_images():
    data = make(val_size=2)
    loader = data.supervised_dataloader()
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        assert [len(batch) for batch in rows(loader)] == [8, 8, 2]  # keeps the last batch
        orders.append(flat(loader))
    labelled = flat(data.probe_train_dataloader())
    assert sorted(orders[0]) == sorted(orders[1]) == labelled
    assert orders[0] != orders[1]
    assert flat(data.supervised_dataloader()) == orders[0]
    assert flat(make(val_size=2, seed=1).supervised_dataloader()) != orders[0]


@pytest.mark.parametrize("train", [part(), Pictures()], ids=["memory", "pictures"])
def test_supervised_loader_of_few_rows(train):
    data = make(train, val_size=2, mean=(0.0,), std=(1.0,))
    labelled = flat(data.probe_train_dataloader())
    chosen = torch.tensor([11, 3, 5])
    for images, targets in data.supervised_dataloader(chosen):
        assert sorted(images[:, 0, 0, 0].tolist()) == sorted(labelled[row] for row in chosen.tolist())
        assert torch.equal(targets, images[:, 0, 0, 0].long() % 4)
    assert data.labelled_set is data.train_set
    assert data.labelled_targets().tolist() == [value % 4 for value in labelled]
    for read in (ImageDataModule.supervised_dataloader, ImageDataModule.labelled_targets):
        with pytest.raises(ValueError, match="target_type: images has no targets"):
            read(make(train, target_type="none", num_classes=0, mean=(0.0,), std=(1.0,)))
    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
        make(setup=False).supervised_dataloader(chosen)


def test_seed_drives_order_and_split():
    def epochs(**kwargs):
        loader = make(**kwargs).train_dataloader()
        out = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            out.append(rows(loader))
        return out

    assert epochs() == epochs()
    assert epochs()[0] != epochs()[1]
    assert epochs(seed=1) != epochs()
    validation = [rows(make(val_size=6, seed=seed).val_dataloader()) for seed in (0, 0, 1)]
    assert validation[0] == validation[1] != validation[2]


@pytest.mark.parametrize("train", [part(), Pictures()], ids=["memory", "pictures"])
def test_validation_part_is_set_aside(train):
    data = make(train, val_size=6, mean=(0.0,), std=(1.0,))
    val, fit = flat(data.val_dataloader()), flat(data.probe_train_dataloader())
    assert (len(val), len(fit)) == (6, 14)
    assert sorted(val + fit) == list(range(20))
    assert rows(data.probe_test_dataloader()) == rows(data.val_dataloader())  # not the test part
    assert flat(data.test_dataloader()) == list(range(9))
    assert all((images[:, 0, 0, 0] % 4 == targets).all() for images, targets in data.train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_any_data_set_gives_what_memory_gives(workers):
    in_memory = make(return_index=True)
    pictures = make(Pictures(), Pictures(9), mean=(0.0,), std=(1.0,), num_workers=workers, return_index=True)
    for name in ("train_dataloader", "test_dataloader", "probe_train_dataloader"):
        for ours, theirs in zip(getattr(in_memory, name)(), getattr(pictures, name)(), strict=True):
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))
            assert torch.equal(ours[2], ours[0][:, 0, 0, 0].long())


def test_global_random_state_stays():
    state = torch.get_rng_state()
    for data in (make(val_size=3), make(Pictures(), Pictures(), mean=(0.0,), std=(1.0,))):
        for loader in (data.train_dataloader(), data.test_dataloader(), data.predict_dataloader()):
            list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_hierarchical_targets():
    levels = {"animal": ("cat", "dog", "car", "bus"), "kind": ("animal", "vehicle")}
    targets = torch.stack([torch.arange(20) % 4, torch.arange(20) % 4 // 2], dim=1)
    train = part(targets=targets)
    data = make(train, train, target_type="hierarchical", levels=levels)
    assert data.level_names == ("animal", "kind")
    assert data.class_names == levels["animal"]
    assert data.levels["kind"] == ("animal", "vehicle")
    assert torch.equal(torch.cat([batch[1] for batch in data.test_dataloader()]), targets)


def test_multilabel_targets():
    targets = torch.randint(2, (20, 4), generator=torch.Generator().manual_seed(0))
    train = part(targets=targets)
    data = make(train, train, target_type="multilabel")
    assert torch.equal(torch.cat([batch[1] for batch in data.test_dataloader()]), targets)


def test_no_targets_and_no_probe():
    data = make(target_type="none", num_classes=0)
    assert all((targets == -1).all() for _, targets in data.train_dataloader())
    for loader in (data.probe_train_dataloader, data.probe_test_dataloader):
        with pytest.raises(ValueError, match="target_type: images has no targets"):
            loader()


def test_a_subclass_states_facts_and_loads():
    class Loaded(BaseDataModule):
        name, num_classes, dims, mean, std = "loaded", 4, (1, 2, 2), (0.1,), (0.2,)
        loads = 0

        def load(self):
            self.loads += 1
            return part(), part(9)

    data = Loaded(batch_size=8)
    data.setup("fit")
    data.setup("test")
    assert data.loads == 1
    assert rows(data.train_dataloader()) == rows(make().train_dataloader())
    with pytest.raises(TypeError, match="abstract"):
        BaseDataModule()


def test_workers_are_one_per_core_unless_given():
    assert CIFAR10DataModule().num_workers == available_workers()
    assert CIFAR10DataModule(num_workers=3).num_workers == 3
    assert make(setup=False).num_workers == 0


class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.validated = 0

    def training_step(self, batch, batch_idx):
        return self.weight * batch[0].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Full(Plain):
    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[0])

    def test_step(self, batch, batch_idx):
        self.log("mean", batch[0].float().mean(), batch_size=len(batch[0]))

    def predict_step(self, batch, batch_idx):
        return batch[0][:, 0, 0, 0]


def trainer(folder, **kwargs):
    return Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def test_every_loop_of_a_trainer(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module, data = Full(), make(setup=False)
        run = trainer(tmp_path, logger=False, enable_checkpointing=False)
        run.fit(module, datamodule=data)
        run.fit(Plain(), datamodule=make(setup=False))
        assert module.validated == 0  # without a validation part, the test part must not replace it
        assert run.test(module, datamodule=data, verbose=False) == [{"mean": 4.0}]
        assert torch.cat(run.predict(module, datamodule=data)).tolist() == list(range(9))
    messages = [str(warning.message) for warning in caught]
    ours = [message for message in messages if "no `validation_step`" not in message]  # Plain has none
    assert not [message for message in ours if "_dataloader" in message or "zero" in message]


def test_a_validation_part_is_validated(tmp_path):
    module = Full()
    run = trainer(tmp_path, logger=False, enable_checkpointing=False, num_sanity_val_steps=0)
    run.fit(module, datamodule=make(val_size=3, batch_size=2, setup=False))
    assert module.validated == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a number of at least 1, got 0"),
        ({"val_size": -1}, "val_size: expected a number of at least 0, got -1"),
        ({"num_workers": -1}, "num_workers: expected a number of at least 0, got -1"),
        ({"target_type": "multi"}, "target_type: expected .*'multilabel'.*got 'multi'"),
        ({"target_type": "hierarchical"}, "levels: expected names of levels for target_type='hierarchical'"),
        ({"levels": {"fine": "abcd"}}, "levels: expected names of levels for target_type='hierarchical'"),
        ({"class_names": ("a", "b")}, r"class_names: expected 4 \(num_classes\), got 2"),
        ({"mean": (0.1, 0.2)}, r"mean: expected one value for each of 1 channels, got \(0.1, 0.2\)"),
        (
            {"train": Pictures()},
            "mean, std: expected numbers for images that are not in memory, got None, None; pass both",
        ),
        ({"train": part(side=3)}, r"test: expected images of dims \[1, 3, 3\], got \[1, 2, 2\]"),
        ({"num_classes": 3}, r"train: expected targets from 0 to below \[3\], got 3"),
        ({"target_type": "multilabel"}, r"train: expected targets \['N', 4\].*got \[20\]"),
        ({"train": part(targets=torch.zeros(20, 2).long())}, r"train: expected targets \['N'\].*got \[20, 2\]"),
        ({"train": part(targets=torch.full((20,), -1))}, "train: expected targets from 0 .*got -1"),
        ({"val_size": 20}, "val_size: expected fewer than the 20 training images, got 20"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(**kwargs)


@pytest.mark.parametrize(
    "kind",
    [
        *(CIFAR10DataModule, CIFAR100DataModule, COCODataModule, FashionMNISTDataModule, ImageNetDataModule),
        *(STL10DataModule, TinyImageNetDataModule),
    ],
)
def test_roots_may_be_in_the_home_folder(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = kind("~/data")
    assert data.root == str(tmp_path / "data")
    assert data.hparams["root"] == "~/data"


def test_images_that_are_not_square_have_no_image_size():
    data = make(TensorImages(torch.eye(48)[:8].view(8, 1, 2, 24).byte(), torch.zeros(8).long()), setup=False)
    with pytest.raises(ValueError, match="image_size: expected square images, got 2 x 24"):
        _ = data.image_size


def test_a_batch_larger_than_the_training_part():
    assert len(make(batch_size=20).train_dataloader()) == 1
    with pytest.raises(ValueError, match=r"batch_size: expected at most the 20 training images.*got 21"):
        make(batch_size=21).train_dataloader()


def test_loaders_before_setup_and_parts_that_are_missing():
    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
        make(setup=False).train_dataloader()
    data = ImageDataModule(part(), num_classes=4)
    data.setup()
    with pytest.raises(ValueError, match=r"images has no test part; pass test= to the data module$"):
        data.test_dataloader()
    with_validation = ImageDataModule(part(), num_classes=4, val_size=4)
    with_validation.setup()
    with pytest.raises(ValueError, match="pass test= to the data module, or evaluate on the validation part: split="):
        with_validation.test_dataloader()
    with pytest.raises(ValueError, match=r"val_size: images has neither a validation nor a test part .*val_size="):
        data.probe_test_dataloader()


def test_unequal_images_are_named_through_the_loader():
    sizes = [torch.zeros(1, 2, 2, dtype=torch.uint8)] * 3 + [torch.zeros(1, 4, 4, dtype=torch.uint8)]
    data = ImageDataModule([(image, 0) for image in sizes], num_classes=1, mean=(0.0,), std=(1.0,), batch_size=2)
    data.setup()
    with pytest.raises(ValueError, match=r"image 3: expected \[C, H, W\] = \[1, 2, 2\], got \[1, 4, 4\]"):
        list(data.probe_train_dataloader())
