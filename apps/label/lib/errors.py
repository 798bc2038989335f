# SPDX-License-Identifier: Apache-2.0
"""Errors that reach the annotator as one sentence."""


class RequestError(ValueError):
    """A client asks for what there is not."""


def sentence_of(error: BaseException) -> str | None:
    """Find what an error says to a user, however deep the server wrapped it; nothing where it is a fault of the server.

    The bundle's InputError is told by its name, since MONAI Label imports a bundle's modules more than once.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RequestError) or type(cause).__name__ == "InputError":
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
