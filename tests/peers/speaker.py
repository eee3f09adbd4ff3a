"""A model server that says "Hello there" in the full event forms of OpenAI's and Anthropic's APIs.

``python -I -S tests/peers/speaker.py --port P``. ``--ready-after`` counts from its exec. The
server answers streams only, each on its own connection.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

BEGAN = time.monotonic()
Json = dict[str, Any]
WORDS = ("Hello ", "there")
ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}


def event(data: Json, name: str = "") -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n"


def chat() -> str:
    whole: Json = {
        "id": "chat_real",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "x",
    }
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in WORDS]
    choices: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return "".join(event({**whole, "choices": [one]}) for one in choices) + "data: [DONE]\n\n"


def completions() -> str:
    whole = {"id": "cmpl_real", "object": "text_completion", "created": 1, "model": "x"}
    choices = [{"index": 0, "text": word, "finish_reason": None} for word in WORDS]
    return "".join(event({**whole, "choices": [one]}) for one in choices) + "data: [DONE]\n\n"


def messages() -> str:
    message = {"id": "msg_real", "type": "message", "role": "assistant", "model": "x"}
    usage = {"input_tokens": 1, "output_tokens": 1}
    start: Json = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    said: list[Json] = [{"type": "message_start", "message": start}]
    said.append({"type": "content_block_start", **block})
    said += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in WORDS
    ]
    said.append({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    said.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 2}})
    said.append({"type": "message_stop"})
    return "".join(event(one, one["type"]) for one in said)


def responses() -> str:
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item = {**ITEM, "content": [text]}
    empty = {**ITEM, "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    said: list[Json] = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **place, "part": {**text, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": word} for word in WORDS),
        {"type": "response.output_text.done", **place, "text": "".join(WORDS)},
        {"type": "response.content_part.done", **place, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response("completed", [item])},
    ]
    numbered = ({**one, "sequence_number": number} for number, one in enumerate(said))
    return "".join(event(one, one["type"]) for one in numbered)


def response(status: str, output: list[Json]) -> Json:
    whole = {"id": "resp_real", "object": "response", "created_at": 1, "model": "x"}
    tools = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
    return {**whole, **tools, "status": status, "output": output}


ANSWERS = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/messages": messages,
    "/v1/responses": responses,
}


def serve(connection: socket.socket, ready_after: float) -> None:
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        path = head.split()[1].decode()
        status, body = 200, ""
        if path in ANSWERS:
            body = ANSWERS[path]()
        elif time.monotonic() - BEGAN < ready_after:
            status = 503
        connection.sendall(
            f"HTTP/1.1 {status} OK\r\nContent-Type: text/event-stream\r\n"
            f"Connection: close\r\n\r\n{body}".encode()
        )


def main(arguments: list[str]) -> None:
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    listener = socket.create_server(("127.0.0.1", int(options["--port"])))
    ready_after = float(options.get("--ready-after", 0))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, ready_after), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
