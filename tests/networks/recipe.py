# SPDX-License-Identifier: Apache-2.0
"""Weights, images and prompts by formula: the same numbers on every machine and with every version of torch.

Ten million weights are too many to commit, so every tensor is filled from an integer hash of its name and position.
What the network makes of them is recorded in `fixtures/recipe_outputs.json`; after a change of the cases in `outputs`,
    python -m tests.networks.recipe
writes that file again. Check the network against upstream's own before: the file's `about` says how it was done.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.networks import EfficientSAM, add_adapters
from scripts.networks.added_parts import added_parts

FIXTURE = Path(__file__).parent / "fixtures" / "recipe_outputs.json"
ABOUT = (
    "Sampled outputs in float64 of the network with the weights of recipe.py. The code that made them reproduced, on "
    "EfficientSAM-Ti at 256 with other weights, the recorded outputs of yformer/EfficientSAM (embeddings, "
    "low-resolution logits and IoU of all masks for points, boxes, labels 0 and -1, two images with two objects, "
    "bicubic upscaling: within 1e-5) and of Medical-SAM-Adapter's 2D encoder (within 2e-5). S and 512 run through the "
    "same code and have no such check of their own."
)
TOKENS = (
    "iou_token",
    "mask_tokens",
    "point_embeddings",
    "bbox_",
    "invalid_points",
    "gaussian_matrix",
    "background_embeddings",
    "no_mask_embed",
)  # no layer's weights
CORRECTIONS = re.compile(r"^prompt_encoder\.(background_embeddings|mask_downscaling|no_mask_embed)\.")  # not upstream's
ENCODER = [{"kind": "bottleneck", "targets": ["image_encoder.*"]}]  # adapters
BOTH = [{"kind": "bottleneck"}]
OLD_NAMES = {  # by which the fixture's adapters are filled -> names here
    "attn.bottleneck": "space_adapter",
    "mlp.bottleneck": "mlp_adapter",
    "cross_attn_token_to_image.bottleneck": "token_adapter",
    "cross_attn_image_to_token.bottleneck": "image_adapter",
}
SAMPLES = 48  # numbers kept of each large tensor


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Give float64 numbers in [-1, 1), each a multiple of 2**-23, from murmur3's finalizer over name and position."""
    h = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    h = h ^ (h >> np.uint32(16))
    return torch.from_numpy((h >> np.uint32(8)) / 2.0**23 - 1.0).reshape(shape)


def recipe_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Give one tensor of a state dict, scaled so that signals neither die nor blow up."""
    x = uniform(name, shape)
    if name.endswith("pos_embed"):
        x = 0.5 * x
    elif name.endswith("bias"):
        x = 0.1 * x
    elif len(shape) == 1:  # a norm's weight
        x = 1 + 0.2 * x
    elif not any(part in name for part in TOKENS):
        transposed = "final_output_upscaling_layers" in name  # (in, out, 2, 2) with stride 2
        fan_in = shape[0] if transposed else np.prod(shape[1:])
        x = x * float(np.sqrt(3 / fan_in))
    return x.float()


def old_name(name: str) -> str:
    """Return the name that version 0.2 gave to a tensor."""
    for new, old in OLD_NAMES.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def recipe_state(network: torch.nn.Module, corrections: bool = False) -> dict[str, Tensor]:
    """Give a whole state dict of the network's names and shapes.

    Args:
        network: keeps its own first weights of what it adds for background clicks and masks.
        corrections: fill these too, as if they were trained.
    """
    return {
        name: value
        if CORRECTIONS.search(name) and not corrections
        else recipe_tensor(old_name(name), tuple(value.shape))
        for name, value in network.state_dict().items()
    }


def upstream_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Give what upstream's checkpoint holds: neither adapters nor what is added for corrections."""
    added = {name for part in added_parts(network) for name in part.tensors}
    return {name: value for name, value in recipe_state(network).items() if name not in added}


