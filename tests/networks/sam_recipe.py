# SPDX-License-Identifier: Apache-2.0
"""SAM's public package beside ours, with weights by formula; what the package makes of them is recorded.

The package imports torchvision for its data alone, which is stubbed. `fixtures/sam_outputs.json` is written again by
    python -m tests.networks.sam_recipe
"""

import functools
import json
import re
import sys
import types
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.sam import SAM
from tests.networks.recipe import recipe_tensor, sample, uniform

FIXTURE = Path(__file__).parent / "fixtures" / "sam_outputs.json"
STUBS = ("torchvision", "torchvision.ops.boxes", "torchvision.transforms", "torchvision.transforms.functional")
NAMES = {
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}
SIZES = (256, 512, 1024)


@functools.cache
def recipe_state():
    """Return the recipe's weights, which are the same for every size of image."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in SAM("vitb", 64).state_dict().items()}
    return {name: recipe_tensor(name, shape) for name, shape in shapes.items()}


def recipe_sam(image_size, **settings):
    """Build our network with the recipe's weights, in evaluation mode."""
    with mock.patch.object(nn.init, "trunc_normal_"):  # which takes longer than all else
        network = SAM("vitb", image_size, **settings)
    network.load_state_dict(recipe_state())
    return network.eval()


def upstream_name(name):
    """Return the package's name of a tensor."""
    return re.sub(r"\.mlp\.fc([12])\.", r".mlp.lin\1.", name)


def package_sam(image_size):
    """Build the package's network with the same weights, its positions resized from those for 1024 pixels."""
    stubs = {name: types.ModuleType(name) for name in STUBS}
    for name, functions in NAMES.items():
        for function in functions:
            setattr(stubs[name], function, None)
    with mock.patch.dict(sys.modules, {name: stub for name, stub in stubs.items() if name not in sys.modules}):
        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    grid = image_size // 16
    encoder = ImageEncoderViT(
        depth=12,
        embed_dim=768,
        img_size=image_size,
        num_heads=12,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=(2, 5, 8, 11),
        window_size=14,
    )
    prompts = PromptEncoder(256, (grid, grid), (image_size, image_size), 16)
    decoder = MaskDecoder(
        transformer_dim=256, transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    )
    package, ours = Sam(encoder, prompts, decoder).eval(), recipe_sam(image_size)
    state = {upstream_name(name): value for name, value in ours.state_dict().items()}
    state["image_encoder.pos_embed"] = ours.image_encoder.resize_position_embedding().detach()
    for name, value in package.state_dict().items():
        if state[name].shape != value.shape:  # relative positions of the blocks that see all
            state[name] = F.interpolate(state[name].t()[None], size=len(value), mode="linear")[0].t()
    package.load_state_dict(state, strict=True)
    return package


def prompts_of(image_size):
    """List prompts by name: points and labels, a box, a mask; each or nothing."""
    scale = image_size / 128
    points = torch.tensor([[[31.0, 40.0], [95.0, 62.0]]]) * scale, torch.tensor([[1, 0]])
    box, side = torch.tensor([[12.0, 20.0, 100.0, 81.0]]) * scale, image_size // 4
    mask = 5 * uniform("mask", (1, 1, side, side)).float()
    return {
        "point": ((points[0][:, :1], points[1][:, :1]), None, None),
        "points": (points, None, None),
        "box": (None, box, None),
        "points, box and mask": (points, box, mask),
        "points and mask": (points, None, mask),
    }


def image_of(image_size):
    return (0.5 + 0.5 * uniform("image", (1, 3, image_size, image_size))).float()


@torch.no_grad()
def package_outputs(image_size):
    """Run the package on each prompt."""
    package = package_sam(image_size)
    embeddings = package.image_encoder(package.preprocess(255 * image_of(image_size)[0])[None])
    results = {"embeddings": embeddings}
    for name, (points, box, mask) in prompts_of(image_size).items():
        sparse, dense = package.prompt_encoder(points, box, mask)
        logits, iou = package.mask_decoder.predict_masks(
            embeddings, package.prompt_encoder.get_dense_pe(), sparse, dense
        )
        results |= {f"{name}/logits": logits, f"{name}/iou": iou}
    results["upscaled"] = package.postprocess_masks(
        uniform("low", (1, 3, image_size // 4, image_size // 4)).float(), (image_size * 3 // 4, image_size), (90, 120)
    )
    return results


@torch.no_grad()
def our_outputs(image_size, padding=0):
    """Run ours on each prompt, with so many points of padding."""
    network = recipe_sam(image_size)
    embeddings = network.encode_image(image_of(image_size))
    results = {"embeddings": embeddings}
    for name, (points, box, mask) in prompts_of(image_size).items():
        xy, labels = torch.full((1, padding, 2), -1.0), torch.full((1, padding), -1)
        if points is not None:
            xy, labels = torch.cat([points[0], xy], 1), torch.cat([points[1], labels], 1)
        if box is not None:
            xy, labels = torch.cat([box.view(1, 2, 2), xy], 1), torch.cat([torch.tensor([[2, 3]]), labels], 1)
        size = (image_size, image_size)
        logits, iou = network.decode_all(embeddings, xy[None], labels[None], size, None if mask is None else mask[None])
        results |= {f"{name}/logits": logits[0], f"{name}/iou": iou[0]}
    low = uniform("low", (1, 3, image_size // 4, image_size // 4)).float()
    results["upscaled"] = network.upscale(low, (90, 120))
    return results


def main():
    """Record what the package gives."""
    record = {
        str(size): {
            name: [round(v, 6) for v in sample(values).tolist()] for name, values in package_outputs(size).items()
        }
        for size in SIZES
    }
    FIXTURE.write_text(json.dumps(record, indent=1).replace("\n   ", " ").replace("\n  ]", " ]") + "\n")


if __name__ == "__main__":
    main()
