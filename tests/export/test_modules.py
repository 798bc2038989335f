# SPDX-License-Identifier: Apache-2.0
"""The halves that are exported answer as the network does, whatever comes in."""

import pytest
import torch
import torch.nn.functional as F

from scripts.export.checks import clicks
from scripts.export.modules import FRAME, Decoder, FullModel, SamDecoder, SamEncoder
from tests.networks.recipe import recipe_network

SIZES = [(64, 64), (40, 100), (300, 90)]  # H, W


@pytest.fixture(scope="module", params=[True, False], ids=["aligned", "upstream"])
def network(request):
    network = recipe_network("vitt", 64, corrections=True).requires_grad_(False).eval()
    network.prompt_encoder.align_points = request.param
    return network


@pytest.mark.parametrize("has_mask", [False, True], ids=["first", "corrected"])
@pytest.mark.parametrize("count", [1, 6, 9])
@pytest.mark.parametrize("size", SIZES)
def test_the_decoder_is_the_networks(network, size, count, has_mask):
    draw = torch.Generator().manual_seed(count)
    embeddings = torch.randn(2, 256, 4, 4, generator=draw)
    labels = torch.randint(-1, 5, (2, 3, count), generator=draw)
    points = torch.rand(2, 3, count, 2, generator=draw) * torch.tensor(size).flip(0)
    points[labels == -1] = -1
    mask = 5 * torch.randn(2, 3, 1, 16, 16, generator=draw)
    expected = network.decode_all(embeddings, points, labels, size, mask if has_mask else None)
    given = torch.tensor(size).float(), mask, torch.tensor([float(has_mask)])
    for one, other in zip(Decoder(network)(embeddings, points, labels, *given), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_is_the_network(network, size):
    image, prompts = torch.rand(1, 3, *size), clicks(3, size)
    masks, iou = FullModel(network)(image, *prompts)
    torch.testing.assert_close(masks, network(image, *prompts), rtol=1e-4, atol=1e-4)
    assert iou.shape == (1, 3)


@pytest.mark.parametrize("height_first", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_sam_pair_takes_the_image_in_its_shape_and_answers_as_the_network(network, size, height_first):
    image = torch.rand(1, 3, *size)
    given = 255 * image[0].permute(1, 2, 0) if height_first else image
    embeddings = SamEncoder(network, height_first)(given)
    torch.testing.assert_close(embeddings, network.encode_image(image), rtol=1e-4, atol=1e-4)
    points, labels = torch.tensor([[[10.0, 30.0], [25.0, 5.0], [-1.0, -1.0]]]), torch.tensor([[1.0, 0.0, -1.0]])
    prompts = points * FRAME / max(size), labels, torch.zeros(1, 1, 256, 256), torch.zeros(1)
    masks, iou, low = SamDecoder(network)(embeddings, *prompts, torch.tensor(size).float())
    expected, quality = network.decode_best(embeddings, points[None], labels.long()[None], size, None)
    assert (masks.shape, iou.shape, low.shape) == ((1, 1, *size), (1, 1), (1, 1, 256, 256))
    torch.testing.assert_close(iou, quality, rtol=1e-4, atol=1e-4)
    on_image = F.interpolate(expected[0], list(size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(masks, on_image, rtol=1e-3, atol=1e-3)


def test_the_sam_pair_goes_on_from_its_mask():
    network = recipe_network("vitt", 64, corrections=True).requires_grad_(False).eval()
    decoder, embeddings = SamDecoder(network), torch.randn(1, 256, 4, 4)
    prompts, size = (torch.tensor([[[300.0, 500.0]]]), torch.ones(1, 1)), torch.tensor([50.0, 70.0])
    first = decoder(embeddings, *prompts, torch.zeros(1, 1, 256, 256), torch.zeros(1), size)
    shown = decoder(embeddings, *prompts, first[2], torch.ones(1), size)
    unseen = decoder(embeddings, *prompts, first[2], torch.zeros(1), size)
    assert torch.equal(unseen[0], first[0])
    assert not torch.allclose(shown[0], first[0], atol=1e-3)
