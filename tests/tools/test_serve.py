"""serve.py answers over a real socket, as infer.py would, and survives what is sent to it."""

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmsniper.apis import SNIPERInferencer
from mmsniper.models import AutoFocus, PyramidDetector

ROOT = Path(__file__).resolve().parents[2]
AUTOFOCUS = ROOT / 'configs' / 'autofocus' / 'faster_rcnn_r18_autofocus_toy.py'
LIMIT = 200_000  # bytes


@pytest.fixture(scope='module')
def detect(checkpoint):
    return SNIPERInferencer(AUTOFOCUS, checkpoint, device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Three images, of three formats."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp('images')
    for name, (height, width) in {
        'a.jpg': (170, 250),
        'b.png': (100, 150),
        'c.tif': (90, 60),
    }.items():
        noise = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(noise, (width, height)))
    return sorted(folder.iterdir())


@pytest.fixture
def tool(load_tool):
    return load_tool('serve')


@contextmanager
def served(tool, inferencer, **options):
    with tool.Server(('127.0.0.1', 0), tool.Detector(inferencer, **options), LIMIT) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def port(tool, detect):
    with served(tool, detect) as port:
        yield port


@contextmanager
def connected(port):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection, method, path, body=None, **headers):
    """Status and content of an answer."""
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    assert answer.headers['Content-Type'] == 'application/json'
    return answer.status, json.loads(answer.read())


def post(port, body, path='/detect', **headers):
    with connected(port) as connection:
        return ask(connection, 'POST', path, body, **headers)


def expected(detect, path):
    results = detect(path)
    names = {one['id']: one['name'] for one in results['images']['categories']}
    detections = [
        dict(category=names.get(one['category_id']), **{k: one[k] for k in one if k != 'image_id'})
        for one in results['detections']
    ]
    [about] = results['images']['images']
    return dict(width=about['width'], height=about['height'], detections=detections)


def test_the_answer_is_what_the_inferencer_detects_over_one_connection(port, detect, images):
    with connected(port) as connection:
        for path in images:
            status, answer = ask(connection, 'POST', '/detect', path.read_bytes())
            assert status == 200
            assert answer == expected(detect, path)
            assert answer['detections']


def test_requests_that_come_together_are_all_answered(port, detect, images):
    several = images * 3
    with ThreadPoolExecutor(len(several)) as pool:
        answers = list(pool.map(lambda path: post(port, path.read_bytes()), several))
    assert answers == [(200, expected(detect, path)) for path in several]


