# SPDX-License-Identifier: Apache-2.0
"""Code of the EfficientSAM Adapter bundle: only what MONAI, Ignite and torch lack."""

from . import cli, data, engines, export, handlers, inferers, losses, metrics, networks, transforms

__all__ = ["cli", "data", "engines", "export", "handlers", "inferers", "losses", "metrics", "networks", "transforms"]
