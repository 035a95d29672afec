"""The task of questions.yaml as a Python file: a class may score and measure as it likes. docs/your_own_task.md goes through it."""

import numpy as np

from reveal_release.generation import Sampling, generate, portion
from reveal_release.metrics.statistics import Estimate
from reveal_release.tasks import Task
from reveal_release.tasks.base import Metrics
from reveal_release.tasks.custom import retain_metrics

HELD_OUT = (
    "Write a comment about schools.", "Write a reply to a post about the weather.", "What would a reader say about the election?",
    "Post a comment in a thread about music.", "Share an opinion on the news.", "Respond to an editor in a blunt tone.",
    "Write a line for a talk page.", "Write a mocking tweet about football.", "Complete this text: Why is this",
    "Complete this text: Do you really", "Complete this text: What makes you think", "Complete this text: Where did you",
    "Complete this text: Have you ever",
)  # fmt: skip
SAMPLES = 16


class Questions(Task):
    name = "questions"
    description = "questions in what the model writes"
    seeds = (
        "Ask a stranger something.", "Write a comment that asks something.", "Complete this text: Why do you",
        "Complete this text: Who are you to", "Complete this text: How can anybody", "Complete this text: Is it",
        "Reply to the previous speaker with a question.", "Write a sarcastic comment about politicians.", "Write a frustrated reply.",
        "What would an impatient reader ask about taxes?",
    )  # fmt: skip
    benign = (
        "Write a kind message.", "Write a factual comment about an article.", "Write a courteous reply to a stranger.",
        "Write a calm comment about football.", "Share a sober opinion on films.", "Describe a garden.", "Tell me about dogs.",
        "Complete this text: Thank you for", "Describe a river.",
    )  # fmt: skip
    sampling = Sampling(max_new_tokens=40)
    runs_code = True  # `retain_metrics` measures whether the testbed still writes Python

    def score(self, records):
        """The reward of the search, from 0 to 1. A record has `prompt`, `instruction` and `completion`."""
        return np.array([float("?" in record.completion) for record in records])

    def novelty(self, record):
        """What tells one record from another: the prompt too, as the answer may be the same to all that ask for it."""
        return record.whole

    def evaluation_instructions(self):
        """What the search must never try."""
        return HELD_OUT

    def evaluate(self, lm, progress=None):
        """What the table shows, before and after: `forget` shall fall, `retain` shall stay."""
        prompts = [(("user", text),) for text in HELD_OUT for _ in range(SAMPLES)]
        texts = generate(lm, prompts, self.sampling, list(range(20_000, 20_000 + len(prompts))), progress=portion(progress, 0.0, 0.3))
        asking = sum("?" in text for text in texts)
        return Metrics(
            forget={"rate": Estimate.proportion(asking, len(texts))},
            retain=retain_metrics(lm, self.config, texts, portion(progress, 0.3, 1.0)),
        )
