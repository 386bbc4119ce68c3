import multiprocessing
import threading
import time

import pytest
import torch

from ssl_modules.augmentations import Foreign, Operation, Views, policy
from ssl_modules.utils.threads import one_thread, share_out


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def images_and_generator(count=40, size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8), generator


def test_each_item_is_processed_once_by_a_thread_that_does_not_split_operations():
    meet = threading.Barrier(4, timeout=60)  # waits until four threads hold one item each
    done = []

    def work(item):
        if item < 4:
            meet.wait()
        done.append((item, threading.get_ident(), torch.get_num_threads()))

    share_out(work, range(20))
    items, workers, counts = zip(*done, strict=True)
    assert sorted(items) == list(range(20))
    assert len(set(workers)) == 4
    assert set(counts) == {1}


def test_no_thread_and_no_setting_remains_afterwards():
    alive = threading.active_count()
    share_out(lambda item: None, range(20))
    assert threading.active_count() == alive
    assert torch.get_num_threads() == 4
    new = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [4]


@pytest.mark.parametrize("at", range(4))
def test_an_error_in_any_thread_is_raised_and_stops_the_others(at):
    meet = threading.Barrier(4, timeout=60)
    done = []

    def work(item):
        done.append(item)
        if item < 4:
            meet.wait()
        else:
            time.sleep(0.001)  # lets the thread with the error run, however busy the cores are
        if item == at:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=f"item {at}"):
        share_out(work, range(100_000))
    assert len(done) < 100_000
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_threads_take_over_grad_and_inference_mode(mode):
    meet = threading.Barrier(4, timeout=60)
    seen = []

    def work(item):
        meet.wait()
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    with mode():
        expected = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        share_out(work, range(4))
    assert seen == [expected] * 4


def test_one_thread_applies_only_inside_the_block():
    with one_thread(False):
        assert torch.get_num_threads() == 4
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["simclr", "moco", "byol", "sce-multicrop", "amdim", "cpc"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_views_do_not_depend_on_the_number_of_threads(name, dtype, monkeypatch):
    monkeypatch.setattr("ssl_modules.augmentations.views.PORTION", 3 * 64 * 64 * 3)
    images, _ = images_and_generator()
    images = images if dtype == torch.uint8 else images / 255
    augmentation = policy(name, 64)
    several = augmentation(images, torch.Generator().manual_seed(1))
    with one_thread():
        one = augmentation(images, torch.Generator().manual_seed(1))
    assert all(map(torch.equal, several, one))


class Scale(Operation):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5))
        self.seen = set()

    def draw(self, images, generator=None):
        return torch.rand(len(images), generator=generator)

    def transform(self, images, parameters):
        self.seen.add(threading.get_ident())
        return images * self.factor * parameters.view(-1, 1, 1, 1)


def test_gradients_equal_those_from_all_images_at_once(monkeypatch):
    images, _ = images_and_generator(size=8)
    images = (images / 255).requires_grad_()
    operation = Scale()
    augmentation = Views([operation], views=1)

    def gradients():
        [view] = augmentation(images, torch.Generator().manual_seed(1))
        return torch.autograd.grad(view.square().sum(), [images, *augmentation.parameters()])

    whole = gradients()
    monkeypatch.setattr("ssl_modules.augmentations.views.PORTION", 3 * 8 * 8 * 3)
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected)
    assert operation.seen == {threading.get_ident()}  # one thread, so gradients are added in a fixed order


def _views():
    images, generator = images_and_generator()
    return policy("moco", 64)(images, generator)[0].numpy().tobytes()


def _augment(connection):
    connection.send(_views())


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_process_forked_after_operations_on_several_threads_makes_the_same_views(monkeypatch):
    monkeypatch.setattr("ssl_modules.augmentations.views.PORTION", 3 * 64 * 64 * 3)
    expected = _views()
    torch.ones(2**20).add(1)  # after this, OpenMP can't use several threads in a forked process
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_augment, args=(there,), daemon=True)
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        assert here.recv() == expected
    finally:
        child.kill()
        child.join()


def test_a_transform_of_one_image_runs_on_one_thread():
    counts = []

    def note(images):
        counts.append(torch.get_num_threads())
        return images

    images, _ = images_and_generator(count=3, size=8)
    Foreign(note, size=8, views=1)(images)
    Foreign(note, size=8, views=1, per="batch")(images)
    assert counts == [1, 1, 1, 4]
