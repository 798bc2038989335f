# SPDX-License-Identifier: Apache-2.0
"""Start the server: python apps/label/serve.py --studies /data/mine, which is what make label does."""

import argparse
import contextlib
import json
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib.listing import is_image, left_out

from apps.common.listening import listen_at

BUNDLE = Path(__file__).resolve().parents[2]
EVERYONE = ("0.0.0.0", "::")
READY = """
Ready: {address}
  3D Slicer: extension MONAI Label, server {address}, model efficientsam_2d under SmartEdit
  browser:   {address}/ohif/ (with a DICOMweb address as studies)
  {password}
  what to switch off, and what each client can send: {docs}
"""


def main() -> None:
    """Check what is given, take the port, and serve; what is wrong is one sentence."""
    parser = argparse.ArgumentParser(description="Serve the bundle to 3D Slicer, OHIF and CVAT")
    parser.add_argument("--studies", required=True, help="a folder of images, or the address of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--labels", default="", help="names of labels, parted by commas")
    parser.add_argument("--hosts", default="", help="names by which clients call the server, beside the machine's own")
    parser.add_argument(
        "--origins", default="", help="addresses of web pages that may ask, such as https://viewer.example"
    )
    options = parser.parse_args()
    if not options.studies.startswith(("http://", "https://")):
        options.studies = str(check_folder(options.studies))
    listening = take_port(options.host, options.port)
    serve(options, os.environ.get("TOKEN", ""), listening)


def check_folder(studies: str) -> Path:
    """Return the folder of the images, and say which are offered.

    Raises:
        SystemExit: with a sentence, when it is none, or nothing can be saved there.
    """
    folder = Path(studies).expanduser().resolve()
    if not folder.is_dir():
        raise SystemExit(f"error: {folder} is {'a file' if folder.exists() else 'not there'}: give a folder of images")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SystemExit(f"error: {folder} is write-protected: labels are saved in it")
    count = sum(map(is_image, folder.iterdir()))
    print(f"{count} images found in {folder}", flush=True)
    for reason, names in left_out(folder).items():
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        print(f"  {len(names)} not, because {reason}: {shown}", flush=True)
    return folder


def take_port(host: str, port: int) -> socket.socket:
    """Listen at a port, before anything is loaded.

    Args:
        host: that is listened on.
        port: a number.

    Raises:
        SystemExit: with a sentence, when another program has it.
    """
    try:
        return listen_at(host, port)
    except OSError as error:
        raise SystemExit(
            f"error: port {port} of {host} is not to be had ({error.strerror}): give another, PORT=8010"
        ) from error


def serve(options: argparse.Namespace, token: str, listening: socket.socket) -> None:
    """Run MONAI Label with this app, and say when it is ready.

    Args:
        options: of the command line.
        token: that clients must show, if any.
        listening: the port.
    """
    import uvicorn
    from monailabel.config import settings
    from monailabel.main import Main
    from monailabel.utils.others.generic import init_log_config

    name = socket.gethostname() if options.host in EVERYONE else options.host
    address = f"http://{f'[{name}]' if ':' in name else name}:{options.port}"
    conf = {"labels": options.labels, "hosts": f"{name},{options.hosts}", "origins": options.origins, "token": token}
    start = argparse.Namespace(
        app=str(BUNDLE / "apps" / "label"),
        studies=options.studies,
        port=options.port,
        conf=list(conf.items()),
        dryrun=False,
    )
    os.environ.setdefault("PYTHONPATH", "")
    Main().start_server_init_settings(start)
    with open(init_log_config(None, start.app, "app.log", "INFO")) as file:
        log_config = json.load(file)
    log_config["handlers"]["console"]["level"] = "WARNING"  # the rest is in logs/app.log
    with contextlib.redirect_stdout(None):  # it prints that all origins are allowed, which the door does not
        import monailabel.app  # noqa: F401

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.should_exit:
                raise SystemExit("error: the server did not start; the reason stands above")
            password = "password:  any user name, and TOKEN" if token else "password:  none; TOKEN=... sets one"
            print(READY.format(address=address, password=password, docs=BUNDLE / "docs" / "annotate.md"), flush=True)

    assert settings.MONAI_LABEL_APP_DIR == start.app
    config = uvicorn.Config("monailabel.app:app", log_config=log_config, access_log=False, timeout_graceful_shutdown=3)
    Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
