# SPDX-License-Identifier: Apache-2.0
"""What a run's log and TensorBoard files say."""

import re

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def epochs_of(log):
    """Give the epochs that a trainer finished, from its table, whose lines of epochs have a loss."""
    return [int(number) for number in re.findall(r"^ +(\d+) {1,9}\d+\.\d{4}", log, re.MULTILINE)]


def read_log(folder):
    """Read all scalars and images of a TensorBoard folder."""
    return EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()
