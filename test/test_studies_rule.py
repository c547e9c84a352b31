"""``depthlm study``: the rule by which a finding is judged, and the runner."""

import dataclasses
import json
import math
from statistics import fmean

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from study_toys import of_arms, toy_options, toy_views  # noqa: F401

from depthlm_ros.training.studies.focal import FOCAL
from depthlm_ros.training.studies.registry import STUDIES
from depthlm_ros.training.studies.report import spread, write_results, write_section
from depthlm_ros.training.studies.runner import run_study
from depthlm_ros.training.studies.study import LEAD, Study, StudyError
from depthlm_ros.training.studies.trivial import PREDICTORS, Asked, trivial_scores
from depthlm_ros.training.studies.verdict import Claim, Floor, Verdict, judge

# --- the rule --------------------------------------------------------------------------------------------------

BETTER = Claim("a is better", "a", "b")
NO_WORSE = Claim("a is hardly worse", "a", "b", margin=0.05)
BLIND = Floor("row_prior", (0.24, 0.25, 0.26), 0.05)


@pytest.mark.parametrize(
    ("claim", "better", "than", "verdict"),
    [
        # Differences 0.10, 0.12, 0.14: mean 0.12, standard error 0.02 / sqrt(3) = 0.0115; t = 4.303 of two degrees
        # of freedom makes an interval of 0.0497 to either side.
        (BETTER, (0.50, 0.52, 0.54), (0.40, 0.40, 0.40), Verdict.CONFIRMED),
        (BETTER, (0.40, 0.40, 0.40), (0.50, 0.52, 0.54), Verdict.CONTRADICTED),
        # 0.30, 0.30, -0.01: one seed disagrees.
        (BETTER, (0.70, 0.70, 0.39), (0.40, 0.40, 0.40), Verdict.NOT_CONFIRMED),
        # 0.01, 0.01, 0.20: all agree, but the interval of 0.073 reaches 0.27 to either side.
        (BETTER, (0.41, 0.41, 0.60), (0.40, 0.40, 0.40), Verdict.NOT_CONFIRMED),
        (BETTER, (0.90,), (0.10,), Verdict.NOT_CONFIRMED),
        (BETTER, (0.90, math.nan), (0.10, 0.10), Verdict.NOT_CONFIRMED),
        # -0.01, -0.02, -0.03: mean -0.02, standard error 0.0058, interval from -0.0448.
        (NO_WORSE, (0.39, 0.38, 0.37), (0.40, 0.40, 0.40), Verdict.CONFIRMED),
        (NO_WORSE, (0.30, 0.31, 0.29), (0.40, 0.40, 0.40), Verdict.CONTRADICTED),
        # -0.02, -0.03, -0.04: the same around -0.03 reaches to either side of the margin: from -0.0548.
        (NO_WORSE, (0.38, 0.37, 0.36), (0.40, 0.40, 0.40), Verdict.NOT_CONFIRMED),
        # 0.00, -0.08: mean -0.04, but with two seeds t = 12.7.
        (NO_WORSE, (0.40, 0.32), (0.40, 0.40), Verdict.NOT_CONFIRMED),
    ],
)
def test_the_rule_judges_by_paired_seeds(claim, better, than, verdict):
    assert judge(claim, better, than, delta1=0.5, floors=[BLIND]).verdict is verdict


def test_a_judgement_tells_its_numbers():
    judged = judge(BETTER, (0.50, 0.52, 0.54), (0.40, 0.40, 0.40), delta1=0.52, floors=[BLIND])
    assert judged.differences == pytest.approx((0.10, 0.12, 0.14))
    assert judged.mean == pytest.approx(0.12)
    assert judged.error == pytest.approx(0.02 / math.sqrt(3))


# What arms that learnt nothing score: means 0.200 and 0.203, differences -0.01, 0.00, 0.00.
IDLE, AS_IDLE = (0.20, 0.21, 0.19), (0.21, 0.20, 0.20)


@pytest.mark.parametrize(
    ("claim", "better", "than"),
    [
        (NO_WORSE, IDLE, AS_IDLE),
        (BETTER, IDLE, AS_IDLE),
        (BETTER, AS_IDLE, (0.10, 0.11, 0.09)),  # better in every seed, and still blind
        (BETTER, (0.10, 0.11, 0.09), AS_IDLE),
    ],
)
def test_arms_that_learnt_nothing_are_not_judged(claim, better, than):
    judged = judge(claim, better, than, delta1=max(map(fmean, (better, than))), floors=[BLIND])
    assert judged.verdict is Verdict.NOT_JUDGED
    assert judged.reason == (
        f"neither arm has a delta1 of 0.05 above row_prior (0.250): the better one has {fmean(AS_IDLE):.3f}"
    )


