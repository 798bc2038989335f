# SPDX-License-Identifier: Apache-2.0
"""What users have finished is kept as a data set, and nothing that was said to be kept is lost."""

import json

import nibabel
import numpy as np
import pytest
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession
from PIL import Image

from apps.serve.annotation import Annotation
from apps.serve.interactions import click
from apps.serve.keeping import Keeper
from scripts.data import find_datalist
from scripts.data.object_dataset import ObjectDataset
from scripts.errors import InputError
from tests.e2e.bundle import SMALL, TRAIN, run_warm
from tests.serve.serving import SHAPE, Server, fake_answering, organ, scan


def finished(image, points, spacing=(2.0, 1.0, 0.5), spreads=True):
    annotation = Annotation(fake_answering(), image, spacing)
    for point in points:
        annotation.add(click(point, True, annotation.shape))
        annotation.predict(spreads)
    return annotation


def kept(folder):
    return json.loads((folder / "dataset.json").read_text())["training"]


def test_an_object_is_kept_with_its_image_and_its_prompts(tmp_path):
    annotation = finished(scan(organ()), [[14, 18, 22], [18, 18, 24]])
    Keeper(tmp_path)(annotation)
    (item,) = kept(tmp_path)
    image, label = (nibabel.load(tmp_path / item[key]) for key in ("image", "label"))
    assert np.array_equal(np.asarray(image.dataobj), scan(organ())[0].T)
    assert np.array_equal(np.asarray(label.dataobj), annotation.mask.T)
    assert image.header.get_zooms() == (0.5, 1.0, 2.0) and np.array_equal(image.affine, label.affine)
    assert item["prompts"] == [[22, 18, 14, 1], [24, 18, 18, 1]]


def test_slices_lie_last_as_they_were_prompted(tmp_path):
    annotation = finished(scan(organ()), [[14, 18, 22]], spacing=(1.0, 2.0, 1.0))
    Keeper(tmp_path)(annotation)
    (item,) = kept(tmp_path)
    label = nibabel.load(tmp_path / item["label"])
    assert label.shape == (48, 30, 40) and label.header.get_zooms()[2] == 2.0
    x, y, k, _ = item["prompts"][0]
    assert label.dataobj[x, y, k] == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_kept_as_pictures(tmp_path, channels):
    truth = organ()[14:15]
    image = np.repeat(np.where(truth, 200, 20)[None].astype(np.uint8), channels, 0)
    image[0, 0, :5] = 77
    Keeper(tmp_path)(finished(image, [[0, 18, 22]]))
    (item,) = kept(tmp_path)
    stored = np.asarray(Image.open(tmp_path / item["image"]))
    assert np.array_equal(stored if channels == 3 else stored[..., None], image[:, 0].transpose(1, 2, 0))
    assert np.array_equal(np.asarray(Image.open(tmp_path / item["label"])) > 0, truth[0])


def test_a_second_object_of_an_image_shares_it_and_one_begun_again_takes_its_place(tmp_path):
    first, second = (
        organ(centre=(14, 12, 10), radii=(8, 9, 6), tilt=0),
        organ(centre=(14, 30, 36), radii=(8, 9, 6), tilt=0),
    )
    keeper, image = Keeper(tmp_path), scan(first | second)
    image[0][second] = 0
    for point in ([14, 12, 10], [14, 30, 36], [15, 12, 10]):
        keeper(finished(image, [point]))
    items = kept(tmp_path)
    assert len(items) == 2 and len({item["image"] for item in items}) == 1
    assert [item["prompts"][0][2] for item in items] == [14, 15]
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == sorted(i["label"][7:] for i in items)


def test_what_is_kept_is_a_data_set_that_trains(tmp_path):
    keeper = Keeper(tmp_path / "kept")
    for k in range(3):
        keeper(finished(scan(organ(centre=(14 + k, 18, 22))), [[14, 18, 22]]))
    found = find_datalist(str(tmp_path / "kept"), str(tmp_path))
    pairs = found["training"] + found["validation"]
    assert len(pairs) == 3
    items = ObjectDataset(pairs, lambda item: item, cache_dir=str(tmp_path)).data
    assert len({item["image"] for item in items}) == 3 and len(items) > 20


def test_nothing_is_kept_of_what_is_no_object(tmp_path):
    keeper = Keeper(tmp_path)
    keeper(finished(scan(organ()), []))
    annotation = finished(scan(organ()), [])
    annotation.add(click([3, 3, 3], False, SHAPE))
    annotation.predict()
    keeper(annotation)
    given = finished(scan(organ()), [])
    given.start_from(organ())
    keeper(given)  # nobody has prompted it
    assert kept(tmp_path) == [] and not any((tmp_path / "images").iterdir())


def test_it_goes_on_where_it_was_and_a_full_disk_is_said(tmp_path, monkeypatch, caplog):
    Keeper(tmp_path)(finished(scan(organ()), [[14, 18, 22]]))
    keeper = Keeper(tmp_path)
    before = (tmp_path / "dataset.json").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("apps.serve.keeping.os.fsync", full)
        keeper(finished(scan(organ(centre=(12, 16, 20))), [[12, 16, 20]]))
    assert "was not kept" in caplog.text and "No space left" in caplog.text
    assert (tmp_path / "dataset.json").read_bytes() == before
    assert len(list((tmp_path / "images").iterdir())) == 1  # nothing half written
    keeper(finished(scan(organ(centre=(12, 16, 20))), [[12, 16, 20]]))
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"training": 3}', "{}"])
def test_a_folder_with_another_list_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match="cannot keep what is segmented"):
        Keeper(tmp_path)
    assert (tmp_path / "dataset.json").read_text() == content


def test_clients_finish_an_object_by_the_next_one_another_image_or_by_leaving(tmp_path):
    with Server(finish=Keeper(tmp_path)) as server:
        client = nnInteractiveRemoteInferenceSession(server.url)
        for count, end in enumerate(("next", "image", "leave")):
            truth = organ(centre=(14, 16 + 2 * count, 22))
            client.set_image(scan(truth), {"spacing": [2, 1, 1]})
            assert len(kept(tmp_path)) == count
            client.set_target_buffer(np.zeros(SHAPE, np.uint8))
            client.reset_interactions()
            client.add_point_interaction([14, 18, 22], True)
            if end == "next":
                client.reset_interactions()
                assert len(kept(tmp_path)) == 1
        client.close()
    assert len(kept(tmp_path)) == 3


@pytest.mark.slow
def test_training_takes_what_was_kept_with_the_prompts_of_its_users(tmp_path):
    keeper = Keeper(tmp_path / "kept")
    for k in range(3):
        keeper(finished(scan(organ(centre=(14 + k, 18, 22))), [[14, 18, 22], [15, 18, 22]]))
    places = {"ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "eval", "cache_dir": tmp_path / "cache"}
    prompts = "{'recorded': 0.8, 'click_1': 0.2}"
    result = run_warm("training", TRAIN, dataset_dir=tmp_path / "kept", train_prompts=prompts, **SMALL, **places)
    assert result.code == 0, result.err
    assert (tmp_path / "models" / "model.pt").is_file()
