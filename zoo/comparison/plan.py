"""The plan of a comparison: which runs it trains, where, and which are finished."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from zoo.errors import UserError, unknown_name
from zoo.files import atomic, user_path
from zoo.methods import METHODS
from zoo.plugins.spec import PluginSpec
from zoo.runs.card import Card
from zoo.runs.recipes import recipe_names
from zoo.runs.run import CARD, CONFIG, Run

PLAN = "comparison.json"


@dataclass(frozen=True)
class Contender:
    """One column of a comparison.

    Attributes:
        name: as the user wrote it.
        options: of `zoo train` that define it.
        folder: of a finished run, which is used unchanged; None: it is trained.
    """

    name: str
    options: tuple[str, ...] = ()
    folder: Path | None = None

    @classmethod
    def parse(cls, word: str) -> "Contender":
        """Read a method with options, a recipe's name, a YAML file, or the folder of a run.

        A method is ``robust_lowrank(tau=0.2)`` or, as in earlier versions, ``robust_lowrank,tau=0.2``. Whatever is
        trained may end with its compression: ``magnitude_prune@0.9``.

        Raises:
            UserError: it is none of these.
        """
        rest, at, ratio = word.rpartition("@")
        if at and not user_path(word).exists():
            return cls._compressed(word, cls.parse(rest), ratio)
        path = user_path(word)
        if (path / CARD).is_file():
            return cls(word, folder=path)
        if word in recipe_names() or path.is_file():
            return cls(word, ("--config", word))
        name = re.split(r"[(,]", word)[0].strip()
        if name not in METHODS.names():
            raise unknown_name("method, recipe, file or run", name, [*METHODS.names(), *recipe_names()])
        spec = PluginSpec.parse(word)
        METHODS.check_options(name, spec.options)
        options = [x for key, value in spec.options.items() for x in (f"--method.{key}", value)]
        return cls(word, ("--method", name, *options))

    @classmethod
    def _compressed(cls, word: str, contender: "Contender", ratio: str) -> "Contender":
        """Return a contender that is trained at a compression of its own."""
        if contender.folder is not None:
            raise UserError(f"{word}: {contender.name} is trained already, so its compression cannot be chosen")
        try:
            fits = 0 < float(ratio) < 1
        except ValueError:
            fits = False
        if not fits:
            raise UserError(f"{word}: {ratio!r} is not a share of parameters to remove, such as magnitude_prune@0.9")
        return cls(word, (*contender.options, "--compression", ratio))


@dataclass(frozen=True)
class Comparison:
    """Contenders, seeds, and the options they share, in a folder that remembers them.

    Attributes:
        contenders: in the order of the columns.
        seeds: each contender is trained once with each.
        shared: options of `zoo train` for all of them.
        folder: of the runs.
    """

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    shared: tuple[str, ...]
    folder: Path

    def prepare(self) -> None:
        """Record the comparison, or check that the folder holds the same one; seeds may be added.

        Raises:
            UserError: the folder holds another one, two contenders would be trained in one folder, or finished runs
                use different data.
        """
        self._check_data()
        plan = json.loads(json.dumps(asdict(self), default=str))
        path = self.folder / PLAN
        if path.is_file():
            before = _read(path)
            if before["shared"] != plan["shared"]:
                raise UserError(f"{self.folder} holds a comparison with other options: choose another --out")
            plan["seeds"] = sorted({*before["seeds"], *plan["seeds"]})
            known = before["contenders"]
            same = [_identity(x) for x in known]
            plan["contenders"] = [*known, *(x for x in plan["contenders"] if _identity(x) not in same)]
        self._check_folders(x["name"] for x in plan["contenders"] if x["folder"] is None)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")

    def folders(self, contender: Contender) -> list[Path]:
        """Return the folders of a contender's runs, one per seed."""
        if contender.folder is not None:
            return [contender.folder]
        return [self.folder / f"{_slug(contender.name)}-seed{seed}" for seed in self.seeds]

    def _check_folders(self, names: Iterable[str]) -> None:
        owners: dict[str, str] = {}
        for name in names:
            if owners.setdefault(_slug(name), name) != name:
                raise UserError(f"{owners[_slug(name)]} and {name} would share the folder {_slug(name)}: rename one")

    def _check_data(self) -> None:
        folders = [folder for contender in self.contenders for folder in self.folders(contender)]
        for one, other in combinations([Run(folder) for folder in folders if (folder / CARD).is_file()], 2):
            if difference := _other_data(one.card, other.card):
                both = f"{one.folder} and {other.folder}"
                raise UserError(f"{both} use different data ({difference}): compare runs of one data set")

    def train(self, say: Callable[[str], None]) -> None:
        """Train the unfinished runs, one after the other, each in a separate process.

        Args:
            say: called with a line on each run that starts.

        Raises:
            UserError: a training failed (the same command resumes it), or it used other data than a finished run.
        """
        missing = [
            (contender, folder, seed)
            for contender in self.contenders
            if contender.folder is None
            for folder, seed in zip(self.folders(contender), self.seeds, strict=True)
            if not (folder / CARD).is_file()
        ]
        for i, (contender, folder, seed) in enumerate(missing, 1):
            say(f"training {i} of {len(missing)}: {contender.name}, seed {seed}")
            if (folder / CONFIG).is_file():
                command = ["train", "--resume", str(folder)]
            else:
                command = ["train", *contender.options, *self.shared, "--seed", str(seed), "--out", str(folder)]
            run_command(command, f"training {contender.name} with seed {seed}")
            self._check_data()

    def runs(self, contender: Contender) -> list[Run]:
        """Return a contender's finished runs."""
        return [Run(folder) for folder in self.folders(contender)]


def _other_data(one: Card, other: Card) -> str:
    """Return how the data of two runs differ, or ``""``; only some runs have the hash of their test images."""
    if one.data != other.data:
        return f"{one.data}, {other.data}"
    if len(one.class_names) != len(other.class_names):
        return f"{one.data} of {len(one.class_names)} classes, of {len(other.class_names)}"
    for mine, yours in zip(one.class_names, other.class_names, strict=True):
        if mine != yours:
            return f"{one.data} with a class {mine}, with {yours} in its place"
    if one.data_sha256 and other.data_sha256 and one.data_sha256 != other.data_sha256:
        return f"{one.data}, test split SHA-256 {one.data_sha256[:16]}, {other.data_sha256[:16]}"
    return ""


def _identity(contender: dict[str, Any]) -> tuple[Any, ...]:
    """Return the identity of a contender: its runs, and how they are trained."""
    return _slug(contender["name"]), contender["options"], contender["folder"]


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", name).strip("-")


def _read(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        _ = [_identity(x) for x in plan["contenders"]], sorted(plan["seeds"])
        return {key: plan[key] for key in ("contenders", "seeds", "shared")}
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged, so what the runs beside it are is not known: choose another --out"
        ) from None


def run_command(arguments: list[str], what: str) -> None:
    """Run a command of zoo in a separate process, on the same screen.

    Raises:
        UserError: it failed; its own message is above.
    """
    code = subprocess.run([sys.executable, "-m", "zoo", *arguments]).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"{what} failed (exit code {code}, its message is above): the same command goes on from there")