def test_the_floor_is_the_highest_that_is_not_reached():
    start = Floor("the start", (0.60, 0.62), 0.02)
    floors = [BLIND, start]
    short = judge(NO_WORSE, (0.62, 0.62), (0.61, 0.61), delta1=0.62, floors=floors)
    assert (short.verdict, "the start (0.610)" in short.reason) == (Verdict.NOT_JUDGED, True)
    enough = judge(NO_WORSE, (0.64, 0.64), (0.63, 0.63), delta1=0.64, floors=floors)
    assert (enough.verdict, enough.reason) == (Verdict.CONFIRMED, "")


@pytest.mark.parametrize(
    ("delta1", "floors"),
    [(math.nan, [Floor("row_prior", (0.2,), 0.05)]), (0.9, [Floor("row_prior", (), 0.05)]), (0.9, [])],
)
def test_what_was_not_measured_judges_nothing(delta1, floors):
    assert judge(BETTER, (0.9, 0.9), (0.1, 0.1), delta1=delta1, floors=floors).verdict is Verdict.NOT_JUDGED


def test_an_arm_without_eyes_is_never_hardly_worse_than_one_that_is_judged():
    for study in STUDIES.values():
        assert all(claim.margin is None or claim.margin <= LEAD for claim in study.claims)


def test_predictors_without_eyes_are_scored_on_the_queries():
    """Rows 0 and 90 of 96 lie in the first and the last band; the truth of both bands by hand."""
    near = [Asked(np.array([90]), 96, np.array([z])) for z in (1.0, 1.0, 1.0)]
    far = [Asked(np.array([0]), 96, np.array([z])) for z in (4.0, 4.0, 40.0)]
    scores = trivial_scores({"robot": near + far, "wide": near})
    # The others of the first band: medians 22, 22 and 4 metres, all of them misses. The constant: 1 m.
    assert scores["row_prior"] == {"delta1": 0.75, "delta1_robot": 0.5, "delta1_wide": 1.0}
    assert scores["best_constant"] == {"delta1": 0.75, "delta1_robot": 0.5, "delta1_wide": 1.0}
    assert trivial_scores({"robot": near})["row_prior"] == {"delta1": 1.0}


def test_every_claim_is_about_arms_and_figures_that_exist():
    for study in STUDIES.values():
        for claim in study.claims:
            assert {claim.better, claim.than} <= set(study.arms)
            assert claim.figure in study.figures


# --- the runner ------------------------------------------------------------------------------------------------


def blind(row_prior, best_constant=0.2):
    return lambda options, seed: {
        "row_prior": {"delta1": row_prior},
        "best_constant": {"delta1": best_constant},
    }


def counting_study(calls, prepared, trivial=None):
    def measure(options, arms, seed, folder):
        calls.append((arms, seed))
        return {arm: {"delta1": 0.5 + 0.1 * seed + (0.2 if arm == "a" else 0.0)} for arm in arms}

    return Study(
        "toy", "Why?", {"a": "this", "b": "that"}, 3, 4, 5, "{steps} steps of {batch}", "none", {"delta1": "hits"},
        (BETTER,), prepared.append, measure, trivial or blind(0.3),
    )  # fmt: skip


def test_finished_runs_are_kept_and_the_rest_goes_on(options):
    calls, prepared = [], []
    study = counting_study(calls, prepared)
    run_study(study, dataclasses.replace(options, seeds=1), processes=False)
    assert calls == [(("a",), 0), (("b",), 0)]
    (options.run / "runs" / "b_0" / "result.json").unlink()
    runs = run_study(study, options, processes=False)
    assert calls[2:] == [(("b",), 0), (("a",), 1), (("b",), 1)]
    assert [(run.arm, run.seed, run.figures["delta1"]) for run in runs] == [
        ("a", 0, 0.7), ("b", 0, 0.5), ("row_prior", 0, 0.3), ("best_constant", 0, 0.2),
        ("a", 1, pytest.approx(0.8)), ("b", 1, 0.6), ("row_prior", 1, 0.3), ("best_constant", 1, 0.2),
    ]  # fmt: skip
    assert run_study(study, options, processes=False) == runs
    assert len(calls) == 5
    assert len(prepared) == 2
    with pytest.raises(StudyError, match=r"other options \(steps\)"):
        run_study(study, dataclasses.replace(options, steps=3), processes=False)


