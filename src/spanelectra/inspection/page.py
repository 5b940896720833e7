"""The inspector's page and its server, for one person at their own machine.

Every answer is a function of what the browser sends: the server keeps no state, takes requests from this machine alone
and bounds how long and how many they are. The page loads nothing from elsewhere and runs no script but its own.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from html import escape
from string import Template
from typing import Any

from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, MethodNotAllowed, NotFound, TooManyRequests
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from spanelectra.errors import UserError
from spanelectra.inspection.beliefs import DEFAULT_MASK_RATIO, look
from spanelectra.inspection.html_picture import (
    STATIC,
    beliefs_html,
    candidates_html,
    corrections_html,
    html_document,
    notices_html,
    words_html,
)
from spanelectra.inspection.opening import InspectedModel
from spanelectra.inspection.picture import Picture
from spanelectra.inspection.token_texts import printable

LOOPBACK = "127.0.0.1"
MAX_CHARACTERS = 10_000
REQUESTS_PER_SECOND = 10.0
BURST = 20
_MAX_BODY_BYTES = 1 << 17
_STATIC_TYPES = {"/page.js": "text/javascript", "/page.css": "text/css", "/picture.css": "text/css"}
_HEADERS = {
    # data: only for the picture that becomes a PNG
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _LocalRequest(Request):
    """A request that must be addressed to this machine, so that no foreign name can be made to point here."""

    trusted_hosts = [LOOPBACK, "localhost"]  # noqa: RUF012 - the base class declares it
    max_content_length = _MAX_BODY_BYTES


class InspectorPage:
    """The page as a WSGI application.

    ``GET /`` is the page. ``POST /look`` takes JSON: ``text``; ``masked_words``, a list or null for random spans;
    ``seed``; ``mask_ratio``; ``chosen``, position -> token id; and ``typed``, null or ``{position, text}``, a word to
    put there. It gives the picture as data and as HTML, or ``{"error": …}``. ``POST /download`` takes the same and
    gives the picture as an HTML file.

    Args:
        inspected: the model.
        text: to begin with.
        clock: seconds, to count requests by.
    """

    def __init__(self, inspected: InspectedModel, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._inspected = inspected
        self._model_lock = threading.Lock()
        self._limit = _RateLimit(REQUESTS_PER_SECOND, BURST, clock)
        template = Template((STATIC / "page.html").read_text(encoding="utf-8"))
        self._page = template.substitute(
            source=escape(printable(inspected.source)),
            text=escape(text),
            max_characters=MAX_CHARACTERS,
            most_characters=f"{MAX_CHARACTERS:,}",
            notices=notices_html(inspected.notices),
            no_generator="" if inspected.model.generator is not None else " hidden",
            no_corrector="" if getattr(inspected.model.discriminator, "corrector", None) is not None else " hidden",
        )

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        request = _LocalRequest(environ)
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = _json({"error": error.description}, error.code or 500)
        except UserError as error:
            response = _json({"error": str(error)}, 400)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            response = _json({"error": "this is a defect of the inspector; the terminal says more."}, 500)
        response.headers.extend(_HEADERS)
        return response(environ, start_response)

    def _answer(self, request: _LocalRequest) -> Response:
        host = request.host  # raises for any name but this machine's
        if request.path in ("/look", "/download"):
            if request.method != "POST":
                raise MethodNotAllowed(["POST"])
            # a page of somebody else's may not use the model either
            if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
                raise Forbidden("only the inspector's own page may ask.")
            if not self._limit.take():
                raise TooManyRequests("that was too fast: wait a second and try again.", retry_after=1)
            picture = self._look(_read_json(request))
            if request.path == "/download":
                return Response(html_document(picture, self._inspected.source), mimetype="text/html")
            return _json(_as_data(picture))
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(["GET"])
        if request.path == "/":
            return Response(self._page, mimetype="text/html")
        if request.path in _STATIC_TYPES:
            content = (STATIC / request.path.removeprefix("/")).read_text(encoding="utf-8")
            return Response(content, mimetype=_STATIC_TYPES[request.path])
        raise NotFound("there is no such page.")

    def _look(self, asked: dict[str, Any]) -> Picture:
        text = _field(asked, "text", str, "")
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken.")
        words = _field(asked, "masked_words", list, None)
        if words is not None and not all(type(word) is int for word in words):
            raise BadRequest("masked_words is not a list of whole numbers.")
        chosen = _field(asked, "chosen", dict, {})
        if not all(position.isdecimal() and type(token_id) is int for position, token_id in chosen.items()):
            raise BadRequest("chosen does not map positions to whole numbers.")
        settings: dict[str, Any] = {
            "masked_words": words,
            "seed": _field(asked, "seed", int, 0),
            "mask_ratio": float(_field(asked, "mask_ratio", (int, float), DEFAULT_MASK_RATIO)),
            "chosen": {int(position): token_id for position, token_id in chosen.items()},
        }
        typed = _field(asked, "typed", dict, None)
        with self._model_lock:
            picture = look(self._inspected, text, **settings)
            if typed is None:
                return picture
            position = _field(typed, "position", int, 0)
            if not 0 < position < len(picture.tokens) - 1:
                raise UserError(f"token {position} cannot be edited.")
            word = _field(typed, "text", str, "")
            token_id = self._inspected.texts.token_id(word, picture.tokens[position].original)
            settings |= {"masked_words": picture.masked_words, "chosen": picture.chosen | {position: token_id}}
            return look(self._inspected, text, **settings)


def make_page_server(inspected: InspectedModel, text: str, port: int) -> BaseWSGIServer:
    """A server of the page on the loopback address, bound but not running.

    Args:
        inspected: the model.
        text: to begin with.
        port: 0 for any free one; ``server.port`` tells which.

    Raises:
        UserError: for a port that is taken or none.
    """
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: a port is a number from 0, for any free one, to 65535.")
    try:
        listening = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; give another, or 0 for any free one.") from error
    page = InspectorPage(inspected, text)
    with listening:
        # the server takes a copy of the socket
        return make_server(
            LOOPBACK, listening.getsockname()[1], page, True, request_handler=_QuietHandler, fd=listening.fileno()
        )


class _QuietHandler(WSGIRequestHandler):
    """Requests are nobody's news."""

    timeout = 30

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class _RateLimit:
    """Tokens that come at a rate, up to a burst; a request takes one."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._tokens, self._last = float(burst), clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there is one more."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._per_second)
            self._last = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def _read_json(request: Request) -> dict[str, Any]:
    # a form of somebody else's page cannot send this type without asking first
    if request.mimetype != "application/json":
        raise BadRequest("the request is not JSON.")
    try:
        asked = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON.") from None
    if not isinstance(asked, dict):
        raise BadRequest("the request is not a JSON object.")
    return asked


def _field(asked: dict[str, Any], name: str, kind: Any, default: Any) -> Any:
    """A field of the right type, or its default where it is missing or null."""
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRequest(f"{name} is of the wrong type.")
    return value


def _as_data(picture: Picture) -> dict[str, Any]:
    return {
        "picture": dataclasses.asdict(picture),
        "html": {
            "words": words_html(picture),
            "candidates": candidates_html(picture, interactive=True),
            "beliefs": beliefs_html(picture, interactive=True),
            "corrections": corrections_html(picture),
            "notices": notices_html(picture.notices),
        },
    }


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")
