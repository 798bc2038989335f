# SPDX-License-Identifier: Apache-2.0
"""Errors that reach the annotator as one sentence."""

from scripts.errors import InputError


class RequestError(ValueError):
    """A client asks for what there is not."""


def sentence_of(error: BaseException) -> str | None:
    """Find what an error says to a user, however deep it is wrapped; nothing where it is a fault of the server."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (RequestError, InputError)):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
