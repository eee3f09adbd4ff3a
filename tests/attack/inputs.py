"""Requests that are built to cost more than they should, each as the bytes that are sent.

This module owns what is sent and which answers are right. `size` is the length of the repeated
part.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

LONGEST_HEAD = 60 * 1024  # bytes: the daemon refuses longer heads before it looks at them
UNTOUCHED, FILTERED = "a", "b"  # the daemon changes the body of requests for the second model
REFUSED = (400, 403, 404, 413, 415, 431)
DONE = (200, 301, 302, 307, 308)


@attrs.frozen
class Input:
    """One request, or several on one connection.

    Attributes:
        name: the name in the table.
        data: the bytes that are sent.
        answers: the statuses that are right; only the status of the first answer counts.
    """

    name: str
    data: bytes
    answers: tuple[int, ...] = (*DONE, *REFUSED)


def request(method: str, target: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    """Return a request with the Host localhost; a POST also has the length of its body."""
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"host: localhost", *headers]
    if method == "POST":
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"connection: close", b"", body])


def post(body: bytes, kind: bytes = b"application/json") -> bytes:
    return request("POST", b"/v1/chat/completions", body, b"content-type: " + kind)


def inputs(size: int) -> Iterator[Input]:
    """Yield all inputs; bodies have about `size` bytes."""
    head = min(size, LONGEST_HEAD)
    yield from paths(head)
    yield from headers(head)
    yield from bodies(size)
    yield from forms(size)
    yield from frames(head)


def paths(size: int) -> Iterator[Input]:
    for name, unit in {
        "escaped slashes": b"%2f",
        "dots": b"../",
        "escaped dots": b"%2e%2e/",
        "slashes": b"/",
        "suffixes": b".j",
        "twice escaped": b"%25",
        "letters of a name": b"x/",
        "colons": b"x:",
        "half an escape": b"%",
        "semicolons": b";",
    }.items():
        path = unit * (size // len(unit))
        yield Input(f"/upstream/ and {name}", request("GET", b"/upstream/" + path))
        yield Input(f"/upstream/a/ and {name}", request("GET", b"/upstream/a/" + path))
    yield Input("/ and slashes", request("GET", b"/" * size))
    yield Input("/v1/responses/ and a long id", request("GET", b"/v1/responses/" + b"x" * size))
    yield Input("a query of many fields", request("GET", b"/props?" + b"a=1&" * (size // 4)))
    yield Input("a query of escapes", request("GET", b"/props?model=" + b"%41" * (size // 3)))
    yield Input("a long model of /api", request("POST", b"/api/models/load/" + b"x/" * (size // 2)))


def headers(size: int) -> Iterator[Input]:
    values = {
        b"accept": (b"a/b;q=0.1,", b"*/*,", b";q", b","),
        b"origin": (b"http://a.", b"x"),
        b"via": (b"1.1 a, ", b","),
        b"authorization": (b"Bearer ", b"Basic QUFB"),
        b"x-forwarded-for": (b"1.2.3.4, ",),
        b"content-type": (b"multipart/form-data; boundary=a; ", b'a="\\'),
        b"connection": (b"x, ", b"close, "),
        b"sec-websocket-protocol": (b"openai-insecure-api-key.a, ",),
        b"access-control-request-headers": (b"a, ",),
        b"cookie": (b"a=b; ",),
    }
    for name, units in values.items():
        for unit in units:
            text = name + b": " + unit * (size // len(unit))
            label = f"{name.decode()} of {unit.decode()!r}"
            yield Input(label, request("GET", b"/v1/models", b"", text.rstrip()))
    many = [b"x-%d: y" % number for number in range(size // 10)]
    yield Input("many headers", request("GET", b"/v1/models", b"", *many))
    for host in (b"a..b", b".", b"a" * size, b"a." * (size // 2), b"[::1", b"1" * size, b"\xff"):
        text = b"GET /running HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n"
        yield Input(f"host {host[:12].decode('latin-1')!r}, {len(host)} bytes", text, REFUSED)


def bodies(size: int) -> Iterator[Input]:
    for name, value in {
        "objects": b"[" + b"{}," * (size // 3) + b"0]",
        "depth": b"[" * (size // 2) + b"]" * (size // 2),
        "depth of objects": b'{"a":' * (size // 6) + b"0" + b"}" * (size // 6),
        "texts": b"[" + b'"",' * (size // 3) + b"0]",
        "numbers": b"[" + b"0," * (size // 2) + b"0]",
        "escapes": b'"' + b"\\u0041" * (size // 6) + b'"',
        "quotes": b'"' + b'\\"' * (size // 2) + b'"',
        "backslashes": b'"' + b"\\\\" * (size // 2) + b'"',
        "digits": b"1" * size,
        "an exponent": b"1e" + b"9" * size,
        "blanks": b" " * size + b"0",
        "one text": b'"' + b"x" * size + b'"',
        "brackets without an end": b"[" * size,
    }.items():
        for model in (UNTOUCHED, FILTERED):
            body = b'{"model": "%s", "x": %s}' % (model.encode(), value)
            yield Input(f"JSON of {name} for {model}", post(body))
    keys = b",".join(b'"k%d":0' % number for number in range(size // 12))
    yield Input("JSON of keys for b", post(b'{"model": "b", ' + keys + b"}"))
    again = b'"model": "a", ' * (size // 14)
    yield Input("JSON of models", post(b"{" + again + b'"model": "a"}'))
    yield Input(
        "JSON of soft keys",
        post(b'{"model": "b", ' + b'"max_tokens": 1, ' * (size // 17) + b'"x": 0}'),
    )
    yield Input("a long model", post(b'{"model": "' + b"x" * size + b'"}'))
    yield Input("no JSON", post(b"\x00" * size))


def forms(size: int) -> Iterator[Input]:
    coded = b"application/x-www-form-urlencoded"
    for name, text in {
        "escapes": b"model=" + b"%41" * (size // 3),
        "fields": b"a=1&" * (size // 4) + b"model=a",
        "ampersands": b"&" * size,
        "models": b"model=a&" * (size // 8),
        "nearly models": b"&mode" * (size // 5),
    }.items():
        yield Input(f"a form of {name}", post(text, coded))
    multipart = b"multipart/form-data; boundary="
    part = b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    model = part.replace(b'"a"', b'"model"').replace(b"\r\n1\r\n", b"\r\na\r\n")
    for name, text in {
        "parts": part * (size // len(part)) + model + b"--X--\r\n",
        "models": model * (size // len(model)) + b"--X--\r\n",
        "dashes": b"-" * size,
        "nearly boundaries": b"\r\n--Y" * (size // 5),
        "boundaries": b"--X\r\n" * (size // 5),
        "one header": b"--X\r\nContent-Disposition: " + b"a" * size,
        "parameters": b"--X\r\nContent-Disposition: form-data" + b"; a=b" * (size // 5),
        "file": part.replace(b'"a"', b'"f"; filename="x"').rstrip()
        + b"x" * size
        + b"\r\n"
        + model
        + b"--X--\r\n",
    }.items():
        yield Input(f"a multipart form of {name}", post(text, multipart + b"X"))


def frames(size: int) -> Iterator[Input]:
    chunked = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    body = b'{"model": "a"}'
    small = b"".join(b"1\r\n%c\r\n" % letter for letter in b" " * (size // 6) + body) + b"0\r\n\r\n"
    yield Input("chunks of one byte", chunked + small)
    yield Input(
        "a chunk with a long extension", chunked + b"1;" + b"x" * size + b"\r\n \r\n0\r\n\r\n"
    )
    yield Input("a chunk with a long size", chunked + b"0" * size + b"1\r\n \r\n0\r\n\r\n")
    one = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = request("GET", b"/health")
    yield Input("many requests at once", one * (size // len(one)) + last, (200,))
    yield Input("blank lines", b"\r\n" * (size // 2) + last)
