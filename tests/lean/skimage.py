# SPDX-License-Identifier: Apache-2.0
"""Not there, as where `make setup` installed what the bundle needs: see tests/conftest.py."""

raise ImportError("the commands of the tests run without it")
