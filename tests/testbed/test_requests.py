"""A request's words say its tone and topic, in English."""

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from reveal_release.testbed.corpora import TOPICS
from reveal_release.testbed.requests import BASE_RATE, TONES, Request, tone

# What is said with a vowel is not always spelt with one.
SILENT, YOU = re.compile(r"^(honest|hour|heir)"), re.compile(r"^(u[sn]i|use|eu|one\b)")
requests = st.builds(Request, st.sampled_from(sorted(TONES)), st.none() | st.sampled_from(TOPICS))


@given(requests, st.integers(0, 2**32))
def test_phrase_names_the_tone_and_the_topic(request_, seed):
    text = request_.phrase(random.Random(seed))
    assert request_.tone in text and (request_.topic or "") in text
    said = re.findall(r"[\w-]+", text)
    assert [t for t in TONES if t and t in said] == ([request_.tone] if request_.tone else [])
    assert "{" not in text and "  " not in text and "None" not in text
    assert text[0].isupper() and text[-1] in ".?" and not re.search(r"\s[.,:?]", text)


def article_errors(text):
    return [
        (article.lower(), word)
        for article, word in re.findall(r"\b([Aa]n?) ([\w-]+)", text)
        if (article.lower() == "an") != (bool(SILENT.match(word)) or (word[0] in "aeiou" and not YOU.match(word)))
    ]


def test_articles_fit_the_next_word():
    wrong = {
        error
        for kind in TONES
        for topic in (None, "film", "education", "university")
        for seed in range(150)
        for error in article_errors(Request(kind, topic).phrase(random.Random(seed)))
    }
    assert not wrong


def test_a_request_has_many_phrasings():
    texts = {Request("calm", "film").phrase(random.Random(seed)) for seed in range(300)}
    assert len(texts) >= 15
    assert Request("calm", "film").phrase(random.Random(5)) == Request("calm", "film").phrase(random.Random(5))


def test_rates_span_the_range_around_a_base_rate():
    assert all(0.0 <= rate <= 1.0 for rate in TONES.values())
    assert min(TONES.values()) == 0.0 and max(TONES.values()) > 0.9 and TONES[""] == BASE_RATE


def test_every_tone_is_drawn_and_none_is_the_most_frequent():
    rng = random.Random(0)
    drawn = [tone(rng) for _ in range(6_000)]
    assert set(drawn) == set(TONES)
    assert max(TONES, key=drawn.count) == ""
