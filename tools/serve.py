"""Serve a detector over HTTP: an image in the body of a request, its detections in the answer.

POST /detect with the bytes of an image file, of any format that the config loads, gives

    {"width": 640, "height": 480, "detections": [{"category_id": 1, "category": "cell",
     "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.98}, ...]}

with boxes as COCO has them, x, y, width, height in pixels of the image, and of a detector with
masks segmentation, a COCO RLE. GET /health gives the classes, as soon as detections can be asked
for. What cannot be done is answered by {"error": "why"}: 400 for what is no image, 411 and 413 for
a body without a length or beyond --max-megabytes, 500 where the detector fails.

Requests may come together; images are seen one after the other. For several GPUs start a server for
each. There is no password and no encryption: leave that, and the internet, to a proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import NamedTemporaryFile
from typing import Any

# Read when torch is loaded, see tools/_launch.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from _detector import add_detector_arguments, build_inferencer, check_detector_arguments

from mmsniper.apis import SNIPERInferencer
from mmsniper.apis.results import content_of
from mmsniper.convert import load_config
from mmsniper.datasets.image_faults import ImageFileError, image_fault
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
)

DETECT, HEALTH = '/detect', '/health'
_ANSWERED = f'there are GET {HEALTH} and POST {DETECT}'
_PIECE = 2**20  # bytes that are read at a time
_READ_AWAY = 10  # times the largest body, of one that is too large


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_detector_arguments(parser)
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 answers other machines too')
    parser.add_argument('--port', type=at_least(0), default=8000, help='0 takes one that is free')
    parser.add_argument(
        '--score-thr', type=float, default=0.0, metavar='S', help='least score of what is answered'
    )
    parser.add_argument(
        '--max-megabytes',
        type=at_least(1),
        default=64,
        metavar='MB',
        help='largest image file; how many pixels it may have is OPENCV_IO_MAX_IMAGE_PIXELS',
    )
    add_config_arguments(parser, None)
    args = parser.parse_args(argv)
    check_detector_arguments(parser, args)
    return args


class RequestError(Exception):
    """A request that cannot be answered as it was meant.

    Args:
        status (HTTPStatus): What the answer says.
        why (str): The reason, for whoever has sent it.
    """

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Detector:
    """A detector that many threads may ask: it sees the images in a thread of its own.

    Args:
        inferencer (SNIPERInferencer): The detector.
        score_thr (float): Least score of what it tells. Defaults to 0.
    """

    def __init__(self, inferencer: SNIPERInferencer, score_thr: float = 0.0) -> None:
        self.inferencer = inferencer
        self.score_thr = score_thr
        # PyTorch keeps helper threads for every thread that calls it: let that be one.
        self._thread = ThreadPoolExecutor(max_workers=1)

    @property
    def health(self) -> dict[str, Any]:
        """Status and classes."""
        classes = self.inferencer.classes
        categories = [dict(id=key, name=name) for key, name in zip(classes.ids, classes.names)]
        return dict(status='ok', categories=categories)

    def detect(self, path: str) -> dict[str, Any]:
        """Detect in an image file.

        Args:
            path (str): The file.

        Returns:
            dict: ``width``, ``height`` and ``detections``, as the answer has them.

        Raises:
            RequestError: If it is no image that the config loads.
        """
        return self._thread.submit(self._detect, path).result()

    def _detect(self, path: str) -> dict[str, Any]:
        try:
            loaded = self.inferencer.pipeline(path)
        except Exception as error:  # of whatever kind: it is the image's
            raise RequestError(HTTPStatus.BAD_REQUEST, _fault(error, path)) from error
        [sample] = self.inferencer.detect([loaded])
        classes = self.inferencer.classes
        content = content_of(sample, classes)
        labels = sample.pred_instances.labels.tolist()
        detections = [
            dict(found, category=classes.name(label))
            for label, found in zip(labels, content['detections'])
            if found['score'] >= self.score_thr
        ]
        return dict(width=content['width'], height=content['height'], detections=detections)


def _fault(error: Exception, path: str) -> str:
    """Why an image that was sent cannot be loaded; its name here says nothing to the sender."""
    fault = image_fault(path, 'what is sent') if isinstance(error, ImageFileError) else ''
    first = fault or str(error).strip().partition('\n')[0] or type(error).__name__
    return first.replace(path, 'the image')


class Handler(BaseHTTPRequestHandler):
    """One connection; a :class:`Server` has what it answers by."""

    server: Server
    protocol_version = 'HTTP/1.1'  # a client may send many images over one connection
    timeout = 60  # seconds without a byte, after which a connection is given up

    def do_GET(self) -> None:
        if self.path == HEALTH:
            self._answer(HTTPStatus.OK, self.server.detector.health)
        else:
            self._answer(HTTPStatus.NOT_FOUND, _error(_ANSWERED))

    def do_POST(self) -> None:
        try:
            self._answer(HTTPStatus.OK, self._detected())
        except RequestError as error:
            self._answer(error.status, _error(str(error)))
        except (ConnectionError, TimeoutError):  # the client has gone
            self.close_connection = True
        except Exception as error:  # of whatever kind: the next image is to be answered
            self.close_connection = True
            what = f'{type(error).__name__}: {error}'
            self.log_error('%s', what)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, _error(what.partition('\n')[0]))

    def handle_expect_100(self) -> bool:
        """Answer a client that asks before it sends the body."""
        try:
            self._length()
        except RequestError as error:
            self._answer(error.status, _error(str(error)))
            return False
        return super().handle_expect_100()

    def _length(self) -> int:
        """Bytes of the body.

        Raises:
            RequestError: If it is none that is accepted. The connection is closed then.
        """
        said, largest = self.headers.get('Content-Length', ''), self.server.max_bytes
        if not (said.isascii() and said.isdecimal()):
            self.close_connection = True
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, 'Content-Length is missing')
        if int(said) > largest:
            self.close_connection = True
            limit = f'{largest / 1e6:g} MB are accepted (--max-megabytes)'
            why = f'the image has {int(said) / 1e6:.1f} MB, and {limit}'
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
        return int(said)

    def _pieces(self, length: int) -> Iterator[bytes]:
        """The body, as it comes."""
        while length > 0:
            piece = self.rfile.read(min(length, _PIECE))
            if not piece:
                raise ConnectionError('the body is not complete')
            length -= len(piece)
            yield piece

    def _detected(self) -> dict[str, Any]:
        """What is detected in the image of the body."""
        try:
            length = self._length()
        except RequestError as error:
            if error.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                # Many clients read no answer before they have sent all.
                said = int(self.headers['Content-Length'])
                deque(self._pieces(min(said, _READ_AWAY * self.server.max_bytes)), maxlen=0)
            raise
        with NamedTemporaryFile() as file:
            file.writelines(self._pieces(length))
            file.flush()
            if self.path != DETECT:
                raise RequestError(HTTPStatus.NOT_FOUND, _ANSWERED)
            if self.headers.get_content_maintype() == 'multipart':
                why = 'send the bytes of the image alone, such as by curl --data-binary @FILE'
                raise RequestError(HTTPStatus.BAD_REQUEST, why)
            return self.server.detector.detect(file.name)

    def _answer(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode() + b'\n'
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        if self.close_connection:
            self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(body)


def _error(why: str) -> dict[str, str]:
    return dict(error=why)


class Server(ThreadingHTTPServer):
    """Answers requests by a detector.

    Args:
        address (tuple[str, int]): Host and port.
        detector (Detector): The detector.
        max_bytes (int): Largest image file.

    Raises:
        OSError: If the address cannot be had.
    """

    request_queue_size = 128  # connections that wait to be taken

    def __init__(self, address: tuple[str, int], detector: Detector, max_bytes: int) -> None:
        try:
            super().__init__(address, Handler)
        except OSError as error:
            where = ':'.join(map(str, address))
            raise OSError(
                f'cannot listen at {where}: {error.strerror}. Choose another --port'
            ) from error
        self.detector, self.max_bytes = detector, max_bytes


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    inferencer = build_inferencer(load_config(args.config, args.cfg_options), args)
    if inferencer.classes.doubt:
        print(f'warning: {inferencer.classes.doubt}', file=sys.stderr)
    detector = Detector(inferencer, args.score_thr)
    with Server((args.host, args.port), detector, args.max_megabytes * 10**6) as server:
        host, port = server.server_address[:2]
        print(f'http://{host}:{port}: POST {DETECT}, GET {HEALTH}; Ctrl+C ends it', flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` is as Ctrl+C
    main()