def recipe_network(
    backbone: str = "vitt",
    image_size: int = 64,
    adapters: bool = False,
    corrections: bool = False,
    decoder: bool = False,
) -> EfficientSAM:
    """Build a network with the recipe's weights, in evaluation mode.

    Args:
        backbone: of the network.
        image_size: side of its own grid in pixels.
        adapters: add some, far from zero.
        corrections: whether background clicks and masks do anything, as after training.
        decoder: whether the mask decoder has adapters too.
    """
    network = EfficientSAM(backbone, image_size)
    if adapters:
        add_adapters(network, BOTH if decoder else ENCODER)
    network.load_state_dict(recipe_state(network, corrections))
    return network.eval()


def recipe_images(count: int = 2, height: int = 96, width: int = 120) -> Tensor:
    """Give images (count, 3, height, width) in 0..1 of coarse patches and a little noise, each a multiple of 1/255."""
    patches = uniform("patches", (count, 3, height // 8, width // 8))
    patches = patches.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    noise = uniform("noise", (count, 3, height, width))
    return ((127 + 100 * patches + 20 * noise).round() / 255).float()


def sample(values: Tensor) -> Tensor:
    """Pick `SAMPLES` numbers all over a tensor, or all of a small one."""
    if values.numel() <= SAMPLES:
        return values.flatten()
    places = (uniform("places", (SAMPLES,)) + 1) / 2 * values.numel()
    return values.flatten()[places.long()]


@torch.no_grad()
def outputs(backbone: str, image_size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run every case and sample what comes out.

    The images are 96 high and 120 wide; (x, y) are pixels of them.
    """
    images = recipe_images().to(dtype)
    size = (96, 120)
    points = torch.tensor(
        [
            [[31.0, 40.0], [95.0, 62.0]],  # two positives
            [[12.0, 20.0], [100.0, 81.0]],  # a box
            [[60.0, 33.0], [5.0, 90.0]],  # positive, background
            [[60.0, 33.0], [5.0, 90.0]],  # positive, padding with a position
        ]
    )
    labels = torch.tensor([[1, 1], [2, 3], [1, 0], [1, -1]])
    one = (points[None].to(dtype), labels[None])  # one image, four objects, two points each
    batch_points = torch.tensor(
        [
            [[[20.0, 30.0], [70.0, 15.0], [-4.0, 50.0]], [[2.0, 4.0], [66.0, 77.0], [40.0, 44.0]]],
            [[[110.0, 90.0], [0.0, 0.0], [119.0, 95.0]], [[30.5, 11.25], [90.0, 88.0], [-1.0, -1.0]]],
        ]
    )
    batch_labels = torch.tensor([[[1, 0, 1], [2, 3, 1]], [[1, 1, 0], [2, 3, -1]]])
    two = (batch_points.to(dtype), batch_labels)  # two images, two objects each, three points each

    network = recipe_network(backbone, image_size).to(dtype)
    embeddings = network.encode_image(images)
    results = {"embeddings": embeddings}
    for name, (p, q), e in (("one_image", one, embeddings[:1]), ("two_images", two, embeddings)):
        logits, iou = network.decode(e, p, q, size, multimask=True)
        single_logits, single_iou = network.decode(e, p, q, size, multimask=False)
        results |= {f"{name}/logits": logits, f"{name}/iou": iou}
        results |= {f"{name}/single_logits": single_logits, f"{name}/single_iou": single_iou}
        results[f"{name}/upscaled"] = network.upscale(logits, size)
    results["adapted_embeddings"] = (
        recipe_network(backbone, image_size, adapters=True).to(dtype).encode_image(images[:1])
    )
    return {name: sample(values) for name, values in results.items()}


def main() -> None:
    """Record the outputs of both backbones at two sizes."""
    record = {"about": ABOUT}
    for backbone in ("vitt", "vits"):
        for image_size in (256, 512):
            found = outputs(backbone, image_size, torch.float64)
            record[f"{backbone}-{image_size}"] = {
                k: [round(v, 6) for v in values.tolist()] for k, values in found.items()
            }
    lines = json.dumps(record, indent=1).replace("\n   ", " ").replace("\n  ]", " ]")
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_text(lines + "\n")


if __name__ == "__main__":
    main()
