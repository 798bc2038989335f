# SPDX-License-Identifier: Apache-2.0
"""Commands for those who develop the bundle; they are not in the released zip."""
