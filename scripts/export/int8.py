# SPDX-License-Identifier: Apache-2.0
"""An encoder of 8 bits: by choice only, for it is not what the network was measured as."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..networks import EfficientSAM
from .backends import open_model
from .writers import quiet, require_package

MAX_CALIBRATION_IMAGES = 64  # images that a calibration reads, or as many as are checked where those are more


def quantize_encoder(network: EfficientSAM, folder: Path, images: Sequence[Tensor]) -> str:
    """Replace ``encoder.onnx`` by one whose products are of 8 bits, and say how far it is from the exact one.

    Static quantisation by ONNX Runtime: weights by channel, activations by the range that calibration sees.

    Args:
        network: that was written.
        folder: of its files.
        images: (1, 3, H, W), RGB in 0..1, to calibrate on.
    """
    require_package("onnxruntime")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    seen = [network.resize(image).numpy() for image in images]
    exact, prepared, path = folder / "encoder_exact.onnx", folder / "prepared.onnx", folder / "encoder.onnx"
    path.rename(exact)
    with quiet():
        quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _Reader(seen),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            calibrate_method=CalibrationMethod.MinMax,
        )
    run, run_exact = (open_model(folder, name, "onnxruntime") for name in ("encoder", "encoder_exact"))
    pairs = [(run_exact({"image": image})[0], run({"image": image})[0]) for image in seen[:8]]
    error = np.mean([np.abs(a - b).mean() / np.abs(a).mean() for a, b in pairs])
    for unneeded in (exact, prepared):
        unneeded.unlink()
    return f"encoder.onnx has 8 bits, calibrated on {len(seen)} images: embeddings are {error:.1%} off, masks differ"


class _Reader:
    """What ONNX Runtime's calibration asks for."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image}
