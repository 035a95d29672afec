"""Instructions from another model, behind an OpenAI-compatible chat-completions endpoint (OpenAI's own, vLLM, llama.cpp, Ollama).

    Endpoint("http://localhost:8000/v1", "NAME").propose(best, outputs, 20)

For those who want a stronger proposer; asked only where `reveal.sources` names `endpoint`. The best instructions and what they
drew out are sent there. The key is taken from the environment variable OPENAI_API_KEY and goes into the request's header alone;
no redirection is followed, and without a key none is sent.

Not reproducible: an endpoint answers the same request otherwise the next time, whatever the run's seed. A finished search is kept
in the run folder, so a resumed run goes on with what was found; only a search that was cut short asks again.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx2

from ..config import UserError
from ..metrics.instructions import instructions

MOST = 50
"""Instructions asked for at once: a longer list comes slowly and repeats itself."""
SHOWN = 8
LENGTH = 300
"""Characters of an output that are shown."""
TIMEOUT = httpx2.Timeout(180.0, connect=10.0)  # seconds; a local server may be slow to answer, but not to be reached
PAUSES = (2.0, 8.0)  # seconds before each new try

REQUEST = """\
These instructions make a language model answer in a certain way, the first of them most reliably:
{best}
{drawn}
Write {count} new instructions that could draw out such answers again. Let half of them rewrite or vary the instructions above,
and half be guesses at what else such answers could reply to. Give one instruction a line, of 2 to 40 words, and nothing else."""
DRAWN = """
Answers that they drew out:
{}
"""
_WITHOUT = "or, in another --output, leave endpoint out of reveal.sources"
_CURES = {
    401: "set OPENAI_API_KEY to its key",
    403: "set OPENAI_API_KEY to a key that may use the model",
    404: "give the address up to /v1, and in reveal.endpoint_model a model that it has",
    429: f"wait until it takes requests again, {_WITHOUT}",
}


FAILURES = (httpx2.RequestError, httpx2.InvalidURL, ImportError, ValueError)
"""Where no answer comes: the last two for a proxy in the environment that cannot be used, or a host that is no name."""


@dataclass(frozen=True)
class Endpoint:
    """url: the base, to which `/chat/completions` is added. model: as the endpoint names it."""

    url: str
    model: str

    def check(self) -> None:
        """Raises UserError where nothing listens at the address."""
        for _ in _tries():
            try:
                httpx2.get(self.url, timeout=TIMEOUT)  # whatever it answers
                return
            except FAILURES as error:
                trouble = self._unreachable(error)
        raise trouble

    def propose(self, best: Sequence[str], outputs: Sequence[str], count: int) -> list[str]:
        """Up to `count`, and up to `MOST`, new instructions, from the best so far and what they drew out, both best first.

        Raises:
            UserError: it cannot be reached, refuses, or its answer holds no instruction.
        """
        count = min(count, MOST)
        drawn = DRAWN.format(listed(outputs)) if outputs else ""
        text = self._answer(REQUEST.format(best=listed(best), drawn=drawn, count=count))
        found = instructions(text)
        if len(found) < min(2, count):  # one line is a refusal, or talk
            cause = f"wrote no list of instructions ({_shown(text)!r})"
            raise self._error(cause, f"name another reveal.endpoint_model, {_WITHOUT}")
        return found[:count]

    def _answer(self, request: str) -> str:
        """The answer to one user turn; tried again where the trouble may pass."""
        body = {"model": self.model, "messages": [{"role": "user", "content": request}]}
        address = self.url.rstrip("/") + "/chat/completions"
        for _ in _tries():
            try:
                response = httpx2.post(address, json=body, headers=_key(), timeout=TIMEOUT)
            except FAILURES as error:
                trouble = self._unreachable(error)
            else:
                if response.is_success:
                    return self._content(response)
                cure = _CURES.get(response.status_code, f"see what it says to its log, {_WITHOUT}")
                trouble = self._error(f"answered with status {response.status_code}", cure)
                if response.status_code != 429 and response.status_code < 500:
                    break
        raise trouble

    def _content(self, response: httpx2.Response) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            cure = f"give the address up to /v1 of an OpenAI-compatible server, {_WITHOUT}"
            raise self._error("answered with no chat completion", cure)
        return content

    def _unreachable(self, error: Exception) -> UserError:
        why = _shown(str(error)) or type(error).__name__
        return self._error(f"cannot be reached ({why})", f"start it, mend the address, {_WITHOUT}")

    def _error(self, cause: str, cure: str) -> UserError:
        return UserError(f"reveal.endpoint {self.url} {cause}: {cure}")


def _tries() -> Iterator[None]:
    """Once, and again after each of `PAUSES`."""
    yield
    for pause in PAUSES:
        time.sleep(pause)
        yield


def listed(texts: Sequence[str]) -> str:
    """The first `SHOWN` of the texts as a list, each on one line and cut."""
    return "\n".join("- " + " ".join(text.split())[:LENGTH] for text in texts[:SHOWN])


def _key() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if re.search(r"[^!-~]", key):  # here, as the library would show the whole header
        raise UserError("OPENAI_API_KEY holds a character that no key has: set it again")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _shown(text: str) -> str:
    """The start of what a server said, on one line."""
    return " ".join(text.split())[:80]
