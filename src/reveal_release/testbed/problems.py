"""Arithmetic word problems with worked steps, generated for the testbed's small models.

A *schema* is a story frame (shopping, bus, library, ...) crossed with an operation structure (gain, share,
groups then loss, ...), named `frame/structure`. `schemas` lists those of a split, `sample` draws a problem:

    problem = sample(random.Random(0), "train", level=1)
    problem.prompt     # "Mia has 7 apples. Mia buys 5 more apples. How many apples does Mia have now?"
    problem.solution   # "Mia has 7 + 5 = 12 apples.\\n#### 12"

Every fifth cell of the frame x structure table, along its diagonals, is test. A test schema is therefore
unseen as a combination, while its frame and its structure both occur in many train schemas: the split asks
for composition, not for new vocabulary or new arithmetic. The operands are drawn afresh in both splits, so a
calculation may be seen in both.

Levels: 1 is one step with one-digit operands; 2 is one step with operands up to 60 for + and -, and the times
table up to 9 * 9 for * and /; 3 is two steps with operands up to 40. No result is above 100, below 1, or a
fraction. The `bare/...` schemas ("What is 7 + 5?") are in train only and cover the same ranges with one step;
at level 3 their operands go up to 100, because that is what the second step of a story meets.

The wording follows GSM8K's form (Cobbe et al., 2021, arXiv:2110.14168), steps and then `#### N`, without its
`<<>>` annotations. It does not promise GSM8K's variety: cue words ("more", "each", "equally") give the
operation away on purpose.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from ..config import UserError

Split = Literal["train", "test"]
Steps = tuple[tuple[str, str, str], ...]
LEVELS = (1, 2, 3)
MAX_RESULT = 100
TEST_EVERY = 5

NAMES = tuple(
    "Mia Tom Anna Ben Clara David Ella Finn Grace Henry Ivy Jack Kate Leo Lucy Max Nora Oscar Paul Rosa Sam "
    "Tina Umar Vera Will Yara Zoe Adam Bella Carlos Dina Emma Felix Hana Ian Julia Kofi Lena Mark "
    "Omar".split()
)
ADJECTIVES = ("red", "blue", "green", "old", "new", "big", "small")  # tell places apart: "the red bus"
_IRREGULAR = {"person": "people", "sheep": "sheep", "child": "children", "shelf": "shelves", "box": "boxes"}


@dataclass(frozen=True)
class WordProblem:
    """One problem: `solution` holds one computation per line and ends in `#### answer`."""

    schema: str
    level: int
    prompt: str
    solution: str
    answer: int


@dataclass(frozen=True)
class Frame:
    """A story: who holds which objects, and how they come and go. An empty field rules structures out.

    Nouns are singular, verbs third person singular. `place` empty: the holders are people. `participle`
    "read" gives "has read" for "has". With `rate` ("reads") the groups are stretches of time ("5 pages each
    day"), else containers. `goal` completes "needs" where the holder is `needy`; `shared_by` gets equal
    shares; `priced` objects can be bought one by one.
    """

    name: str
    objects: tuple[str, ...]
    gain: tuple[str, ...]
    loss: tuple[str, ...]
    box: str
    shared_by: str = ""
    place: str = ""
    participle: str = ""
    rate: str = ""
    goal: str = ""
    needy: bool = True
    priced: bool = True


def _frame(name: str, objects: str, gain: str, loss: str, box: str, mate: str = "", **rest: Any) -> Frame:
    gains, losses = (tuple(verbs.split(", ")) if verbs else () for verbs in (gain, loss))
    return Frame(name, tuple(objects.split()), gains, losses, box, mate, **rest)


# Append only: the split is a function of a frame's place in this table.
FRAMES = (
    _frame("shopping", "apple orange pear banana lemon", "buys, gets, picks up", "gives away, eats, sells",
           "bag", "friend"),
    _frame("garden", "rose tulip daisy pumpkin melon", "plants, picks, grows", "gives away, sells, cuts",
           "row", "neighbor"),
    _frame("school", "pencil pen crayon eraser ruler", "gets, buys, finds", "gives away, loses, lends out",
           "box", "classmate"),
    _frame("library", "book magazine map comic", "buys, receives, gets", "lends out, gives away, sells",
           "shelf", "school", place="library"),
    _frame("sports", "ball bat racket jersey whistle", "buys, receives, gets", "gives away, loses, lends out",
           "bag", "player", place="team"),
    _frame("cooking", "egg carrot onion tomato potato", "buys, gets, brings", "uses, eats, gives away",
           "bowl", "guest"),
    _frame("train", "passenger suitcase", "picks up, takes on, gets", "drops off, unloads, loses", "wagon",
           "wagon", place="train", needy=False, priced=False),
    _frame("money", "dollar coin", "earns, gets, finds", "spends, gives away, loses", "day", "friend",
           rate="earns", priced=False),
    _frame("marbles", "marble bead button", "wins, finds, gets", "loses, gives away, drops", "jar", "friend"),
    _frame("reading", "page chapter story poem", "reads, finishes", "", "day", participle="read",
           rate="reads", goal="to read", priced=False),
    _frame("savings", "dollar coin", "saves, puts away", "", "week", participle="saved", rate="saves",
           goal="to save", priced=False),
    _frame("farm", "cow hen goat sheep duck", "buys, gets, raises", "sells, gives away, loses", "barn",
           "farmer", place="farm"),
    _frame("bakery", "cake cookie muffin pie roll", "bakes, makes, gets", "sells, gives away, throws out",
           "tray", "customer", place="bakery"),
    _frame("queue", "person child visitor", "gets, gains", "loses, lets go", "row", place="line", needy=False,
           priced=False),
    _frame("bus", "passenger student tourist", "picks up, takes on, gets", "drops off, lets out, loses",
           "row", place="bus", needy=False, priced=False),
    _frame("toys", "doll robot puzzle kite drum", "buys, gets, finds", "gives away, breaks, loses", "basket",
           "cousin"),
    _frame("collection", "stamp sticker card postcard", "collects, buys, gets",
           "gives away, trades away, loses", "album", "friend"),
    _frame("party", "balloon cup gift candle", "brings, buys, gets", "uses, gives away, loses", "box",
           "guest"),
    _frame("beach", "shell stone pebble feather", "finds, collects, picks up", "drops, gives away, loses",
           "bucket", "friend", priced=False),
    _frame("zoo", "monkey parrot lion penguin", "gets, receives, buys", "gives away, sells, sends away",
           "cage", "keeper", place="zoo"),
    _frame("post", "letter parcel package", "receives, collects, gets", "sends out, delivers, loses", "sack",
           "driver", place="post office", needy=False, priced=False),
    _frame("workshop", "nail screw bolt hammer brush", "buys, gets, finds", "uses, loses, gives away",
           "drawer", "worker"),
    _frame("game", "point star token", "wins, scores, gets", "loses, spends, gives up", "round", rate="wins",
           priced=False),
    _frame("clothes", "shirt sock hat scarf button", "buys, gets, sews", "gives away, sells, loses", "drawer",
           "sister"),
)  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """The computation and its wordings.

    `steps` are (left, operator, right) over operand names and the earlier results x, y; `needs` names the
    `Frame` fields it depends on. In templates {a} is an operand and {oa}, {ga}, {da} its noun in the right
    number (object, group, dollar).
    """

    name: str
    needs: tuple[str, ...]
    steps: Steps
    prompts: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        return (1, 2) if len(self.steps) == 1 else (3,)


def _structure(name: str, needs: str, steps: str, lines: tuple[str, ...], *prompts: str) -> Structure:
    parsed = tuple((s[0], s[1], s[2]) for s in steps.split())
    return Structure(name, tuple(needs.split()), parsed, prompts, lines)


_START = "{N} {has} {a} {oa}."
_OTHER = "{M} {has} {b} {ob}."
_X, _Y = "{N} {has} {x} {ox}.", "{N} {has} {y} {oy}."  # {x} in a line is the whole equation "7 + 5 = 12"
_NOW = "How many {os} {does_n} {now}?"
_THEY = "How many {os} {do_they} {total}?"
_ALL = "How many {os} {do_nm} {total}?"
_BOTH = "Together, {n} and {m} {have} "
_GAIN, _THEN_GAIN = "{N} {gain} {b} more {ob}.", "Then {n} {gain2} {c} more {oc}."
_LOSS, _THEN_LOSS = "{N} {loss} {b} {ob}.", "Then {n} {loss2} {c} {oc}."
_SHARE = "How many {os} does each {mate} get?"
_NOW_EACH = "How many {os} does each {mate} have {now}?"
_EACH = "Each {mate} gets "
_COST = "Each {o1} costs {p} {dp}."


def _openings(*rest: str) -> Iterator[str]:
    """Three ways to open a story that begins with what N has."""
    for opening in (_START, "At first, {n} {has} {a} {oa}.", "{N} {has} {a} {oa} at the start."):
        yield " ".join((opening, *rest))


def _own(kind: Literal["group", "pack"], *rest: str) -> Iterator[str]:
    """Three ways to open a story that begins as the frame itself has it (see the templates below)."""
    for way in range(3):
        yield " ".join((f"{{{kind}{way}}}", *rest))


# Append only, as FRAMES.
STRUCTURES = (
    _structure("gain", "", "a+b", (_X,), *_openings(_GAIN, _NOW)),
    _structure("loss", "loss", "a-b", (_X,), *_openings(_LOSS, _NOW)),
    _structure("combine", "", "a+b", (_BOTH + "{x} {ox}.",), f"{_START} {_OTHER} {_ALL}",
               "{N} {has} {a} {oa} and {m} {has} {b} {ob}. " + _ALL,
               "If {n} {has} {a} {oa} and {m} {has} {b} {ob}, h" + _ALL[1:]),
    _structure("compare", "", "a-b", ("{N} {has} {x} more {ox} than {m}.",),
               f"{_START} {_OTHER} How many more {{os}} {{does_n}} than {{m}}?",
               f"{_OTHER} {_START} How many more {{os}} {{does_n}} than {{m}}?",
               "{N} {has} {a} {oa} and {m} {has} {b} {ob}. How many more {os} {does_n} than {m}?"),
    _structure("more_than", "", "a+b", ("{M} {has} {x} {ox}.",),
               _START + " {M} {has} {b} more {ob} than {n}. How many {os} {does_m}?",
               "{M} {has} {b} more {ob} than {n}. " + _START + " How many {os} {does_m}?",
               _START + " {M} {has} {b} more than {n}. How many {os} {does_m}?"),
    _structure("fewer_than", "", "a-b", ("{M} {has} {x} {ox}.",),
               _START + " {M} {has} {b} fewer {ob} than {n}. How many {os} {does_m}?",
               "{M} {has} {b} fewer {ob} than {n}. " + _START + " How many {os} {does_m}?",
               _START + " {M} {has} {b} fewer than {n}. How many {os} {does_m}?"),
    _structure("needed", "needy", "a-b", ("{N} needs{goal} {x} more {ox}.",),
               "{N} needs{goal} {a} {oa}. {N} {has} {b} {ob}. How many more {os} does {n} need{goal}?",
               "{N} {has} {b} {ob}. {N} needs{goal} {a} {oa}. How many more {os} does {n} need{goal}?",
               "{N} needs{goal} {a} {oa} but {has} only {b}. How many more {os} does {n} need{goal}?"),
    _structure("times", "", "t*a", ("{M} {has} {x} {ox}.",),
               _START + " {M} {has} {t} times as many {os} as {n}. How many {os} {does_m}?",
               "{M} {has} {t} times as many {os} as {n}. " + _START + " How many {os} {does_m}?",
               _START + " {M} {has} {t} times as many. How many {os} {does_m}?"),
    _structure("groups", "", "k*a", (_X,), *_own("group", "How many {os} {does_n} {total}?")),
    _structure("share", "shared_by", "a/r", (_EACH + "{x} {ox}.",),
               "{N} {shares} {a} {oa} equally among {r} {mates}. " + _SHARE,
               _START + " {N} {shares} the {os} equally among {r} {mates}. " + _SHARE,
               _START + " The {os} are shared equally among {r} {mates}. " + _SHARE),
    _structure("pack", "needy", "a/b", ("{N} needs {x} {gx}.",),
               *_own("pack", "How many {boxes} does {n} need?")),
    _structure("cost", "priced", "k*p", ("{N} pays {x} {dx}.",),
               "{N} buys {k} {ok}. " + _COST + " How many dollars does {n} pay?",
               _COST + " {N} buys {k} {ok}. How many dollars does {n} pay?",
               "{N} buys {k} {ok} for {p} {dp} each. How many dollars does {n} pay?"),
    _structure("gain_gain", "", "a+b x+c", (_X, _Y), *_openings(_GAIN, _THEN_GAIN, _NOW)),
    _structure("gain_loss", "loss", "a+b x-c", (_X, _Y), *_openings(_GAIN, _THEN_LOSS, _NOW)),
    _structure("loss_gain", "loss", "a-b x+c", (_X, _Y), *_openings(_LOSS, _THEN_GAIN, _NOW)),
    _structure("loss_loss", "loss", "a-b x-c", (_X, _Y), *_openings(_LOSS, _THEN_LOSS, _NOW)),
    _structure("add_three", "", "a+b x+c", ("{N} and {m} {have} {x} {ox}.", "All three {have} {y} {oy}."),
               _START + " " + _OTHER + " {L} {has} {c} {oc}. " + _THEY,
               "{N} {has} {a} {oa}, {m} {has} {b} and {l} {has} {c}. " + _THEY,
               "{N} {has} {a} {oa} and {m} {has} {b} {ob}. {L} {has} {c} {oc}. " + _THEY),
    _structure("more_total", "", "a+b a+x", ("{M} {has} {x} {ox}.", _BOTH + "{y} {oy}."),
               _START + " {M} {has} {b} more {ob} than {n}. " + _ALL,
               "{M} {has} {b} more {ob} than {n}. " + _START + " " + _ALL,
               _START + " {M} {has} {b} more than {n}. " + _ALL),
    _structure("fewer_total", "", "a-b a+x", ("{M} {has} {x} {ox}.", _BOTH + "{y} {oy}."),
               _START + " {M} {has} {b} fewer {ob} than {n}. " + _ALL,
               "{M} {has} {b} fewer {ob} than {n}. " + _START + " " + _ALL,
               _START + " {M} {has} {b} fewer than {n}. " + _ALL),
    _structure("times_total", "", "t*a a+x", ("{M} {has} {x} {ox}.", _BOTH + "{y} {oy}."),
               _START + " {M} {has} {t} times as many {os} as {n}. " + _ALL,
               "{M} {has} {t} times as many {os} as {n}. " + _START + " " + _ALL,
               _START + " {M} {has} {t} times as many. " + _ALL),
    _structure("groups_gain", "", "k*a x+b", (_X, _Y),
               *_own("group", "Then {n} {gain} {b} more {ob}.", _NOW)),
    _structure("groups_loss", "loss", "k*a x-b", (_X, _Y),
               *_own("group", "Then {n} {loss} {b} {ob}.", _NOW)),
    _structure("gain_share", "shared_by", "a+b x/r", (_X, _EACH + "{y} {oy}."),
               *_openings(_GAIN, "{N} {shares} all the {os} equally among {r} {mates}.", _SHARE)),
    _structure("loss_share", "shared_by loss", "a-b x/r", (_X, _EACH + "{y} {oy}."),
               *_openings(_LOSS, "{N} {shares} the rest equally among {r} {mates}.", _SHARE)),
    _structure("share_gain", "shared_by", "a/r x+b", (_EACH + "{x} {ox}.", "Each {mate} has {y} {oy}."),
               *(f"{{N}} {{shares}} {{a}} {{oa}} equally among {{r}} {{mates}}. {later} {_NOW_EACH}"
                 for later in ("Each {mate} then gets {b} more {ob}.", "Then each {mate} gets {b} more {ob}.",
                               "Later, each {mate} gets {b} more {ob}."))),
    _structure("spend_left", "priced", "k*p a-x", ("{N} pays {x} {dx}.", "{N} has {y} {dy} left."),
               "{N} has {a} {da}. {N} buys {k} {ok}. " + _COST + " How many dollars does {n} have left?",
               _COST + " {N} has {a} {da} and buys {k} {ok}. How many dollars does {n} have left?",
               "{N} has {a} {da}. {N} buys {k} {ok} for {p} {dp} each. How many dollars does {n} have left?"),
    _structure("gain_compare", "", "a+b x-c", (_X, "{N} {has} {y} more {oy} than {m}."),
               *_openings(_GAIN, "{M} {has} {c} {oc}.", "How many more {os} {does_n} than {m} now?")),
)  # fmt: skip

_BOX_GROUPS = ("{N} has {k} {boxes}. Each {box} has {a} {oa}.",
               "{N} has {k} {boxes} with {a} {oa} in each {box}.",
               "{N} has {a} {oa} in each {box}. {N} has {k} {boxes}.")  # fmt: skip
_TIME_GROUPS = ("{N} {rate} {a} {oa} each {box} for {k} {boxes}.",
                "For {k} {boxes}, {n} {rate} {a} {oa} each {box}.",
                "Each {box}, {n} {rate} {a} {oa}. This goes on for {k} {boxes}.")  # fmt: skip
_BOX_PACKS = ("{N} has {a} {oa}. {N} puts {b} {ob} in each {box}.",
              "{N} puts {a} {oa} into {boxes}. Each {box} holds {b} {ob}.",
              "Each {box} holds {b} {ob}. {N} has {a} {oa}.")  # fmt: skip
_TIME_PACKS = ("{N} needs{goal} {a} {oa}. {N} {rate} {b} {ob} each {box}.",
               "{N} {rate} {b} {ob} each {box}. {N} needs{goal} {a} {oa}.",
               "Each {box}, {n} {rate} {b} {ob}. {N} needs{goal} {a} {oa}.")  # fmt: skip

_BARE_OPS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_BARE_PROMPTS = ("What is {}?", "Compute {}.", "Calculate {}.", "{} = ?")
BARE = tuple(f"bare/{name}" for name in _BARE_OPS)


@cache
def _table() -> dict[str, tuple[Frame, Structure, Split]]:
    table: dict[str, tuple[Frame, Structure, Split]] = {}
    for i, frame in enumerate(FRAMES):
        for j, structure in enumerate(STRUCTURES):
            if all(getattr(frame, field) for field in structure.needs):
                split: Split = "test" if (i + j) % TEST_EVERY == 0 else "train"
                table[f"{frame.name}/{structure.name}"] = frame, structure, split
    return table


@cache
def schemas(split: Split, level: int | None = None) -> tuple[str, ...]:
    """The schemas of a split in a fixed order, all or those that have `level`; train ends with `BARE`.

    Raises UserError for an unknown split or level.
    """
    if split not in get_args(Split):
        raise UserError(f"unknown split {split!r}: use 'train' or 'test'")
    if level is not None and level not in LEVELS:
        raise UserError(f"unknown level {level!r}: use one of {LEVELS}")
    stories = (name for name, (_, _, s) in _table().items() if s == split)
    found = tuple(name for name in stories if level is None or level in levels(name))
    return found + BARE if split == "train" else found


def levels(schema: str) -> tuple[int, ...]:
    """The difficulty levels that a schema supports. Raises UserError for an unknown schema."""
    if schema in BARE:
        return LEVELS
    if schema not in _table():
        raise UserError(f"unknown schema {schema!r}: schemas('train') and schemas('test') list them all")
    return _table()[schema][1].levels


def sample(
    rng: random.Random, split: Split, schema: str | None = None, level: int | None = None
) -> WordProblem:
    """Draw one problem; the same state of `rng` and the same arguments give the same problem.

    What is not given is drawn uniformly: first the level, then the schema among the split's that have it (so
    that `BARE` schemas are no more frequent than others: ask for them by name). Raises UserError for a schema
    that is not in the split and for a level that it lacks.
    """
    if schema is None:
        level = rng.choice(LEVELS) if level is None else level
        schema = rng.choice(schemas(split, level))
    elif schema not in schemas(split):
        raise UserError(f"schema {schema!r} is not in split {split!r}: see schemas({split!r})")
    level = rng.choice(levels(schema)) if level is None else level
    if level not in levels(schema):
        raise UserError(f"schema {schema!r} has no level {level!r}: it has {levels(schema)}")
    if schema in BARE:
        return _bare(rng, schema, level)
    frame, structure, _ = _table()[schema]
    return _story(rng, schema, level, frame, structure)


def _bare(rng: random.Random, schema: str, level: int) -> WordProblem:
    op = _BARE_OPS[schema.removeprefix("bare/")]
    values = _draw(rng, (("a", op, "b"),), level, bare=True)
    expression = f"{values['a']} {op} {values['b']}"
    answer = values["x"]
    prompt = rng.choice(_BARE_PROMPTS).format(expression)
    return WordProblem(schema, level, prompt, f"{expression} = {answer}\n#### {answer}", answer)


def _draw(rng: random.Random, steps: Steps, level: int, bare: bool = False) -> dict[str, int]:
    """Operands and results (x, y) by name, in the level's ranges; starts again where a step has none."""
    while True:
        values = _try_draw(rng, steps, level, bare)
        if values is not None:
            return values


