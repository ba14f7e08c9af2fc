import logging
import shutil
import tarfile

import numpy as np
import pytest
import torch

from clients.detection import nuclei as nuclei_reader
from clients.detection import voc as voc_reader
from clients.detection.data import load
from fedagent.errors import ConfigurationError, DataUnavailableError
from tests.clients.detection import made_up


@pytest.fixture
def broken(tmp_path):
    """VOC with one box of no width, one outside of its picture and one that is no number."""
    folder = made_up.voc(tmp_path)
    bad = [("large", (5, 5, 5, 30)), ("large", (0, 0, 400, 20)), ("large", (1, 1, "x", 9))]
    sound = ("large", (1, 1, 129, 97))  # counted from one
    text = made_up.annotation("cell01", [*bad, sound])
    (folder / "Annotations" / "cell01.xml").write_text(text)
    return folder


# --- nuclei ---------------------------------------------------------------------------------------


def test_size_and_brightness_tell_sites_apart_and_rare_ones_are_left_out(nuclei, caplog):
    with caplog.at_level(logging.WARNING, "flwr.fedagent"):
        found = nuclei_reader.read(nuclei)
    assert set(found.sites) == {"dark-64x64", "bright-80x64", "dark-72x72", "dark-96x56"}
    assert np.bincount(found.groups).tolist() == [6, 6, 6, 6]
    assert "2 of 26 pictures are left out" in caplog.text
    for image, group in zip(found.images, found.groups, strict=True):
        assert found.sites[group].endswith(f"{image.shape[2]}x{image.shape[1]}")
    assert all(boxes.shape == (1, 4) for boxes in found.boxes)


def test_boxes_belong_to_their_picture(nuclei):
    found = nuclei_reader.read(nuclei)
    for image, boxes in zip(found.images, found.boxes, strict=True):
        x0, y0, x1, y1 = boxes[0].long().tolist()
        ground = image[:, 0, 0].float().mean()
        differs = (image.float().mean(0) - ground).abs() > 60
        rows, columns = differs.nonzero().T
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert max(abs(a - b) for a, b in zip(seen, (x0, y0, x1, y1), strict=True)) <= 1


def test_a_zip_of_nuclei_is_the_folder(nuclei, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "nuclei"), "zip", nuclei)
    a, b = nuclei_reader.read(nuclei), nuclei_reader.read(tmp_path / archive)
    assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, r"holds 0 files boxes\.csv"),
        ("image,x0,y0,x1,y1\nn000,1,2,three,4\n", r"Line 2 of boxes\.csv .* no box"),
        ("image,left\nn000,1\n", r"columns image,x0,y0,x1,y1"),
        ("image,x0,y0,x1,y1\nabsent,1,2,3,4\n", r"not there, such as absent"),
    ],
)
def test_nuclei_without_a_fitting_table_say_so(tmp_path, table, says):
    folder = made_up.nuclei(tmp_path)
    (folder / "boxes.csv").unlink()
    if table is not None:
        (folder / "boxes.csv").write_text(table)
    with pytest.raises(DataUnavailableError, match=says):
        nuclei_reader.read(folder)


# --- VOC ------------------------------------------------------------------------------------------


def test_voc_is_shrunk_with_its_boxes_and_dealt_by_the_rarest_class(voc):
    found = voc_reader.read(voc, 64)
    assert found.classes == ("large", "small")
    assert found.images[0].shape == (3, 48, 64)
    assert torch.allclose(found.boxes[0][0], torch.tensor([20.0, 20.0, 61.0, 61.0]) / 2)
    assert found.groups.tolist() == [1, 0, 0] * 4
    assert found.test.tolist() == [9, 10, 11]


def test_broken_boxes_are_left_out_counted_and_told(broken, caplog, fresh):
    found = voc_reader.read(broken, 64)
    assert found.num_broken == 3
    assert len(found.boxes[1]) == len(found.labels[1]) == 1
    with caplog.at_level(logging.WARNING, "flwr.fedagent"):
        load("voc", str(broken), 64, 1, 0.2, 1)
    assert "3 boxes" in caplog.text


def test_a_tar_of_voc_inside_another_folder_is_the_folder(voc, tmp_path):
    with tarfile.open(tmp_path / "cells.tar.gz", "w:gz") as archive:
        archive.add(voc, arcname="CELLS")
    a, b = voc_reader.read(voc, 64), voc_reader.read(tmp_path / "cells.tar.gz", 64)
    assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert a.test.tolist() == b.test.tolist()


def test_voc_that_lacks_something_says_what(tmp_path):
    folder = made_up.voc(tmp_path / "voc")
    picture = folder / "JPEGImages" / "cell00.jpg"
    picture.write_bytes(b"no picture")
    with pytest.raises(DataUnavailableError, match=r"cell00\.jpg .* damaged"):
        voc_reader.read(folder, 64)
    picture.unlink()
    with pytest.raises(DataUnavailableError, match=r"no picture for cell00\.xml"):
        voc_reader.read(folder, 64)
    (folder / "Annotations" / "cell00.xml").write_text("<annotation>")
    with pytest.raises(DataUnavailableError, match=r"cell00\.xml .* no whole XML"):
        voc_reader.read(folder, 64)
    shutil.rmtree(folder / "Annotations")
    with pytest.raises(DataUnavailableError, match=r"no Annotations/\*\.xml"):
        voc_reader.read(folder, 64)


@pytest.mark.parametrize("listed", ["", "somebody-elses\n"])
def test_a_test_list_that_names_no_picture_is_refused(tmp_path, listed):
    folder = made_up.voc(tmp_path)
    (folder / "ImageSets" / "Main" / "test.txt").write_text(listed)
    with pytest.raises(DataUnavailableError, match=r"test\.txt .* names no picture"):
        voc_reader.read(folder, 64)


def test_a_path_that_is_missing_or_no_archive_is_named(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    (tmp_path / "bad.tar.gz").write_bytes(b"no tar")
    for name in ("absent", "bad.zip", "bad.tar.gz"):
        with pytest.raises(DataUnavailableError, match=f"{name} cannot be read"):
            nuclei_reader.read(tmp_path / name)
    for dataset in ("nuclei", "voc"):
        with pytest.raises(DataUnavailableError, match=r"set app\.path"):
            load(dataset, None, 64, 1, 0.2, 1)
    with pytest.raises(ConfigurationError, match="dataset='cars'"):
        load("cars", None, 64, 1, 0.2, 1)


# --- what users have ------------------------------------------------------------------------------


def test_the_nuclei_of_the_data_science_bowl(users_data):
    found = nuclei_reader.read(users_data("nuclei_dsb2018.zip"))
    counts = dict(zip(found.sites, np.bincount(found.groups).tolist(), strict=True))
    assert counts == {
        "dark-256x256": 334,
        "bright-320x256": 107,
        "dark-360x360": 90,
        "dark-696x520": 90,
        "bright-1024x1024": 16,
        "dark-640x512": 13,
        "dark-1272x603": 6,
    }
    assert sum(map(len, found.boxes)) > 28_000


def test_the_blood_cells_of_bccd_have_two_broken_boxes(users_data):
    found = voc_reader.read(users_data("blood_cells_bccd.tar.gz"), 160)
    assert found.classes == ("Platelets", "RBC", "WBC")
    assert (len(found.images), len(found.test), found.num_broken) == (364, 72, 2)
    assert torch.cat(list(found.labels)).bincount().tolist() == [361, 4155 - 2, 372]