def test_weak_detections_are_left_out(tool, detect, images):
    everything = expected(detect, images[0])
    scores = sorted(one['score'] for one in everything['detections'])
    least = scores[len(scores) // 2]
    with served(tool, detect, score_thr=least) as port:
        _, answer = post(port, images[0].read_bytes())
    strong = [one for one in everything['detections'] if one['score'] >= least]
    assert answer['detections'] == strong
    assert 0 < len(strong) < len(scores)


def test_health_tells_the_classes(port):
    with connected(port) as connection:
        status, answer = ask(connection, 'GET', '/health')
        assert (status, answer['status']) == (200, 'ok')
        assert answer['categories'][0]['name'] == 'disc'
        assert ask(connection, 'GET', '/')[0] == 404


def test_what_is_no_image_is_answered_with_the_reason(port, images):
    whole = images[0].read_bytes()
    with connected(port) as connection:
        for body, reason in (
            (b'', 'It is empty'),
            (b'hello', 'It is text, not an image'),
            (whole[: len(whole) // 2], 'a JPEG that is cut short'),
            (b'%PDF-1.4 and so on', 'It is a PDF document'),
        ):
            status, answer = ask(connection, 'POST', '/detect', body)
            assert status == 400
            assert reason in answer['error']
            assert '/tmp' not in answer['error']
        form = {'Content-Type': 'multipart/form-data; boundary=x'}
        status, answer = ask(connection, 'POST', '/detect', b'--x\r\n', **form)
        assert (status, 'curl --data-binary @FILE' in answer['error']) == (400, True)
        assert ask(connection, 'POST', '/', whole)[0] == 404
        assert ask(connection, 'POST', '/detect', whole)[0] == 200


def test_what_is_too_large_is_read_away_and_refused(port, images):
    status, answer = post(port, bytes(3 * LIMIT))
    assert (status, answer['error']) == (
        413,
        'the image has 0.6 MB, and 0.2 MB are accepted (--max-megabytes)',
    )
    # curl asks first, and then does not send it.
    said = talk(port, f'Content-Length: {3 * LIMIT}\r\nExpect: 100-continue\r\n')
    assert said.startswith('HTTP/1.1 413 ')
    assert talk(port, 'Transfer-Encoding: chunked\r\n').startswith('HTTP/1.1 411 ')
    assert talk(port, 'Content-Length: -1\r\n').startswith('HTTP/1.1 411 ')
    assert post(port, images[0].read_bytes())[0] == 200


def talk(port, headers):
    """All that is answered to the head of a request, until the server closes the connection."""
    with socket.create_connection(('127.0.0.1', port), timeout=60) as connection:
        connection.sendall(f'POST /detect HTTP/1.1\r\nHost: x\r\n{headers}\r\n'.encode())
        with connection.makefile('rb') as file:
            return file.read().decode()


def test_a_client_that_goes_or_a_detector_that_fails_ends_nothing(
    port, detect, images, monkeypatch
):
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(b'POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf')
    with monkeypatch.context() as patch:
        patch.setattr(detect, 'detect', lambda loaded: 1 / 0)
        status, answer = post(port, images[0].read_bytes())
    assert (status, answer['error']) == (500, 'ZeroDivisionError: division by zero')
    assert post(port, images[0].read_bytes())[0] == 200


@pytest.fixture
def asked(tool, monkeypatch):
    """The servers that the command has started, each interrupted at once."""

    def interrupted(self):
        asked.append(self)
        raise KeyboardInterrupt

    asked = []
    monkeypatch.setattr(tool.Server, 'serve_forever', interrupted)
    return asked


def test_the_command_serves_until_it_is_interrupted(tool, checkpoint, asked, capsys):
    options = ['--device', 'cpu', '--mode', 'pyramid', '--port', '0', '--max-megabytes', '3']
    tool.main([str(AUTOFOCUS), str(checkpoint), *options])
    [server] = asked
    assert server.max_bytes == 3_000_000
    assert f'http://127.0.0.1:{server.server_address[1]}: POST /detect' in capsys.readouterr().out
    assert not isinstance(server.detector.inferencer.model, AutoFocus)


def test_a_text_names_what_is_looked_for(tool, checkpoint, images, asked, monkeypatch):
    """With a stub of a detector that takes texts: a real one needs transformers."""

    def named(self, text, custom_entities, *_):
        return None, None, None, list(text) if custom_entities else text.split()

    def noted(self, loaded):
        told.extend(one['data_samples'].text for one in loaded)
        return detect(self, loaded)

    told, detect = [], SNIPERInferencer.detect
    monkeypatch.setattr(PyramidDetector, 'get_tokens_positive_and_prompts', named, raising=False)
    monkeypatch.setattr(SNIPERInferencer, 'detect', noted)
    options = [str(AUTOFOCUS), str(checkpoint), '--device', 'cpu', '--port', '0', '--mode']
    entities, sentence = ('ring', 'disc', 'red dog', 'cat'), 'ring disc dog cat'
    for text, means, names in (
        ([' . '.join(entities), '--custom-entities'], entities, list(entities)),
        ([sentence], sentence, sentence.split()),
    ):
        told.clear()
        tool.main([*options, 'pyramid', '--texts', *text])
        answer = asked[-1].detector.detect(str(images[0]))
        assert told == [means]
        assert [one['name'] for one in asked[-1].detector.health['categories']] == names
        assert {one['category'] for one in answer['detections']} <= set(names)


def test_a_text_is_refused_where_nothing_takes_it(tool, checkpoint, asked, capsys):
    options = [str(AUTOFOCUS), str(checkpoint), '--device', 'cpu', '--port', '0']
    with pytest.raises(SystemExit, match='takes no texts'):
        tool.main([*options, '--texts', 'disc . ring'])
    with pytest.raises(SystemExit):
        tool.main([*options, '--custom-entities'])
    assert '--custom-entities says what --texts are' in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(tool, port, checkpoint):
    with pytest.raises(SystemExit) as info:
        tool.main([str(AUTOFOCUS), str(checkpoint), '--device', 'cpu', '--port', str(port)])
    assert f'cannot listen at 127.0.0.1:{port}' in str(info.value)
