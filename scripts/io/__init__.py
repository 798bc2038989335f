# SPDX-License-Identifier: Apache-2.0
"""All that touches a user's file: reading of every kind, DICOM, NIfTI, grids in space, tables of what was found."""
