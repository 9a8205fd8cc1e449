"""The page of a sweep: what is best, what decides, and what is not to be believed."""

import optuna
import pytest
import torch
from html_page import Elements
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from zoo.report.page import render
from zoo.tuning.figures import gather
from zoo.tuning.page import compose
from zoo.tuning.queue import INDEX

PLAN = {
    "objectives": ["cr", "latency"],
    "search": {"lr": "0.01:1:log", "tau": "0:1", "optimizer": "sgd,adamw"},
    "recipe": {},
    "images": {"n": 5},
}


def made_up(n: int = 30) -> optuna.Study:
    """A study in which only lr decides the accuracy, and the last trial is not to be believed."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    distributions = {
        "lr": FloatDistribution(0.01, 1, log=True),
        "tau": FloatDistribution(0, 1),
        "optimizer": CategoricalDistribution(["sgd", "adamw"]),
    }
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        u, v, w = torch.rand(3, generator=generator).tolist()
        params = {"lr": 0.01 * 100**u, "tau": v, "optimizer": "sgd" if w < 0.5 else "adamw"}
        study.add_trial(
            create_trial(values=[u, 1 + w], params=params, distributions=distributions, user_attrs={INDEX: i})
        )
    trial = study.ask(distributions)
    trial.set_user_attr(INDEX, n)
    trial.set_constraint("doubts", 1.0)
    study.tell(trial, [1.0, 0.5])
    return study


def test_a_trial_that_cannot_be_believed_is_neither_on_the_front_nor_the_best() -> None:
    found = gather(made_up(), PLAN)
    assert found.trials[-1].doubtful
    assert found.trials[-1] not in found.front
    assert found.best is not None
    assert found.best.figures["cr"] == max(t.figures["cr"] for t in found.trials[:-1])


def test_the_option_that_decides_has_the_largest_importance() -> None:
    shares = gather(made_up(), PLAN).importances["cr"]
    assert max(shares, key=lambda key: shares[key]) == "lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_the_page_shows_front_importances_and_every_trial() -> None:
    page = compose(gather(made_up(), PLAN))
    assert [chart.name for chart in page.charts()][:2] == ["front-cr-latency", "importances"]
    table = page.sections[-1].blocks[0]
    assert len(table.rows) == 31
    assert sum(row[1].text == "best" for row in table.rows) == 1
    html = render(page)
    assert all(f"trial-0{i:02}" in html for i in range(31))
    Elements(html)


def test_a_sweep_of_one_objective_shows_its_history() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask({"lr": FloatDistribution(0.1, 1)})
    trial.set_user_attr(INDEX, 0)
    study.tell(trial, 0.5)
    found = gather(study, PLAN | {"objectives": ["cr"], "search": {"lr": "0.1:1"}})
    assert found.best is not None
    assert next(compose(found).charts()).name == "history-cr"
