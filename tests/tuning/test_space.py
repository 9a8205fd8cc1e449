"""What a sweep searches, as it is written on the command line."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from zoo.cli.sweep import _read
from zoo.errors import UserError
from zoo.tuning.space import parse_space


def space(*words: str):
    return parse_space(words, *_read(["--arch", "test_resnet", "--method", "robust_lowrank", "--adversary", "n_fgsm"]))


def test_ranges_and_lists_are_read_with_the_type_of_their_option() -> None:
    found = space("lr=0.02:0.2:log", "tau=1:9", "epochs=2:8", "alpha=0.5,1", "optimizer=sgd,adamw", "weight-decay=0:1")
    assert {d.key: d.distribution for d in found} == {
        "lr": FloatDistribution(0.02, 0.2, log=True),
        "method.tau": FloatDistribution(1.0, 9.0),
        "epochs": IntDistribution(2, 8),
        "adversary.alpha": CategoricalDistribution(["0.5", "1"]),
        "optimizer": CategoricalDistribution(["sgd", "adamw"]),
        "weight-decay": FloatDistribution(0.0, 1.0),
    }
    [methods] = space("method=lowrank,robust_lowrank(tau=0.2, convolution=tucker)")
    assert methods.extremes() == ["lowrank", "robust_lowrank(tau=0.2, convolution=tucker)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "write KEY=LOW:HIGH"),
        (["lr=0.2:0.02"], "from a smaller to a larger"),
        (["weight-decay=-inf:1"], "from a smaller to a larger"),
        (["lr=0:1:log"], "both above 0"),
        (["lr=a:b"], "must be numbers"),
        (["lr=0.1"], "at least two values"),
        (["lr=0.1,"], "at least two values"),
        (["epochs=2:8.5"], "whole numbers"),
        (["optimizer=sgd:adamw"], "is not a number; list its values"),
        (["tua=1,2"], "did you mean"),
        (["seed=1,2"], "luck"),
        (["eps=0.1,0.2"], "cannot be searched"),
        (["lr=0.1,0.2", "lr=0.3,0.4"], "lr twice"),
        (["method=lowrank,dense", "method.tau=1,2"], "goes with one method"),
        ([], "nothing is searched"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space(*words)


def test_all_mistakes_of_a_search_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"seed.*tua.*lr=1"):
        space("seed=1,2", "tua=1,2", "lr=1")
