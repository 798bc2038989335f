# SPDX-License-Identifier: Apache-2.0
"""All that makes or moves a prompt: its one form, classes that share one, corrections, crops."""
