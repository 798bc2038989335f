# SPDX-License-Identifier: Apache-2.0
"""What a reader sees: tables, curves, and masks drawn on images."""