def _try_draw(rng: random.Random, steps: Steps, level: int, bare: bool) -> dict[str, int] | None:
    # Level 3 mixes magnitudes, since uniform draws up to 40 would leave small numbers rare.
    top = {1: 9, 2: 60}[level] if level < 3 else MAX_RESULT if bare else rng.choice((10, 20, 40))
    table_top = 5 if level == 1 else 9
    least_quotient = 1 if level == 1 else 2  # else 1 would be the answer of a tenth of all problems
    values: dict[str, int] = {}
    for result, (left, op, right) in zip("xy", steps, strict=False):
        a, b = values.get(left), values.get(right)
        if op == "+":
            a = rng.randint(10 if level == 2 else 1, top) if a is None else a
            b = rng.randint(1, top) if b is None else b
            value = a + b
        elif op == "-":
            if a is None:
                least = b + 1 if b is not None else 10 if level == 2 else 2
                if least > top:
                    return None
                a = rng.randint(least, top)
            if b is None:
                if a < 2:
                    return None
                b = rng.randint(1, min(a - 1, top))
            value = a - b
        elif op == "*":
            a, b = rng.randint(2, table_top), rng.randint(2, table_top)
            value = a * b
        else:
            if a is None:
                b, value = rng.randint(2, 9), rng.randint(least_quotient, 9)
                a = b * value
                if a > (9 if level == 1 else 40 if level == 3 and not bare else 81):
                    return None
            else:
                divisors = [d for d in range(2, 10) if a % d == 0 and least_quotient <= a // d <= 9]
                if not divisors:
                    return None
                b = rng.choice(divisors)
                value = a // b
        if not 1 <= value <= MAX_RESULT:
            return None
        values[left], values[right], values[result] = a, b, value
    return values


@cache
def plural(noun: str) -> str:
    """The plural of the nouns used here (regular ones, and the few others listed)."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun in ("tomato", "potato") or noun.endswith(("s", "x", "sh", "ch")):
        return noun + "es"
    return noun + "s"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _story(rng: random.Random, schema: str, level: int, frame: Frame, structure: Structure) -> WordProblem:
    values = _draw(rng, structure.steps, level)
    noun = rng.choice(frame.objects)
    n, m, last = ([f"the {adjective} {frame.place}" for adjective in rng.sample(ADJECTIVES, 3)] if frame.place
                  else rng.sample(NAMES, 3))  # fmt: skip
    gain, gain2 = rng.sample(frame.gain, 2)
    loss, loss2 = rng.sample(frame.loss, 2) if frame.loss else ("", "")
    done = f" {frame.participle}" if frame.participle else ""
    does, do, have = ("has", "have", done) if done else ("does", "do", " have")
    boxes, mates = plural(frame.box), plural(frame.shared_by) if frame.shared_by else ""
    slots: dict[str, object] = {
        "n": n, "m": m, "l": last, "N": _capital(n), "M": _capital(m), "L": _capital(last),
        "o1": noun, "os": plural(noun), "box": frame.box, "boxes": boxes, "mate": frame.shared_by,
        "mates": mates, "has": "has" + done, "have": "have" + done,
        "does_n": f"{does} {n}{have}", "does_m": f"{does} {m}{have}",
        "do_nm": f"{do} {n} and {m}{have}", "do_they": f"{do} they{have}",
        "gain": gain, "gain2": gain2, "loss": loss, "loss2": loss2, "rate": frame.rate,
        "goal": f" {frame.goal}" if frame.goal else "",
        "now": rng.choice(("now", "in the end", "after that")),
        "total": rng.choice(("altogether", "in total", "in all")),
        "shares": rng.choice(("shares", "divides", "splits")),
    }  # fmt: skip
    for name, value in values.items():
        one = value == 1
        slots[name] = value
        slots["o" + name] = noun if one else slots["os"]
        slots["g" + name] = frame.box if one else boxes
        slots["d" + name] = "dollar" if one else "dollars"
    template = rng.choice(structure.prompts)
    # A structure's "{group0}" stands for the frame's own way to say it, which is a template in turn.
    if template.startswith(("{group", "{pack")):
        groups, packs = (_TIME_GROUPS, _TIME_PACKS) if frame.rate else (_BOX_GROUPS, _BOX_PACKS)
        key, rest = template[1:].split("}", 1)
        template = (groups if key.startswith("group") else packs)[int(key[-1])] + rest
    prompt = template.format_map(slots)
    lines = []
    for result, (left, op, right), line in zip("xy", structure.steps, structure.lines, strict=False):
        equation = f"{values[left]} {op} {values[right]} = {values[result]}"
        lines.append(line.format_map({**slots, result: equation}))
    answer = values["xy"[len(structure.steps) - 1]]
    return WordProblem(schema, level, prompt, "\n".join([*lines, f"#### {answer}"]), answer)
