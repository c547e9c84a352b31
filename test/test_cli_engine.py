"""``depthlm engine check``: what is there, what is missing, what to do, and an exit code to rely on."""

import ctypes
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from depthlm_ros.cli import app
from depthlm_ros.engines import check_engines
from depthlm_ros.engines.check_machine import (
    Driver,
    Gpu,
    PythonFacts,
    read_driver,
    read_python,
    weights_gib,
)

H200 = Gpu("NVIDIA H200", 139.8, (9, 0))
WORKER = PythonFacts(
    python="3.12.3",
    packages={
        "tensorrt_llm": "1.2.0", "numpy": "1.26.4", "torch": "2.9.0", "transformers": "4.57.1", "pillow": "10.3.0",
        "mpi4py": "4.0.0",
    },
    importable=True,
    requires=("numpy<2", "nvidia-nccl-cu13>=2.28", "transformers==4.57.1", "evaluate ; extra == 'devel'"),
    libmpi="libmpi.so.40",
)  # fmt: skip


@pytest.fixture
def machine(monkeypatch):
    """Sets what this machine seems to have."""

    def have(driver=None, worker=WORKER, board=""):
        monkeypatch.setattr(check_engines, "read_driver", lambda: driver or Driver((13, 0), (H200,)))
        monkeypatch.setattr(check_engines, "read_python", lambda python: worker)
        monkeypatch.setattr(check_engines, "jetson", lambda: board)
        monkeypatch.setattr(check_engines.platform, "machine", lambda: "x86_64")

    have()
    return have


