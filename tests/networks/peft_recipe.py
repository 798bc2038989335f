# SPDX-License-Identifier: Apache-2.0
"""LoRA and AdaLoRA of Hugging Face's peft, as an oracle: a small network trained by a formula's numbers.

peft is large and nothing else needs it, so what it gives is recorded in `fixtures/peft_outputs.json`. Where peft is
installed,
    python -m tests.networks.peft_recipe
writes that file again.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.networks.recipe import uniform

FIXTURE = Path(__file__).parent / "fixtures" / "peft_outputs.json"
LAYERS = ("fc1", "fc2")
STEPS, INTERVAL, WARMUP, FINAL = 24, 2, 4, 8
RANK, TARGET_RANK, LEARNING_RATE = 4, 2, 0.5
ORTHOGONALITY = 0.1


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


class Small(nn.Module):
    """A network with a place for adapters."""

    adapter_places = {"mlp": "beside"}

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()
        for name, value in self.named_parameters():
            value.data = uniform(name, value.shape).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def factor(kind: str, layer: str, shape: tuple[int, ...]) -> Tensor:
    """Return the first numbers of a factor of a layer.

    Args:
        kind: ``"a"`` or ``"b"``.
        layer: one of :data:`LAYERS`.
        shape: of the factor.
    """
    return 0.5 * uniform(f"{layer}.{kind}", shape).float()


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a step."""
    return uniform(f"x{step}", (8, 6)).float(), uniform(f"y{step}", (8, 5)).float()


def record() -> dict:
    """Train with peft, and return what came of it."""
    from peft import AdaLoraConfig, LoraConfig, get_peft_model

    lora = get_peft_model(Small(), LoraConfig(r=RANK, lora_alpha=1, target_modules=list(LAYERS)))
    for name, value in lora.named_parameters():
        if "lora_" in name:
            layer, kind = name.split(".")[-4], name.split(".")[-3][-1].lower()
            value.data = factor(kind, layer, tuple(value.shape))
    found = {"lora": lora(batch(0)[0]).tolist()}
    merged = lora.merge_and_unload()
    found["merged"] = {layer: merged.get_submodule(f"mlp.{layer}").weight.tolist() for layer in LAYERS}

    config = AdaLoraConfig(
        init_r=RANK, target_r=TARGET_RANK, lora_alpha=1, tinit=WARMUP, tfinal=FINAL, deltaT=INTERVAL, beta1=0.85,
        beta2=0.85, orth_reg_weight=ORTHOGONALITY, total_step=STEPS, target_modules=list(LAYERS),
    )  # fmt: skip
    model = get_peft_model(Small(), config)
    for name, value in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            layer, kind = name.split(".")[-3], name.split(".")[-2][-1].lower()
            value.data = factor(kind, layer, tuple(value.shape))
        elif "lora_E" in name:
            value.data.zero_()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    found["adalora"] = []
    for step in range(1, STEPS + 1):
        x, y = batch(step)
        factors = [p if "lora_A" in n else p.T for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n]
        apart = [
            torch.norm(f @ f.T - torch.eye(RANK), p="fro") for f in factors
        ]  # as in peft, which adds it to `.loss`
        loss = (model(x) - y).square().mean() + ORTHOGONALITY * sum(apart) / len(apart)
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        values = {n.split(".")[-3]: p.flatten().tolist() for n, p in model.named_parameters() if "lora_E" in n}
        found["adalora"].append({"loss": loss.item(), "values": values})
    return found


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(record(), indent=1))
