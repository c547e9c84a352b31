"""The studies by name."""

from __future__ import annotations

from depthlm_ros.training.studies.answer import ANSWER
from depthlm_ros.training.studies.focal import FOCAL
from depthlm_ros.training.studies.grpo import STUDY_GRPO
from depthlm_ros.training.studies.labels import LABELS
from depthlm_ros.training.studies.reference import REFERENCE
from depthlm_ros.training.studies.reuse import REUSE_STUDY
from depthlm_ros.training.studies.study import Study, StudyError

_ALL = (FOCAL, REFERENCE, LABELS, STUDY_GRPO, ANSWER, REUSE_STUDY)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}


def study_named(name: str) -> Study:
    """Find a study.

    Raises:
        StudyError: There is none of that name.
    """
    if name not in STUDIES:
        raise StudyError(f"there is no study {name!r}; expected one of {', '.join(STUDIES)}")
    return STUDIES[name]
