# SPDX-License-Identifier: Apache-2.0
"""The door of the server: who may ask, and MONAI Label's routes behind checks of all that comes in.

The routes are MONAI Label's own. Those that take files or parameters are declared here again and call the same
functions, with checked values, in a thread, so that the server answers others meanwhile. Routes that nothing here needs
(batch inference, whole slides, scoring, changing models) are not served.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse
from monailabel.endpoints import activelearning, datastore, infer, info, logs, model, ohif, proxy, session, train
from monailabel.endpoints.infer import ResultType
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.utils.app import app_instance
from starlette.middleware.cors import CORSMiddleware

from apps.common.errors import RequestError, sentence_of

from .archives import check_archive
from .checks import INFER, SAMPLE, TRAIN, name, parse_object, plain, read_fields
from .gate import Gate
from .listing import SUFFIXES, suffix_of

logger = logging.getLogger(__name__)

NAMES = ("image", "label", "tag", "id", "session_id", "model", "strategy")  # of what is looked for in the studies
RAW = ".bin"  # voxels alone, as OHIF saves a label of a DICOMweb server's series
LONGEST_SESSION = 7 * 24 * 3600  # seconds
FULL = (errno.ENOSPC, errno.EDQUOT)
WRITE_PROTECTED = (errno.EROFS, errno.EACCES, errno.EPERM)


def make_door(hosts: list[str], origins: list[str], token: str | None, is_remote: bool) -> FastAPI:
    """Make the app that answers.

    Args:
        hosts: names by which the server may be called, see :class:`Gate`.
        origins: of web pages that may ask, see :class:`Gate`.
        token: that clients must show; nothing asks for none.
        is_remote: whether the studies are of a DICOMweb server, to which OHIF's requests go on.
    """
    app = FastAPI(title="EfficientSAM Adapter", docs_url="/", redoc_url=None)
    app.include_router(auth_routes(token))
    checked = [Depends(check_names)]
    app.include_router(routes, dependencies=checked)
    served = [info, model, train, datastore, logs, session, ohif, *([proxy] if is_remote else [])]
    for router in (module.router for module in served):
        app.include_router(router, dependencies=checked)
    app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Gate, hosts=hosts, origins=origins, token=token)
    for kind in (Exception, MONAILabelException, OSError, ValueError):
        app.add_exception_handler(kind, answer_error)
    return app


def check_names(request: Request) -> None:
    """Refuse names in an address that are paths."""
    for key in NAMES:
        for value in (*request.query_params.getlist(key), request.path_params.get(key)):
            if value:
                name(value, key)


def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer what went wrong by one sentence: the client's fault by 4xx, a full disk by 507.

    Args:
        request: that failed.
        error: what was raised.
    """
    sentence = sentence_of(error)
    status = 400
    if isinstance(error, (ImageNotFoundException, LabelNotFoundException)):
        status, sentence = 404, error.msg
    elif isinstance(error, MONAILabelException) and error.error == MONAILabelError.INVALID_INPUT:  # no such model
        status, sentence = 404, error.msg
    elif sentence is None and isinstance(error, OSError) and error.errno in (*FULL, *WRITE_PROTECTED):
        status = 507 if error.errno in FULL else 403
        sentence = f"nothing was saved: {error.strerror}: {error.filename or 'of the server'}"
    elif sentence is None:
        logger.error("a fault of the server", exc_info=error)
        status, sentence = 500, f"a fault of the server, which its log describes ({type(error).__name__})"
    logger.warning(f"refused: {sentence}")
    return JSONResponse({"detail": sentence}, status)


@contextmanager
def uploaded(file: UploadFile, what: str = "file") -> Iterator[str]:
    """Lend an uploaded file under a name of the server's own, and remove it whatever comes.

    Args:
        file: of the request.
        what: ``file`` or ``label``, for errors.

    Raises:
        RequestError: when it is of a kind that nothing reads.
    """
    base = PurePath(file.filename or "").name
    suffix = suffix_of(base) or (RAW if what == "label" and base.endswith(RAW) else None)
    if suffix is None:
        raise RequestError(f"{what} is of a kind {' '.join(SUFFIXES)}, got {base!r:.80}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix}"
        with path.open("wb") as copy:
            shutil.copyfileobj(file.file, copy)
        yield str(path)


routes = APIRouter()


@routes.post("/infer/{model}", tags=["Infer"])
def run_infer(
    tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),
    output: ResultType | None = None,
) -> Any:
    """Answer clicks on an image of the studies, of a session, or that comes along.

    Args:
        tasks: run after the answer.
        model: name of the model.
        image: id of the image.
        session_id: id of a session that holds the image.
        params: the request's fields, as JSON.
        file: of the request.
        output: ``image``, ``json``, or ``all`` for both.
    """
    if not (file or image or session_id):
        raise HTTPException(400, "give an image, a file or a session")
    read = read_fields(parse_object(params, "params"), INFER)
    with uploaded(file) if file else nullcontext(image) as source:
        return infer.run_inference(tasks, model, source, session_id, json.dumps(read), None, None, output)


@routes.post("/train/{model}", tags=["Train"])
def run_train(model: str, params: dict | None = Body(None), enqueue: bool = False) -> Any:
    """Train, in a process of its own.

    Args:
        model: name of the model.
        params: the request's fields, as JSON.
        enqueue: left alone: a training always runs beside the server.
    """
    return train.run_model(model, read_fields(params or {}, TRAIN), False, enqueue)