def check(*arguments):
    result = CliRunner().invoke(app, ["engine", "check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


TENSORRT = ("--engine", "tensorrt_llm", "--dtype", "bfloat16")


def test_the_default_engine_runs_here():
    code, said = check()
    assert code == 0
    assert "transformers (configured): can run" in said
    for name in ("openai", "tensorrt_llm"):
        assert f"{name}: can" in said
    assert len(CliRunner().invoke(app, ["engine", "check"]).output.splitlines()) <= 40


def test_all_is_there_for_tensorrt_llm(machine):
    code, said = check(*TENSORRT)
    assert code == 0
    assert "tensorrt_llm (configured): can run" in said
    for fact in (
        "tensorrt_llm 1.2.0",
        "NVIDIA H200, 140 GiB, compute capability 9.0",
        "CUDA 13.0",
        "numpy 1.26.4 (wanted <2)",
    ):
        assert fact in said


@pytest.mark.parametrize(
    ("has", "says"),
    [
        ({"driver": Driver(problem="no CUDA driver (libcuda.so.1)")}, "MISSING no CUDA driver"),
        ({"driver": Driver((12, 8), (H200,))}, "MISSING tensorrt_llm is built for CUDA 13 but the driver runs 12.8"),
        ({"worker": PythonFacts(problem="/no/python: not found")}, "MISSING /no/python: not found"),
        ({"worker": PythonFacts(python="3.11.7")}, "MISSING tensorrt_llm is not installed for it"),
        ({"board": "NVIDIA Jetson AGX Orin"}, "MISSING NVIDIA Jetson AGX Orin: TensorRT-LLM runs on no Jetson"),
        ({"driver": Driver((13, 0), (Gpu("tiny", 0.001, (8, 0)),))}, "does not fit into the GPU"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_and_fails(machine, has, says):
    machine(**has)
    code, said = check(*TENSORRT)
    assert code == 1
    assert "tensorrt_llm (configured): cannot run" in said
    assert says in said


@pytest.mark.parametrize(
    ("packages", "libmpi", "says"),
    [
        ({"numpy": "2.2.6"}, "libmpi.so.40", "MISSING numpy 2.2.6 but tensorrt_llm wants <2: pip install 'numpy<2'"),
        ({"tensorrt_llm": "0.21.0"}, "libmpi.so.40", "MISSING TensorRT-LLM 0.21.0 is too old"),
        ({"torch": None}, "libmpi.so.40", "MISSING torch is not installed beside tensorrt_llm"),
        ({"mpi4py": None}, "", "MISSING no MPI library: sudo apt-get install libopenmpi-dev"),
    ],
)  # fmt: skip
def test_a_worker_python_with_something_wrong(machine, packages, libmpi, says):
    found = {name: version for name, version in {**WORKER.packages, **packages}.items() if version}
    machine(worker=PythonFacts("3.12.3", found, True, WORKER.requires, libmpi))
    code, said = check(*TENSORRT)
    assert code == 1
    assert says in said


def test_the_embedded_float32_default_is_refused_for_tensorrt_llm(machine):
    code, said = check("--engine", "tensorrt_llm")
    assert code == 1
    assert "set engine.dtype bfloat16" in said


def test_what_transformers_lacks(machine, tmp_path):
    code, said = check("--checkpoint", str(tmp_path / "none"))
    assert code == 1
    assert "is not a directory" in said
    machine(driver=Driver(problem="no CUDA driver (libcuda.so.1)"))
    code, said = check("--device", "cuda")
    assert code == 1
    assert "transformers (configured): cannot run" in said
    assert check("--device", "cpu")[0] == 0


@pytest.fixture
def server():
    """A server on loopback that lists one model; the address it has."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"object": "list", "data": [{"id": "depthlm-7b"}]}).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_servers_are_asked_for_their_models(server):
    base = ("--engine", "openai", "--set", f"engine.base_urls={server}")
    code, said = check(*base, "--set", "engine.model=depthlm-7b")
    assert code == 0
    assert f"ok {server} answers; its models: depthlm-7b" in said
    code, said = check(*base, "--set", "engine.model=other")
    assert code == 1
    assert "has no model 'other' but depthlm-7b" in said
    code, said = check(*base)
    assert code == 1
    assert "MISSING engine.model is empty" in said


def test_a_server_that_is_not_there():
    code, said = check(
        "--engine", "openai", "--set", "engine.base_urls=http://127.0.0.1:9", "--set", "engine.model=m"
    )
    assert code == 1
    assert "MISSING http://127.0.0.1:9: " in said
    assert "start the server" in said


class FakeCuda:
    """STANDS IN for libcuda.so.1."""

    def __init__(self, status=0, gpus=1):
        self.status, self.gpus = status, gpus

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 12080
        return 0

    def cuInit(self, flags):  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, number):  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name, size, device):  # noqa: N802
        ctypes.memmove(name, b"A GPU\0", 6)
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):  # noqa: N802
        memory._obj.value = 24 * 2**30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0


def test_the_driver_is_asked():
    assert read_driver(lambda name: FakeCuda()) == Driver((12, 8), (Gpu("A GPU", 24.0, (8, 9)),))
    assert read_driver(lambda name: FakeCuda(gpus=0)).problem == "the CUDA driver finds no GPU"
    assert "cuInit says 999" in read_driver(lambda name: FakeCuda(status=999)).problem

    def none(name):
        raise OSError(name)

    assert read_driver(none) == Driver(problem="no CUDA driver (libcuda.so.1)")


def test_a_python_is_asked(tmp_path, monkeypatch):
    record = tmp_path / "tensorrt_llm-1.2.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 1.2.0\nRequires-Dist: numpy<2\n"
    )
    (tmp_path / "tensorrt_llm").mkdir()
    (tmp_path / "tensorrt_llm" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    facts = read_python(sys.executable)
    assert facts.problem == ""
    assert facts.packages["tensorrt_llm"] == "1.2.0"
    assert facts.requires == ("numpy<2",)
    assert facts.importable
    assert facts.python == sys.version.split()[0]
    assert "No such file" in read_python(str(tmp_path / "python")).problem


def test_weights_are_weighed(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"0" * 2**20)
    (tmp_path / "b.bin").write_bytes(b"0" * 2**20)
    assert weights_gib(tmp_path) == 2**-10
