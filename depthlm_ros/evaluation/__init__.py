"""How well a checkpoint answers: the benchmark reader, the metrics and the trivial predictors beside them."""

from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage, read_benchmark
from depthlm_ros.evaluation.results import Evaluation
from depthlm_ros.evaluation.run import evaluate

__all__ = ["BenchmarkError", "Evaluation", "LabelledImage", "evaluate", "read_benchmark"]
