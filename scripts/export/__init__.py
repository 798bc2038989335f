# SPDX-License-Identifier: Apache-2.0
"""Networks as files that others run, and run from such files: ONNX, OpenVINO and TorchScript."""

from .backends import AUTO, BACKENDS, ExportedNetwork, choose_backend, use_backend

__all__ = ["AUTO", "BACKENDS", "ExportedNetwork", "choose_backend", "use_backend"]
