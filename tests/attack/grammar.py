"""Grammar of command lines: good ones, and mutations of them of which it is known what must come of them.

A mutation gives words and what it expects:

    REFUSE   it can never be right: an unknown key, a value of a wrong type or out of range, a choice that there is none of
    SAME     it says the same in other words: another order, other quotes, 1.0 for 1.
    ANY      it may be right; what counts is that it answers in one line, or runs
"""

import dataclasses
import inspect
import random
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attnlab.config.groups import GROUPS
from attnlab.config.plan import Options, Plan
from attnlab.config.targets import group_choices, locate

REFUSE, SAME, ANY = "refuse", "same", "any"

# every line ends with these, so that check=true takes a fraction of a second
SMALL = ("logger=none", "data.batch_size=16", "model.width=4", "data.limit=64", "evaluator=none", "trainer.max_epochs=2")
GOOD = (
    "ood=msp",
    "attention=rect ood=msp",
    "attention=rect attention.rect.at=layer3 attention.rect.sharpness=5 ood=none",
    "attention=[se,rect] regularizer=[cutout,maxdropout,norm_loss] ood=msp",
    "attention=cbam attention.cbam.at=layer2 ood=none",
    "attention=eca ood=[msp,energy]",
    "attention=position data.flip=true ood=none",
    "attention=surround ood=none",
    "regularizer=dropout ood=none",
    "regularizer=mixup optimizer=adamw ood=none",
    "regularizer=dropblock regularizer.dropblock.at=layer3 ood=none",
    "regularizer=maxdropout regularizer.maxdropout.drop=0.2 ood=none",
    "regularizer=advanced_dropout optimizer.groups.advanced_dropout.lr=1e-4 ood=none",
    "regularizer=[droppath,random_erasing] ood=none",
    "loss=large_margin ood=none",
    "loss=ce loss.label_smoothing=0.1 ood=none",
    "optimizer=adamw schedule=cosine ood=none",
    "optimizer.lr=0.05 optimizer.momentum=0.8 schedule=multistep schedule.milestones=[0.5] ood=none",
    "schedule=step ood=none",
    "schedule=constant trainer.gradient_clip=1 ood=none",
    "algorithm=sam ood=none",
    "algorithm=mean_teacher data.labels=32 ood=none",
    "callback=[ema] ood=none",
    "callback=[early_stop,best] data.val=0.2 ood=none",
    "callback=swa ood=none",
    "data.holdout=[8,9] data.ood=[heldout] ood=msp",
    "data.crop=2 data.flip=true data.val=0.25 ood=none",
    "ood=[msp,knn,mahalanobis] ood.knn.k=3 data.ood=[photos]",
    "evaluator=[ood,calibration] explainer=[gradcam] ood=msp",
    "explainer=gradient ood=none",
    "experiment=maxdropout/resnet18 data=digits ood=none",
    "trainer=cpu trainer.threads=1 trainer.checkpoint_seconds=5 ood=none",
    "seed=3 name=mine objective=test/nll retries=2 ood=none",
    "model=cnn3 ood=none",
    "model=preresnet20 ood=none",
)
# impossible values of keys whose range no type tells
RANGES: dict[str, tuple[str, ...]] = {
    "seed": ("-1", "1.5"),
    "retries": ("-1",),
    "name": ("a/b", "'a b'", "../x", "''", "'\\x1b[2J'"),
    "objective": ("nope", "test", "tset/acc"),
    "model.width": ("0", "-4"),
    "data.batch_size": ("0", "-1", "100000"),
    "data.eval_batch_size": ("0",),
    "data.val": ("1", "-0.1", "1.5"),
    "data.crop": ("-1",),
    "data.limit": ("0", "1", "-5", "100000"),
    "data.num_workers": ("-1",),
    "data.size": ("0", "-16"),
    "data.test": ("0", "1", "-0.5"),
    "data.ood": ("[nowhere]", "[train]", "[photos,photos]"),
    "data.holdout": ("[11]", "[1,1]", "[0,1,2,3,4,5,6,7,8]"),
    "data.mean": ("[0.5]", "[0.1,0.2,0.3,0.4]"),
    "trainer.max_epochs": ("0", "-3"),
    "trainer.threads": ("0", "-1"),
    "trainer.checkpoint_seconds": ("-1",),
    "trainer.val_every": ("0", "-1"),
    "trainer.gradient_clip": ("-1",),
    "optimizer.lr": ("-1",),
    "optimizer.momentum": ("-0.1",),
    "optimizer.weight_decay": ("-1",),
    "loss.label_smoothing": ("1.5", "-0.1"),
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    words: tuple[str, ...]
    expect: str
    kind: str
    what: str


def mutants(words: Sequence[str], plan: Plan, draw: random.Random) -> Iterator[Mutant]:
    """Mutations of a good line without end; `plan` is that of the line itself."""
    makers = [getattr(Mutations, name) for name in vars(Mutations) if not name.startswith("_")]
    one = Mutations(list(words), plan, draw)
    while True:
        make = draw.choice(makers)
        found = make(one)
        if found is not None:
            changed, expect, what = found
            yield Mutant(tuple(changed), expect, make.__name__, what)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter that a line may set: the key that a person types, its value, its type annotation, whether it may be left out."""

    key: str
    value: Any
    hint: Any


def leaves(plan: Plan) -> list[Leaf]:
    """The parameters of every component of a plan, and the options."""
    found = [Leaf(field.name, plan.full[field.name], field.type) for field in dataclasses.fields(Options)]
    found = [leaf for leaf in found if leaf.key not in ("paths", "check", "allow_targets", "teacher")]
    for name, group in GROUPS.items():
        entries = plan.full[name].items() if group.several else [("", plan.full[name])]
        for entry_name, entry in entries:
            node = entry.get("module") or entry.get("penalty") or entry if group.placed else entry
            if not isinstance(node, Mapping) or "_target_" not in node:
                continue
            target = locate(node["_target_"], allow=plan.allow)
            hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
            where = f"{name}.{entry_name}" if entry_name else name
            found += [Leaf(f"{where}.{key}", value, hints.get(key, Any)) for key, value in node.items() if not key.startswith("_")]
    return found


def kinds_of(hint: Any) -> set[str] | None:
    """Which kinds of value fit an annotation: number, whole, truth, text, null, list, mapping; None: nothing is known."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [kinds_of(argument) for argument in arguments]
        return None if None in parts else set().union(*parts)
    if origin is Literal:
        return {f"={argument}" for argument in arguments}
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return {"list"}
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return {"mapping"}
    simple = {int: {"whole"}, float: {"whole", "number"}, bool: {"truth"}, str: {"text"}, type(None): {"null"}}
    return simple.get(hint)


VALUES = {"whole": "3", "number": "2.5", "truth": "true", "text": "wrong", "null": "null", "list": "[1,[2]]", "mapping": "{a:1}"}
TYPO = "abcdefghijklmnopqrstuvwxyz_0"


class Mutations:
    """Each method gives (words, expectation, what was done), or None where it does not apply."""

    def __init__(self, words: list[str], plan: Plan, draw: random.Random) -> None:
        self._words, self._plan, self._draw = words, plan, draw
        self._leaves = leaves(plan)
        self._keys = {leaf.key for leaf in self._leaves}

    def _swap(self, change: Callable[[str], str]) -> tuple[list[str], str, str]:
        """The words with one changed, the old one, the new one."""
        place = self._draw.randrange(len(self._words))
        old, new = self._words[place], change(self._words[place])
        return [*self._words[:place], new, *self._words[place + 1 :]], old, new

    def _with(self, word: str) -> list[str]:
        """The words with one more, in place of one of the same key."""
        key = word.partition("=")[0].lstrip("+~")
        kept = [text for text in self._words if text.partition("=")[0] != key]
        kept.insert(self._draw.randint(0, len(kept)), word)
        return kept

    def _typo(self, word: str) -> str:
        place, kind = self._draw.randrange(len(word)), self._draw.randrange(4)
        if kind == 0:
            return word[:place] + word[place + 1 :]
        if kind == 1:
            return word[:place] + self._draw.choice(TYPO) + word[place:]
        if kind == 2:
            return word[:place] + self._draw.choice(TYPO) + word[place + 1 :]
        return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]

    def _groups(self) -> list[tuple[int, str]]:
        """Places and names of the groups that the line chooses."""
        return [(place, word.partition("=")[0]) for place, word in enumerate(self._words) if word.partition("=")[0] in GROUPS]

    def typo_in_a_key(self):
        words, old, new = self._swap(lambda word: self._typo(word.partition("=")[0]) + "=" + word.partition("=")[2])
        key = new.partition("=")[0]
        known = key in {*GROUPS, *self._keys, "experiment", "local"} or key.strip() in {word.partition("=")[0] for word in self._words}
        known = known or key.rpartition(".")[0] == "optimizer.groups" or "..." in key
        return words, ANY if known else REFUSE, f"{old} -> {new}"

    def typo_in_a_choice(self):
        if not (groups := self._groups()):
            return None
        place, group = self._draw.choice(groups)
        old = self._words[place].partition("=")[2]
        names = [name for name in old.strip("[]").split(",") if name]
        pick = self._draw.randrange(len(names))
        names[pick] = self._typo(names[pick])
        if names[pick] in group_choices(group) or not names[pick]:
            return None
        new = f"{group}=[{','.join(names)}]" if old.startswith("[") else f"{group}={names[0]}"
        return [*self._words[:place], new, *self._words[place + 1 :]], REFUSE, new

    def choice_of_another_group(self):
        groups = [group for group in GROUPS if group not in ("data", "model")]
        group, other = self._draw.sample(groups, 2)
        foreign = [name for name in group_choices(other) if name not in group_choices(group)]
        if not foreign:
            return None
        new = f"{group}={self._draw.choice(foreign)}"
        return self._with(new), REFUSE, new

    def several_where_one_is_taken(self):
        group = self._draw.choice([name for name, group in GROUPS.items() if not group.several])
        choices = self._draw.sample(group_choices(group), min(2, len(group_choices(group))))
        new = f"{group}=[{','.join(choices)}]"
        return self._with(new), REFUSE, new

    def twice_or_beside_none(self):
        group = self._draw.choice([name for name, group in GROUPS.items() if group.several])
        name = self._draw.choice([name for name in group_choices(group) if name != "none"])
        new = f"{group}=[{name},{self._draw.choice([name, 'none'])}]"
        return self._with(new), REFUSE, new

    def no_name(self):
        group = self._draw.choice(list(GROUPS))
        odd = self._draw.choice(["3", "-1", "1.5", "null", "true", "[3]", "[null]", "[{a:1}]", "{a:1}", "[[none]]"])
        return self._with(f"{group}={odd}"), REFUSE, f"{group}={odd}"

    def unknown_key(self):
        where = self._draw.choice([leaf.key for leaf in self._leaves if "." in leaf.key])
        name = self._draw.choice(["nope", "lrr", "p", "Width", "_x", "at2"])
        new = f"{where.rpartition('.')[0]}.{name}={self._draw.choice(['1', 'x', 'null', '[]'])}"
        if new.partition("=")[0] in self._keys:
            return None
        return self._with(self._draw.choice(["", "+", "++"]) + new), REFUSE, new

    def wrong_type(self):
        leaf = self._draw.choice(self._leaves)
        kinds = kinds_of(leaf.hint)
        if kinds is None:
            return None
        wrong = [
            value for kind, value in VALUES.items() if kind not in kinds and not (kind == "text" and any(one[0] == "=" for one in kinds))
        ]
        wrong = [value for value in wrong if f"={value}" not in {one.lower() for one in kinds}]
        if any(one[0] == "=" for one in kinds):
            wrong = [*wrong, "wrong"] if "text" not in kinds else wrong
        if not wrong:
            return None
        new = f"{leaf.key}={self._draw.choice(wrong)}"
        return self._with(new), REFUSE, f"{new} (for {leaf.hint})"

    def no_number(self):
        numbers = [leaf for leaf in self._leaves if (kinds := kinds_of(leaf.hint)) and "number" in kinds and "text" not in kinds]
        if not numbers:
            return None
        new = f"{self._draw.choice(numbers).key}={self._draw.choice(['nan', '.nan', 'inf', '-inf', '1e999'])}"
        return self._with(new), REFUSE, new

    def out_of_range(self):
        key = self._draw.choice([key for key in RANGES if key in self._keys])
        new = f"{key}={self._draw.choice(RANGES[key])}"
        return self._with(new), REFUSE, new

    def negative_zero_or_huge(self):
        numbers = [leaf for leaf in self._leaves if (kinds := kinds_of(leaf.hint)) and "whole" in kinds]
        value = self._draw.choice(["-7", "0", "1000000000000", "-1", "9999999999999999999999", "9" * 400, "1e30"])
        new = f"{self._draw.choice(numbers).key}={value}"
        return self._with(new), ANY, new

    def nested(self):
        simple = [leaf for leaf in self._leaves if (kinds := kinds_of(leaf.hint)) and not kinds & {"mapping", "list"}]
        leaf = self._draw.choice(simple)
        new = f"{leaf.key}.{self._draw.choice(['x', '0', 'lr', '_target_'])}={self._draw.choice(['1', 'os.system', 'null'])}"
        return self._with(new), REFUSE, new

    def target(self):
        places = [leaf.key.rpartition(".")[0] for leaf in self._leaves if "." in leaf.key]
        bad = [
            "os.system",
            "builtins.eval",
            "torch.load",
            "subprocess.Popen",
            "attnlab.train.job",
            "torch.nn",
            "nope",
            "''",
            "null",
            "3",
            "[a]",
            "{a:1}",
        ]
        new = f"{self._draw.choice(places)}._target_={self._draw.choice(bad)}"
        return self._with(new), REFUSE, new

    def mark(self):
        places = [leaf.key.rpartition(".")[0] for leaf in self._leaves if "." in leaf.key]
        mark, value = (
            self._draw.choice(["_partial_", "_args_", "_recursive_", "_convert_"]),
            self._draw.choice(["7", "[1]", "all", "false"]),
        )
        new = f"{self._draw.choice(places)}.{mark}={value}"
        return self._with(new), REFUSE, new

    def deletion(self):
        key = self._draw.choice([*GROUPS, *(leaf.key for leaf in self._leaves), "paths", "hydra", "nope", "a.b"])
        new = f"~{key}"
        gone = [word for word in self._words if not word.startswith((key + "=", key + "."))]
        needed = key in ("hydra", "nope", "a.b", "paths") or (key in GROUPS and not (GROUPS[key].several or GROUPS[key].optional))
        return [*gone, new], REFUSE if needed else ANY, new

    def reading_the_machine(self):
        leaf = self._draw.choice(self._leaves)
        text = self._draw.choice(
            ["${oc.env:HOME}", "${oc.env:NOPE,x}", "${hydra:runtime.cwd}", "${oc.decode:1}", "${nope}", "${..nope}", "${oc.env:"]
        )
        new = f"{leaf.key}='{text}'"
        return self._with(new), REFUSE, new

    def leading_out(self):
        group = self._draw.choice(list(GROUPS))
        new = f"{group}={self._draw.choice(['../../etc/passwd', '/etc/passwd', '..', 'a/../../b', '[../x]', './', '.'])}"
        return self._with(new), REFUSE, new

    def unicode(self):
        odd = self._draw.choice(["ü", "\u202e", "\x00" if False else "\x07", "\u200b", "𝕒", "é", "\ufeff", "٣", "\x1b[2J", "—"])
        words, old, new = self._swap(lambda word: (at := self._draw.randint(0, len(word))) * 0 * " " + word[:at] + odd + word[at:])
        return words, REFUSE, f"{old} -> {new!r}"

    def broken_quotes(self):
        odd = self._draw.choice(
            ["'", '"', "[", "]", "{", "}", "(", ")", ",", "\\", "=", "$", "${", "%", "@", "#", "&", ";", "`", "\n", "\t"]
        )
        words, old, new = self._swap(lambda word: word[: (at := self._draw.randint(1, len(word)))] + odd + word[at:])
        return words, ANY, f"{old} -> {new!r}"

    def bare_word(self):
        new = self._draw.choice(
            [
                "resnet18",
                "1",
                "-",
                "=",
                "=1",
                "a=",
                "--seed",
                "-x",
                "--seed=1",
                "- seed=1",
                "help",
                "",
                " ",
                "seed",
                "+",
                "~",
                "++",
                "a b=1",
                "--multirun=1",
                "--cfg",
                "--cfg=x",
            ]
        )
        at = self._draw.randint(0, len(self._words))
        return [*self._words[:at], new, *self._words[at:]], REFUSE, repr(new)

    def empty_value(self):
        words, old, new = self._swap(
            lambda word: word.partition("=")[0] + "=" + self._draw.choice(["", "''", "null", "[]", "{}", "~", " ", "none"])
        )
        return words, ANY, f"{old} -> {new!r}"

    def odd_sweep(self):
        leaf = self._draw.choice([leaf for leaf in self._leaves if (kinds := kinds_of(leaf.hint)) and "whole" in kinds])
        new = f"{leaf.key}={self._draw.choice(['1,2', 'range(3)', 'choice(1,2)', 'glob(*)', 'interval(0,1)', '1,', 'sort(1,2)'])}"
        return self._with(new), REFUSE, new

    def other_order(self):
        order = list(self._words)
        self._draw.shuffle(order)
        return order, SAME, " ".join(order)

    def other_spelling(self):
        def spell(word: str) -> str:
            key, _, value = word.partition("=")
            plain = value.replace("_", "").replace("/", "").isalnum() and key.partition(".")[0] in GROUPS and "." in key
            ways = [word]
            if plain and not value[0].isdigit() and value not in ("true", "false", "null"):
                ways += [f"{key}='{value}'", f'{key}="{value}"']
            if "." in key:
                ways += [f"++{word}", f"+{word}"]
            if value.startswith("["):
                ways += [f"{key}={value.replace(',', ', ')}"]
            return self._draw.choice(ways)

        words = [spell(word) for word in self._words]
        return words, SAME, " ".join(words)

    def default_said(self):
        simple = [leaf for leaf in self._leaves if isinstance(leaf.value, bool | int | float) and leaf.key not in ("check", "force")]
        leaf = self._draw.choice(simple)
        text = str(leaf.value).lower() if isinstance(leaf.value, bool) else repr(leaf.value)
        new = f"{leaf.key}={text}"
        return self._with(new), SAME, new