@routes.post("/train/", tags=["Train"])
def run_trainings(params: dict | None = Body(None)) -> Any:
    """Train all there is to train, with parameters by its name; what stands beside them is the client's own id."""
    given = {key: value for key, value in (params or {}).items() if isinstance(value, dict)}
    return train.run({name(key, "model"): read_fields(value, TRAIN) for key, value in given.items()}, False)


@routes.post("/activelearning/{strategy}", tags=["ActiveLearning"])
def run_sample(strategy: str, params: dict | None = Body(None)) -> Any:
    """Return the image to annotate next.

    Args:
        strategy: name of the way to choose the next image.
        params: the request's fields, as JSON.
    """
    return activelearning.sample(strategy, read_fields(params or {}, SAMPLE))


@routes.put("/datastore/", include_in_schema=False)  # as 3D Slicer's client has it
@routes.put("/datastore/image", tags=["Datastore"])
def add_image(image: str | None = None, params: str = Form("{}"), file: UploadFile = File(...)) -> Any:
    """Add an image to the studies.

    Args:
        image: id of the image.
        params: the request's fields, as JSON.
        file: of the request.
    """
    base = PurePath(file.filename or "").name
    image = image or name(base.removesuffix(suffix_of(base) or ""), "the file's name")
    info = plain(parse_object(params, "params"), "params")
    with uploaded(file) as source:
        return {"image": app_instance().datastore().add_image(image, source, info)}


@routes.put("/datastore/label", tags=["Datastore"])
def save_label(
    image: str, params: str = Form("{}"), tag: str = DefaultLabelTag.FINAL.value, label: UploadFile = File(...)
) -> Any:
    """Save a label of an image.

    Args:
        image: id of the image.
        params: the request's fields, as JSON.
        tag: of the label, such as ``final``.
        label: the label's file, or its id.
    """
    info = plain(parse_object(params, "params"), "params")
    with uploaded(label, "label") as source:
        saved = app_instance().datastore().save_label(image, source, tag, info)
    app_instance().on_save_label(image, saved)
    return {"image": image, "label": saved}


@routes.put("/datastore/image/info", tags=["Datastore"])
def put_image_info(image: str, info: str = Form("{}")) -> Any:
    """Note something of an image.

    Args:
        image: id of the image.
        info: about it, as JSON.
    """
    return datastore.update_image_info(image, json.dumps(plain(parse_object(info, "info"), "info")))


@routes.put("/datastore/updatelabelinfo", include_in_schema=False)
@routes.put("/datastore/label/info", tags=["Datastore"])
def put_label_info(label: str, tag: str, info: str = Form("{}"), params: str = Form("{}")) -> Any:
    """Note something of a label, as ``info`` or, in the old route, as ``params``.

    Args:
        label: the label's file, or its id.
        tag: of the label, such as ``final``.
        info: about it, as JSON.
        params: the request's fields, as JSON.
    """
    noted = {**parse_object(params, "params"), **parse_object(info, "info")}
    return datastore.update_label_info(label, tag, json.dumps(plain(noted, "info")))


@routes.put("/session/", tags=["Session"])
def add_session(uncompress: bool = False, expiry: int = 0, files: list[UploadFile] = File(...)) -> Any:
    """Keep an image for a client: one file, several of a series, or an archive of them.

    Args:
        uncompress: whether the file is an archive.
        expiry: seconds until the session ends; 0 is the server's own.
        files: of the session.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        received = Path(folder) / "received"
        received.mkdir()
        for file in files:
            base = name(PurePath(file.filename or "").name, "the file's name")
            if uncompress:
                check_archive(file.file, base)
            with (received / base).open("wb") as copy:
                shutil.copyfileobj(file.file, copy)
        source = received if len(files) > 1 else received / base
        if uncompress:
            shutil.unpack_archive(received / base, Path(folder) / "unpacked")
            source = Path(folder) / "unpacked"
        key, kept = app_instance().sessions().add_session(str(source), min(max(expiry, 0), LONGEST_SESSION))
    return {"session_id": key, "session_info": kept.to_json()}


@routes.put("/model/{model}", include_in_schema=False)
@routes.delete("/model/{model}", include_in_schema=False)
def not_served() -> None:
    """Refuse what changes weights over the network."""
    raise HTTPException(403, "not over the network: weights are files in the folder models of the bundle")


def auth_routes(token: str | None) -> APIRouter:
    """Make the routes by which 3D Slicer asks for a password: any user name, and the token."""
    router = APIRouter(prefix="/auth", tags=["Auth"])

    @router.get("/")
    def enabled() -> dict[str, Any]:
        return {"enabled": token is not None, "client_id": "", "realm": ""}

    @router.post("/token")
    def fetch(password: str = Form("")) -> dict[str, Any]:
        if token is None or not Gate.same(password, token):
            raise HTTPException(401, "wrong password: it is the token that the server was started with")
        return {"access_token": token, "token_type": "bearer"}

    @router.get("/token/valid")
    def valid() -> dict[str, Any]:
        return {"username": os.environ.get("USER", "annotator")}

    return router
