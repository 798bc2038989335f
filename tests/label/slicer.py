# SPDX-License-Identifier: Apache-2.0
"""3D Slicer's extension as it is, without 3D Slicer: its widget and logic run, Qt, MRML and VTK are stand-ins."""

import importlib.util
import sys
import tempfile
import types
from unittest.mock import MagicMock

import itk
import nibabel
import numpy as np

from tests.label.server import PLUGIN


class Matrix:
    """vtkMatrix4x4."""

    def __init__(self):
        self.values = np.eye(4)

    def MultiplyDoublePoint(self, point):  # noqa: N802
        return (self.values @ np.array(point, float)).tolist()


class Points:
    """A list of markups, in RAS."""

    def __init__(self, positions):
        self.positions = [list(map(float, position)) for position in positions]

    def GetNumberOfControlPoints(self):  # noqa: N802
        return len(self.positions)

    def GetNthControlPointPosition(self, i):  # noqa: N802
        return self.positions[i]

    def GetNthControlPointPositionWorld(self, i, out):  # noqa: N802
        out[:] = self.positions[i]


class Box:
    """A region of interest between two corners in RAS; none is not placed."""

    def __init__(self, corners=None):
        self.corners = None if corners is None else np.array(corners)

    def GetControlPointPlacementComplete(self):  # noqa: N802
        return self.corners is not None

    def GetCenter(self, out):  # noqa: N802
        out[:] = self.corners.mean(0).tolist()

    def GetSize(self):  # noqa: N802
        return np.ptp(self.corners, axis=0).tolist()


def load_extension():
    """Import the extension's module with stand-ins for what it imports."""

    def module(name, **attributes):
        fake = MagicMock(name=name)
        fake.__spec__, fake.__path__ = None, []
        for key, value in attributes.items():
            setattr(fake, key, value)
        sys.modules[name] = fake
        return fake

    def base(name):
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})

    slicer = module("slicer", ScriptedLoadableModule=None)
    module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    module("slicer.parameterNodeWrapper")
    loadable = types.ModuleType("slicer.ScriptedLoadableModule")
    for suffix in ("", "Widget", "Logic", "Test"):
        setattr(loadable, f"ScriptedLoadableModule{suffix}", base(suffix or "Module"))
    sys.modules["slicer.ScriptedLoadableModule"] = loadable
    slicer.util = module(
        "slicer.util",
        VTKObservationMixin=base("VTKObservationMixin"),
        settingsValue=lambda key, default=None, converter=None: default,
        toBool=bool,
        tempDirectory=lambda *_: tempfile.mkdtemp(),
        errorDisplay=lambda message, **_: print("error dialogue:", message),
    )
    module("qt", QDialog=base("QDialog"))
    module("ctk", ctkSettingsPanel=base("ctkSettingsPanel"))
    module("vtk", vtkMatrix4x4=Matrix)
    for name in ("vtkSegmentationCore", "SampleData", "sitkUtils", "DICOMScalarVolumePlugin"):
        module(name)
    sys.path.insert(0, str(PLUGIN))
    spec = importlib.util.spec_from_file_location("MONAILabel", PLUGIN / "MONAILabel.py")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension, slicer


class Scene:
    """A volume that is open in 3D Slicer, connected to a server."""

    def __init__(self, server, name, model):
        self.extension, self.slicer = load_extension()
        self.server, self.name, self.model = server, name, model
        self.affine = nibabel.load(f"{server.studies}/{name}.nii.gz").affine

    def ras(self, index):
        """Turn an index (i, j, k) into RAS, as a hand places it."""
        return (self.affine @ [*index, 1])[:3]

    def smart_edit(self, foreground=(), background=(), box=None, red=0.0, clicked=True):
        """Press what places the last point, or Update; give what was sent, the mask (X, Y, Z), and its slice.

        Args:
            foreground: indices.
            background: indices.
            box: two corners, indices.
            red: offset of the Red view, in mm.
            clicked: whether the last foreground point has just been placed.
        """
        widget = self.extension.MONAILabelWidget.__new__(self.extension.MONAILabelWidget)
        widget.ui = MagicMock()
        widget.ui.deepgrowModelSelector.currentText = self.model
        widget.ui.dgUpdateCheckBox.checked, widget.ui.freezeUpdateCheckBox.checked = True, False
        for choice in (widget.ui.optionsSection, widget.ui.optionsName):
            choice.currentIndex, choice.itemText = -1, lambda i: ""
        widget.logic = self.extension.MONAILabelLogic(tempfile.mkdtemp(), self.server.url, client_id="user-xyz")
        widget.logic.reportProgress = lambda percent: None
        widget.info = widget.logic.info()
        widget.models = widget.info["models"]
        widget.deepedit_multi_label = False
        widget.resetLabelState, widget.current_sample = False, {"id": self.name}
        widget._volumeNode = MagicMock()
        widget._volumeNode.GetRASToIJKMatrix = lambda matrix: setattr(matrix, "values", np.linalg.inv(self.affine))
        segment = MagicMock()
        segment.GetName = lambda: "object"
        widget.currentSegment = lambda: ("s1", segment)
        widget._segmentNode = MagicMock()
        widget.dgPositivePointListNode = Points([self.ras(p) for p in foreground])
        widget.dgNegativePointListNode = Points([self.ras(p) for p in background])
        widget.ui.sam2PlaceWidget.currentNode = lambda: Box(None if box is None else [self.ras(p) for p in box])
        self.slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceOffset = lambda: red
        widget.updateGUIFromParameterNode = lambda *args: None

        sent, got = [], {}
        infer = widget.logic.infer

        def spy(model, image, params={}, *args, **kwargs):  # noqa: B006
            sent.append(dict(params))
            return infer(model, image, params, *args, **kwargs)

        def update(file, labels, sliceIndex=None, freeze=None):  # noqa: N803
            got.update(mask=np.asarray(itk.imread(file)).T, labels=labels, slice=sliceIndex)

        widget.logic.infer, widget.updateSegmentationMask = spy, update
        widget.onClickDeepgrow(list(foreground[-1]) if foreground and clicked else None)
        assert got, "the extension showed no mask"
        return sent[-1], got["mask"], got["slice"]
