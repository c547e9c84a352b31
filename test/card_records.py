"""A training record as `depthlm train` writes one of its staged recipe, for the tests of the model card."""

STAGE = {"dense_weight": 1.0, "pointing_weight": 0.2, "pointed_weight": 0.3, "frozen_share": 0.35}
TRAINING = {
    "parameters": 4321000,
    "device": "CPU",
    "wall_minutes": {"vision": 55.5, "text": 30.0},
    "recipe": {
        "vision": STAGE,
        "text": {**STAGE, "dense_weight": 0.7},
        "data": {"train_views": 77, "task_share": 0.2},
    },
    "test": {"robot": {"delta1": 0.987}},
}
