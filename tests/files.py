# SPDX-License-Identifier: Apache-2.0
"""Files of the supported kinds with known content, written without the code under test.

Pictures and DICOM files are written from rows, (H, W[, 3]); NIfTI, NRRD and MetaImage from arrays in index order,
(X, Y[, Z]).
"""

from pathlib import Path

import itk
import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_picture(path, rows, mode=None, **options):
    """Write a picture with Pillow; the suffix says which kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.ascontiguousarray(rows))
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def write_palette(path, indices, colours, **options):
    """Write a palette picture: rows of indices into a list of RGB colours."""
    picture = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(path, **options)
    return path


def write_nifti(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def write_itk(path, array, spacing=None, origin=None, direction=None):
    """Write NRRD or MetaImage; ITK's arrays are (Z, Y, X)."""
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    if spacing:
        image.SetSpacing(spacing)
    if origin:
        image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(itk.matrix_from_array(np.asarray(direction, float)))
    itk.imwrite(image, str(path))
    return path


def write_dicom(path, rows, position=(0.0, 0.0, 0.0), spacing=(1.0, 1.0), series=None, number=1):
    """Write one slice of unsigned 16 bits, MONOCHROME2; spacing is (between rows, between columns)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"  # MR
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series or generate_uid()
    data.Modality, data.PatientName, data.PatientID, data.InstanceNumber = "MR", "Nobody", "0", number
    data.Rows, data.Columns = rows.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.ImagePositionPatient, data.ImageOrientationPatient = list(position), [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = list(spacing), 1
    data.PixelData = rows.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, slices, step=1.0):
    """Write a DICOM series of slices (H, W), bottom to top; file names run the other way."""
    series = generate_uid()
    for k, rows in enumerate(slices):
        name = f"{len(slices) - k:03d}.dcm"
        write_dicom(Path(folder) / name, rows, position=(0.0, 0.0, k * step), series=series, number=len(slices) - k)
    return folder
