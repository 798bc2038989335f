# SPDX-License-Identifier: Apache-2.0
"""Clicks and a box on one slice (dimension 2) or on several (dimension 3), answered by the best weights there are."""

from pathlib import Path
from threading import RLock
from typing import Any

from monai.bundle import ConfigParser
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleConstants, BundleInferTask
from monailabel.utils.others.generic import name_to_device

from .errors import RequestError

BUNDLE = Path(__file__).resolve().parents[3]
MODELS = BUNDLE / "models"
BASE = "efficient_sam_vitt_base.pth"  # serves until there is a fine-tune
FINE_TUNE = "model.pt"
BEST = "best"  # what a client asks for that shall see new weights without connecting again


class Served:
    """The weights that answer, with the config that was made for them: one network, and one cache, for all models."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.config: ConfigParser | None = None
        self.network: Any = None
        self.state: tuple | None = None

    def use(self, path: Path, device: str) -> None:
        """Load weights, with the settings that are in their file, unless they are what answers already.

        A file that cannot be loaded raises the bundle's InputError, and what answered before stays as it was.
        """
        state = (*file_state(path), device)
        if state == self.state:
            return
        config = read_config(path)
        config["device"] = device
        network = config.get_parsed_content("network").eval()
        self.config, self.network, self.state = config, network, state


def file_state(path: Path) -> tuple:
    """Tell weights from others that lie at the same place later."""
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def read_config(path: Path) -> ConfigParser:
    """Read what the bundle does with a request, for the weights in a file."""
    config = ConfigParser()
    config.read_config(BUNDLE / "configs" / "inference.yaml")
    config["bundle_root"] = str(BUNDLE)
    config["ckpt_path"] = str(path)
    return config


def offered() -> list[str]:
    """List the weights that a client may ask for, the best first."""
    fine_tunes = sorted((path.name for path in MODELS.glob("*.pt")), key=lambda name: (name != FINE_TUNE, name))
    return [BEST, *fine_tunes, BASE]


def find_weights(name: str | list[str] | None) -> Path:
    """Find the weights that a client asks for by name; nothing asks for the best.

    Raises:
        RequestError: when there are none of that name.
    """
    name = name[0] if isinstance(name, list) and name else name or BEST
    if name == BEST:
        name = FINE_TUNE if (MODELS / FINE_TUNE).is_file() else BASE
    if name not in offered():
        raise RequestError(f"there are no weights {name}: choose {', '.join(offered())}")
    return MODELS / str(name)


class Constants(BundleConstants):
    """The names that a bundle's files have."""

    def model_pytorch(self) -> str:
        return BASE


class PromptedInfer(BundleInferTask):
    """One object for each request, from clicks on and beside it and a box.

    Args:
        served: weights, shared with other dimensions.
        conf: options of the command line; ``labels`` are names, parted by commas.
        dimension: 2 answers on the slice that a client shows, 3 on every prompted slice.
    """

    def __init__(self, served: Served, conf: dict[str, str], dimension: int) -> None:
        super().__init__(str(BUNDLE), conf, const=Constants(), type=InferType.DEEPGROW)
        self.served = served
        self.dimension = dimension
        if conf.get("labels"):
            self.labels = {name.strip(): i for i, name in enumerate(conf["labels"].split(","), 1) if name.strip()}

    def _load_bundle_config(self, path: str, config: str) -> ConfigParser:
        return read_config(MODELS / BASE)

    def config(self) -> dict[str, Any]:
        """Give a client's options, with the weights there are now."""
        return {**self._config, "model_filename": offered()}

    def get_path(self, validate: bool = True) -> str:
        """Give the file of the weights that answer."""
        return str(find_weights(BEST))

    def __call__(self, request: dict[str, Any], callbacks: dict | None = None) -> tuple[str | None, dict]:
        """Answer one request: the file of the mask and what is told of it."""
        with self.served.lock:
            self.served.use(find_weights(request.get("model_filename")), name_to_device(request.get("device")))
            self.bundle_config = self.served.config
            return super().__call__(request, callbacks)

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[Any, dict]:
        """Write the mask from the array as it lies in memory; MetaTensor.array would turn it, and ITK turn it back."""
        data["pred"] = data["pred"].as_tensor().cpu().numpy()
        return super().writer(data, extension, dtype)

    def _get_network(self, device: str, data: Any) -> Any:
        return self.served.network
