# SPDX-License-Identifier: Apache-2.0
"""The one exception that speaks to a user."""


class InputError(ValueError):
    """Something that a user gave is wrong; the message is one sentence that says what was seen and what to do."""
