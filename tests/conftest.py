# SPDX-License-Identifier: Apache-2.0
"""Commands that tests start have what users have: not MLflow and scikit-image, which MONAI imports where they are."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).parent / "lean")