def test_a_run_of_other_weights_or_settings_is_not_kept(options, tmp_path):
    base, study = tmp_path / "base", counting_study([], [])
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"old")
    options = dataclasses.replace(options, base=base)
    apart, apart_options = (
        dataclasses.replace(study, from_base=False),
        dataclasses.replace(options, run=tmp_path / "apart"),
    )
    run_study(study, options, processes=False)
    runs = run_study(apart, apart_options, processes=False)
    with pytest.raises(StudyError, match=r"other options \(settings\)"):
        run_study(dataclasses.replace(study, settings={"rate": 1}), options, processes=False)
    (base / "model.safetensors").write_bytes(b"new")
    with pytest.raises(StudyError, match=r"other options \(base_weights\)"):
        run_study(study, options, processes=False)
    assert run_study(apart, apart_options, processes=False) == runs


def test_results_and_document_come_from_the_runs(options, tmp_path):
    study = counting_study([], [])
    runs = run_study(study, options, processes=False)
    text = write_results(study, options, runs, "depthlm study toy")
    assert "| a | 0.750 (0.700 to 0.800; 0.071) |" in text
    assert "**Confirmed**: a is better" in text
    assert "| row_prior (no image) | 0.300 (0.300 to 0.300; 0.000) | - | - |" in text
    assert "at least 0.05 above each of them." in text
    assert "`delta1`: hits." in text
    record = json.loads((options.run / "results.json").read_text())
    assert record["claims"][0]["differences"] == pytest.approx([0.2, 0.2])
    assert len(record["runs"]) == 8
    document = tmp_path / "findings.md"
    document.write_text("before\n<!-- study: toy -->\n(nothing yet)\n<!-- end: toy -->\nafter\n")
    write_section(document, "toy", text)
    written = document.read_text()
    assert "(nothing yet)" not in written
    assert written.startswith("before\n<!-- study: toy -->\n`depthlm study toy`")
    assert written.endswith("<!-- end: toy -->\nafter\n")
    write_section(document, "toy", text)
    assert document.read_text() == written
    with pytest.raises(StudyError, match="study: focal"):
        write_section(document, "focal", text)


def test_a_table_says_why_a_claim_was_not_judged(options):
    study = counting_study([], [], blind(0.72))
    text = write_results(study, options, run_study(study, options, processes=False), "depthlm study toy")
    why = "neither arm has a delta1 of 0.05 above row_prior (0.720): the better one has 0.750"
    assert "**Not judged**: a is better" in text
    assert f"Not judged, since {why}." in text
    claim = json.loads((options.run / "results.json").read_text())["claims"][0]
    assert (claim["verdict"], claim["reason"]) == ("not judged", why)


def test_a_study_that_starts_from_a_model_must_improve_on_it(options):
    def measure(options, arms, seed, folder):
        return {arm: {"delta1": 0.70 + 0.01 * seed, "delta1_before": 0.69} for arm in arms}

    study = dataclasses.replace(counting_study([], []), measure=measure, start_lead=0.02)
    text = write_results(study, options, run_study(study, options, processes=False), "depthlm study toy")
    assert "0.02 above the model that they started from (0.690): the better one has 0.705." in text
    easier = dataclasses.replace(study, start_lead=0.01)
    again = write_results(easier, options, run_study(study, options, processes=False), "depthlm study toy")
    assert "**Not confirmed**: a is better" in again


def test_runs_of_before_the_predictors_are_kept_and_these_are_added(options):
    calls = []
    study = counting_study(calls, [])
    run_study(study, options, processes=False)
    for old in options.run.glob("runs/row_prior*"):
        (old / "result.json").unlink()
    assert [run.arm for run in run_study(study, options, processes=False)][2:4] == list(PREDICTORS)
    assert len(calls) == 4


def test_what_was_not_measured_is_said():
    assert spread([0.5, math.nan]) == "0.500, 1 not measured"
    assert spread([math.nan]) == "not measured"


def test_a_failed_process_is_named_and_leaves_no_result(options):
    with pytest.raises(StudyError, match="canonical, seed 0, ended with code 1"):
        run_study(dataclasses.replace(FOCAL, prepare=print), dataclasses.replace(options, views=options.run))
    assert not list(options.run.glob("runs/*/result.json"))
