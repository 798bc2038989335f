# SPDX-License-Identifier: Apache-2.0
"""A user of napari and its plugin: open an image, initialize, click, look. The Python of napari runs it.

python tests/serve/napari_session.py URL SCAN.npy SPACING SLICE,ROW,COLUMN MASK.npy WINDOW.png
"""

import sys
import time

import napari
import numpy as np
from napari_nninteractive import nnInteractiveWidget
from qtpy.QtWidgets import QApplication

SECONDS = 90


def wait_for(condition):
    """Let the window go on until something is so."""
    end = time.monotonic() + SECONDS
    while not condition():
        QApplication.processEvents()
        time.sleep(0.02)
        if time.monotonic() > end:
            raise SystemExit("napari waited in vain")


def main(url, scan, spacing, point, mask, window):
    image = np.load(scan)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1400, 900)
    viewer.add_image(image, name="scan", scale=[float(each) for each in spacing.split(",")])
    plugin = nnInteractiveWidget(viewer)
    viewer.window.add_dock_widget(plugin, name="nnInteractive")
    wait_for(lambda: plugin.image_selection.currentText() == "scan")
    plugin.server_url_edit.setText(url)
    plugin.api_key_edit.setText("")
    plugin.on_init_button()
    wait_for(lambda: plugin.session is not None and plugin.label_layer_name in viewer.layers)
    wait_for(lambda: plugin.point_layer_name in viewer.layers)
    place = [int(each) for each in point.split(",")]
    viewer.dims.set_point(0, place[0] * viewer.layers["scan"].scale[0])
    viewer.layers[plugin.point_layer_name].add(place)
    wait_for(lambda: viewer.layers[plugin.label_layer_name].data.any())
    labels = viewer.layers[plugin.label_layer_name]
    labels.opacity = 0.6
    viewer.reset_view()
    for _ in range(25):
        QApplication.processEvents()
        time.sleep(0.02)
    np.save(mask, labels.data > 0)
    viewer.window.screenshot(window, flash=False)
    plugin._release_session()
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
