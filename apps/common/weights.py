# SPDX-License-Identifier: Apache-2.0
"""The weights that there are, and those that answer."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts import networks
from scripts.cli import as_values
from scripts.io.file_state import file_state
from scripts.networks import SAMPLE, EfficientSAM, put_adapter, read_settings
from scripts.networks.adapters.files import SUFFIX

from .errors import RequestError
from .kept import Kept
from .turns import TakingTurns, Turns

BUNDLE = Path(__file__).resolve().parents[2]
MODELS = BUNDLE / "models"
INFERENCE, SPREAD = (BUNDLE / "configs" / f"{name}.yaml" for name in ("inference", "spread"))
BASE = "efficient_sam_vitt_base.pth"  # serves until there is a fine-tune
FINE_TUNE = "model.pt"
PREVIOUS = "previous.pth"  # what answered before the last training
NONE = "none"  # asks for the base, without an adapter
BEST = "best"  # what a client asks for that shall see new weights without connecting again
MOST_WEIGHTS = 2**30  # bytes of weights in memory

logger = logging.getLogger(__name__)


def offered() -> list[str]:
    """List the weights and adapters that a client may ask for, the best first."""
    fine_tunes = sorted((path.name for path in MODELS.glob("*.pt")), key=lambda name: (name != FINE_TUNE, name))
    adapters = sorted(path.name for path in MODELS.glob(f"*{SUFFIX}"))
    bases = [name for name in (PREVIOUS, BASE) if (MODELS / name).is_file()]
    return [BEST, *fine_tunes, *adapters, *([NONE] if BASE in bases else []), *bases]


class Best:
    """Know the best weights: the fine-tune, unless it is of the built-in sample, which no reader annotates."""

    def __init__(self) -> None:
        self.seen: tuple | None = None
        self.of_sample = False

    def __call__(self) -> str:
        """Return their name."""
        path = MODELS / FINE_TUNE
        if not path.is_file():
            return BASE
        state = file_state(path)
        if state != self.seen:
            self.of_sample = read_settings(path).trained_on == SAMPLE
            self.seen = state
            if self.of_sample:
                logger.warning(f"{path} was trained on the built-in sample: the base answers, and it only by its name")
        return BASE if self.of_sample else FINE_TUNE


best = Best()


def find_weights(name: str | None) -> Path:
    """Find the weights that a client asks for by name; nothing asks for the best.

    Raises:
        RequestError: when there are none of that name.
    """
    if name in (None, BEST):
        name = best()
    if name not in offered():
        raise RequestError(f"there are no weights {name}: choose {', '.join(offered())}")
    return MODELS / (BASE if name == NONE else str(name))


@dataclass(frozen=True)
class Answering:
    """Weights, ready to answer, with the steps that the bundle's configs have for them."""

    network: Any
    nbytes: int  # of its weights, those of an adapter's base left out
    inferer: Any
    spreading: Any  # the inferer of whole objects; nothing where the weights have class masks
    postprocessing: list


class Served:
    """Give weights that answer; a few are kept, as long as their files stay what they are.

    Args:
        backend: by which they answer: see :func:`scripts.export.use_backend`.
    """

    def __init__(self, backend: str = "auto") -> None:
        self.backend = backend
        self.turns = Turns()
        self.kept: Kept[Answering] = Kept(MOST_WEIGHTS, lambda one: one.nbytes)
        self.bases: Kept[EfficientSAM] = Kept(MOST_WEIGHTS, lambda one: sum(p.nbytes for p in one.parameters()))

    def use(self, path: Path, device: str) -> Answering:
        """Load weights, with the settings that are in their file, unless they are kept.

        Args:
            path: of the weights.
            device: on which they answer.

        Raises:
            InputError: when the file cannot be loaded; what answered before stays.
        """
        return self.kept.get((*file_state(path), device), lambda: self.load(path, device))

    def load(self, path: Path, device: str) -> Answering:
        """Load weights as configs/inference.yaml and configs/spread.yaml say.

        Args:
            path: of the weights.
            device: on which they answer.
        """
        config, spread = ConfigParser(), ConfigParser()
        config.read_config(INFERENCE)
        spread.read_config([INFERENCE, SPREAD])
        given = {"bundle_root": str(BUNDLE), "ckpt_path": str(path), "device": device, "backend": self.backend}
        config.update(as_values(given))
        below = 0
        if path.suffix == SUFFIX:  # its base is loaded once, whatever is put on it
            base = self.base_of(path, device)
            config.update({"network_def": put_adapter(base, path)})
            below = sum(p.nbytes for p in base.parameters())
        network = config.get_parsed_content("network").eval()
        spread.update({"network_def": network, "progress": False})  # which is loaded once
        return Answering(
            TakingTurns(config.get_parsed_content("answering").eval(), self.turns),
            sum(p.nbytes for p in network.parameters()) - below,
            config.get_parsed_content("inferer"),
            None if network.settings.layout else spread.get_parsed_content("inferer"),
            list(config.get_parsed_content("postprocessing").transforms),
        )

    def base_of(self, path: Path, device: str) -> EfficientSAM:
        """Load the base of an adapter, unless it is kept.

        Args:
            path: of the adapter.
            device: on which it answers.
        """
        base = Path(networks.find_weights(MODELS, adapter=path))
        return self.bases.get((*file_state(base), device), lambda: networks.load(base).to(device).eval())
