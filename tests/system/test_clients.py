"""OpenAI's and Anthropic's own clients work, with their helpers that check a stream's order.

Their model server sends these APIs' full forms of events, and starts slowly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import STUB
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, write

SPEAKER = STUB.with_name("speaker.py")
HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Serve a model that starts slowly and one that fails, with loading messages meanwhile."""
    command = f"{sys.executable} -I -S {SPEAKER} --port ${{PORT}}"
    proxy = "http://127.0.0.1:${PORT}"
    models = {
        "speaker": {"cmd": f"{command} --ready-after 0.4", "proxy": proxy},
        "mute": stub("--exit", "3", "--exit-after", "0.2"),
    }
    folder = tmp_path_factory.mktemp("clients")
    file = write(folder, models=models, sendLoadingState=True, apiKeys=["sk-test"])
    with started("--config", file) as found:
        yield found


@pytest.fixture
def cold(daemon: Process) -> Process:
    """Stop the model, so that each stream begins with the loading messages."""
    with anthropic.Anthropic(base_url=url(daemon), api_key="sk-test") as client:
        client.post("/api/models/unload", cast_to=object)
    return daemon


def url(daemon: Process) -> str:
    return f"http://127.0.0.1:{daemon.port}"


@pytest.fixture
def gpt(daemon: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url(daemon)}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(daemon: Process) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url(daemon), api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.mark.usefixtures("cold")
def test_openais_chat_helper_reads_the_loading_as_thinking(gpt: openai.OpenAI) -> None:
    """The helper reads the model's own message after the loading messages."""
    with gpt.chat.completions.stream(model="speaker", messages=HI) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.role, message.content) == ("assistant", "Hello there")
    assert "loading model: speaker" in str(message.to_dict()["reasoning_content"])


@pytest.mark.usefixtures("cold")
def test_openais_responses_helper_is_not_disturbed(gpt: openai.OpenAI) -> None:
    """The helper accepts no event before the response's own first event."""
    with gpt.responses.stream(model="speaker", input="hi") as stream:
        response = stream.get_final_response()
    assert (response.id, response.output_text) == ("resp_real", "Hello there")


@pytest.mark.usefixtures("cold")
def test_openais_completions_are_not_disturbed(gpt: openai.OpenAI) -> None:
    """The loading messages have no text for completions."""
    stream = gpt.completions.create(model="speaker", prompt="hi", stream=True)
    assert "".join(piece.choices[0].text for piece in stream) == "Hello there"


@pytest.mark.usefixtures("cold")
def test_anthropics_messages_helper_is_not_disturbed(claude: anthropic.Anthropic) -> None:
    """Anthropic's API allows pings at any time."""
    with claude.messages.stream(model="speaker", max_tokens=9, messages=HI) as stream:
        message = stream.get_final_message()
    assert message.id == "msg_real"
    assert message.content[0].to_dict()["text"] == "Hello there"


def test_a_failure_while_it_loads_is_an_exception_with_the_reason(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    """In every API the stream ends with the reason as an error, although its status was 200."""
    with pytest.raises(openai.APIError, match="the stub gives up"):
        list(gpt.chat.completions.create(model="mute", messages=HI, stream=True))
    with pytest.raises(openai.APIError, match="the stub gives up"):
        list(gpt.completions.create(model="mute", prompt="hi", stream=True))
    with pytest.raises(openai.APIError, match="the stub gives up"):
        list(gpt.responses.create(model="mute", input="hi", stream=True))
    with (
        pytest.raises(anthropic.APIError, match="the stub gives up"),
        claude.messages.stream(model="mute", max_tokens=9, messages=HI) as stream,
    ):
        stream.get_final_message()


def test_refusals_are_the_exceptions_that_clients_know(daemon: Process) -> None:
    """Examples are an unknown model and a wrong key."""
    with (
        openai.OpenAI(base_url=f"{url(daemon)}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="unknown"),
    ):
        client.models.list()
    with anthropic.Anthropic(base_url=url(daemon), api_key="sk-test", max_retries=0) as claude:
        with pytest.raises(anthropic.NotFoundError, match="did you mean 'speaker'") as caught:
            claude.messages.create(model="speakr", max_tokens=9, messages=HI)
        assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
        assert [model.id for model in claude.models.list()] == ["mute", "speaker"]


def test_a_single_model_is_looked_up(gpt: openai.OpenAI) -> None:
    """A client can look up a model by its id."""
    assert gpt.models.retrieve("speaker").owned_by == "llamadoze"
    with pytest.raises(openai.NotFoundError, match="no model is called 'nobody'"):
        gpt.models.retrieve("nobody")
