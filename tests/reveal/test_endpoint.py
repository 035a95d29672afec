"""Another model's proposals, against a real HTTP server on this machine: what is sent, what is tried again, what is told."""

import dataclasses
import json
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from reveal_release import config
from reveal_release.config import RevealConfig, RunConfig, UserError
from reveal_release.models import LanguageModel
from reveal_release.reveal import endpoint
from reveal_release.reveal.endpoint import LENGTH, MOST, SHOWN, Endpoint
from reveal_release.reveal.proposals import SOURCES, Context, propose
from reveal_release.reveal.search import search
from reveal_release.tasks import get_task

KEY = "sk-test-0123456789"
WITHOUT = "or, in another --output, leave endpoint out of reveal.sources"
LIST = "1. Name the river.\n2. Ask for a song.\n3. Say it again."


class Server(ThreadingHTTPServer):
    """Gives its `answers` in turn, the last one for ever: (status, body), or None to hang up. Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, str] | None] = [chat(LIST)]
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.server_port}/v1", "proposer")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            return
        self.send_response(answer[0])
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(answer[1].encode())

    def log_message(self, *_: Any) -> None: ...


def chat(content: Any) -> tuple[int, str]:
    return 200, json.dumps({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def refusal(one: Endpoint) -> str:
    """The line of a proposal that fails."""
    with pytest.raises(UserError) as caught:
        one.propose(["Sing."], [], 8)
    line = str(caught.value)
    assert line.startswith(f"reveal.endpoint {one.url} ") and "\n" not in line and KEY not in line
    return line.removeprefix(f"reveal.endpoint {one.url} ")


# ---- what is sent, and what comes back ----


def test_the_request(server: Server) -> None:
    outputs = ["first\nline", "x" * (LENGTH + 50)]
    found = server.endpoint.propose(["Sing {a} song.", "Hum."], outputs, 7)
    assert found == ["Name the river.", "Ask for a song.", "Say it again."]
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}" and headers["content-type"] == "application/json"
    assert body.keys() == {"model", "messages"} and body["model"] == "proposer"
    ((role, content),) = [(m["role"], m["content"]) for m in body["messages"]]
    assert role == "user" and "Write 7 new instructions" in content
    for line in ("- Sing {a} song.", "- Hum.", "- first line", "- " + "x" * LENGTH):
        assert line in content.splitlines()


def test_nothing_is_shown_that_is_not_there_and_no_more_than_asked_is_taken(server: Server) -> None:
    server.answers = [chat("\n".join(f"Sing song {n}." for n in range(99)))]
    assert len(server.endpoint.propose(["Hum."] * 50, [], 3)) == 3
    assert len(server.endpoint.propose(["Hum."], ["la"] * 50, 500)) == MOST
    first, second = (body["messages"][0]["content"] for _, _, body in server.asked)
    assert "drew out:" not in first and first.count("- Hum.") == second.count("- la") == SHOWN
    assert f"Write {MOST} new" in second


def test_a_trailing_slash_and_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint(server.endpoint.url + "/", "m").propose(["Hum."], [], 2) == ["Name the river.", "Ask for a song."]
    path, headers, _ = server.asked[0]
    assert path == "/v1/chat/completions" and "authorization" not in headers


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-é", "sk a"])
def test_a_key_that_no_header_takes_is_not_shown(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="^OPENAI_API_KEY holds a character") as caught:
        server.endpoint.propose(["Hum."], [], 2)
    assert key not in str(caught.value) and not server.asked


# ---- trouble ----


@pytest.mark.parametrize("trouble", [(503, "busy"), (429, "slow down"), (500, ""), None])
def test_passing_trouble_is_tried_again(server: Server, trouble: tuple[int, str] | None) -> None:
    server.answers = [trouble, trouble, chat(LIST)]
    assert len(server.endpoint.propose(["Hum."], [], 3)) == 3
    assert len(server.asked) == 3 and server.asked[0] == server.asked[2]


@pytest.mark.parametrize(
    ("answer", "tries", "words"),
    [
        ((401, KEY), 1, "answered with status 401: set OPENAI_API_KEY"),
        ((404, "{}"), 1, "answered with status 404: give the address up to /v1"),
        ((302, ""), 1, "answered with status 302: see what it says to its log"),
        ((429, ""), 3, "answered with status 429: wait"),
        ((503, ""), 3, f"answered with status 503: see what it says to its log, {WITHOUT}"),
        (None, 3, "cannot be reached"),
        ((200, "<html>"), 1, "answered with no chat completion"),
        ((200, "[]"), 1, "answered with no chat completion"),
        ((200, '{"choices": []}'), 1, "answered with no chat completion"),
        (chat(None), 1, "answered with no chat completion"),
        (chat(""), 1, "wrote no list of instructions ('')"),
        (chat("I am sorry, \x1b[31mbut\nno."), 1, "wrote no list of instructions ('I am sorry, \\x1b[31mbut no.')"),
    ],
)
def test_trouble_that_stays_is_one_line(server: Server, answer: tuple[int, str] | None, tries: int, words: str) -> None:
    server.answers = [answer]
    assert refusal(server.endpoint).startswith(words)
    assert len(server.asked) == tries


def test_nobody_there() -> None:
    with Server() as closed:
        nowhere = closed.endpoint
    assert refusal(nowhere).startswith("cannot be reached (") and refusal(nowhere).endswith("reveal.sources")
    with pytest.raises(UserError, match=r"cannot be reached \("):
        nowhere.check()


def test_whatever_answers_is_there(server: Server) -> None:
    server.endpoint.check()
    assert not server.asked, "for no completion"


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://a..b/v1"])
def test_an_address_that_is_none(url: str) -> None:
    assert refusal(Endpoint(url, "m")).startswith("cannot be reached (")


def test_a_proxy_that_cannot_be_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://localhost:1")
    assert refusal(server.endpoint).startswith("cannot be reached (")
    with pytest.raises(UserError, match=r"cannot be reached \("):
        server.endpoint.check()


# ---- in the search ----


def test_as_a_source(server: Server, lm: LanguageModel) -> None:
    context = Context(lm, ("Write a comment.",), endpoint=server.endpoint)
    assert propose(context, ("endpoint",), 8, {"name the river"}) == ["Ask for a song.", "Say it again."]
    assert "- Write a comment." in server.asked[0][2]["messages"][0]["content"]
    assert SOURCES["endpoint"](Context(lm, ()), 8) == []


def test_a_search_asks_the_endpoint_with_what_it_found(server: Server, lm: LanguageModel) -> None:
    rng = random.Random(0)
    nouns = "river bridge song letter train report music town market north".split()
    server.answers = [chat("\n".join(f"Say {rng.choice(nouns)} {rng.choice(nouns)} {n}." for n in range(9))) for _ in range(9)]
    settings = RevealConfig(
        evaluations=8, samples=2, start=4, batch=4, candidates=8, finalists=2, final_samples=2,
        sources=("endpoint",), endpoint=server.endpoint.url, endpoint_model="proposer",
    )  # fmt: skip
    task = get_task("toxicity", RunConfig(task="toxicity"))
    found = search(lm, task, settings, seed=3)
    assert len(found.history) == 8 and all(text.startswith("Say ") for text, _, _ in found.history)
    first, *_, last = (body["messages"][0]["content"] for _, _, body in server.asked)
    assert task.seeds[0] in first and "drew out:" not in first
    assert any(f"- {text}" in last for text, _, _ in found.history) and "drew out:" in last


# ---- settings ----


def test_the_names_of_the_sources_are_those_that_there_are() -> None:
    assert tuple(SOURCES) == config.SOURCES


def test_never_asked_by_default() -> None:
    assert "endpoint" not in RevealConfig().sources


def endpoint_settings(url: str, model: str = "m") -> RunConfig:
    return RunConfig(reveal=RevealConfig(sources=("seeds", "endpoint"), endpoint=url, endpoint_model=model))


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://api.openai.com/v1/", "http://127.0.0.1:1"])
def test_addresses(url: str) -> None:
    endpoint_settings(url).check()
    with pytest.raises(UserError, match="endpoint_model is empty"):
        endpoint_settings(url, "").check()
    with pytest.raises(UserError, match="never asked"):
        dataclasses.replace(RunConfig(), reveal=RevealConfig(endpoint=url)).check()


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://me:secret@host/v1", "http://h/v1?key=secret"]
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(UserError, match="reveal.endpoint is no base address") as caught:
        endpoint_settings(url).check()
    assert "secret" not in str(caught.value)
