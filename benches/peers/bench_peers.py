"""Times inference engines on one network, a process each, in turn, beside ours.

    python bench_peers.py [--onnx MODEL.onnx] [--ncnn FOLDER] [--torch MODEL.pt] [--engines onnxruntime,openvino]
        [--threads 2] [--imgsz 640] [--batch 1] [--device cpu] [--precision f32] [--runs 20] [--rounds 5]
        [--ours COMMAND] [--csv FILE]

COMMAND prints, as its last line, a JSON object with `latency_ms.p50` and `latency_ms.min`, and `gpu_ms` where a GPU
computes; `{threads}`, `{batch}` and `{precision}` in it are replaced. The rules of the comparison stand in README.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WARMUP_RUNS = 5
OURS = "ferroyolo"


@dataclass
class Step:
    """A network with its input."""

    # Runs it once and waits until the output is there.
    run: Callable[[], object]
    # Milliseconds that a GPU took for the last run, by its own clock.
    gpu_ms: Callable[[], float] | None = None


def torch_step(args: argparse.Namespace, image: np.ndarray, way: str = "eager") -> Step:
    """PyTorch on the CPU or a GPU: as it is, compiled, or recorded once as a CUDA graph that is replayed."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = {"f32": torch.float32, "f16": torch.float16}[args.precision]
    device = torch.device(args.device)
    network = YOLO(args.torch).model.fuse().eval().to(device, dtype)
    network = network.to(memory_format=torch.channels_last)
    tensor = torch.from_numpy(image).to(device, dtype).contiguous(memory_format=torch.channels_last)
    if way == "compiled":
        network = torch.compile(network)

    @torch.inference_mode()
    def run() -> object:
        return network(tensor)

    if way == "graph":
        # The libraries choose their kernels and take their memory before anything is recorded.
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(WARMUP_RUNS):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        run = graph.replay

    if device.type != "cuda":
        return Step(run)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run_and_wait() -> None:
        start.record()
        run()
        end.record()
        end.synchronize()

    return Step(run_and_wait, lambda: start.elapsed_time(end))


def onnxruntime_step(args: argparse.Namespace, image: np.ndarray) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return Step(lambda: session.run(None, feed))


def openvino_step(args: argparse.Namespace, image: np.ndarray, precision: str = "f32") -> Step:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": args.threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(args.onnx, "CPU", settings).create_infer_request()
    return Step(lambda: request.infer({0: image}, share_inputs=True))


def ncnn_step(args: argparse.Namespace, image: np.ndarray) -> Step:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = args.threads
    folder = Path(args.ncnn)
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))

    def run() -> object:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(image[0]))
            return extractor.extract("out0")

    return Step(run)


ENGINES: dict[str, Callable[[argparse.Namespace, np.ndarray], Step]] = {
    "onnxruntime": onnxruntime_step,
    "openvino": openvino_step,
    "openvino-bf16": lambda args, image: openvino_step(args, image, "bf16"),
    "ncnn": ncnn_step,
    "torch": torch_step,
    "torch-compiled": lambda args, image: torch_step(args, image, "compiled"),
    "torch-graph": lambda args, image: torch_step(args, image, "graph"),
}

# What an engine reads its network from.
NEEDS = {"onnxruntime": "onnx", "openvino": "onnx", "openvino-bf16": "onnx", "ncnn": "ncnn"}
NEEDS |= {name: "torch" for name in ENGINES if name.startswith("torch")}

# Engines that compute on GPUs, with 16-bit floats and several images at once.
GENERAL = [name for name in ENGINES if NEEDS[name] == "torch"]


@dataclass
class Latencies:
    """Milliseconds, one value for each round."""

    medians: list[float] = field(default_factory=list)
    minima: list[float] = field(default_factory=list)
    # Of the GPU alone, by its own clock; empty if the engine does not tell.
    on_gpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.medians)

    @property
    def minimum(self) -> float:
        return min(self.minima)

    @property
    def counted(self) -> float:
        """What counts beside others: the network alone, so without the ways to a GPU and back where they are known."""
        return statistics.median(self.on_gpu) if self.on_gpu else self.median


def measure(args: argparse.Namespace) -> None:
    """Runs one engine in this process and prints its latencies as ours does."""
    rng = np.random.default_rng(0)
    image = rng.random((args.batch, 3, args.imgsz, args.imgsz), dtype=np.float32)
    step = ENGINES[args.measure](args, image)
    for _ in range(WARMUP_RUNS):
        step.run()
    times_ms, gpu_times_ms = [], []
    for _ in range(args.runs):
        start = time.perf_counter()
        step.run()
        times_ms.append((time.perf_counter() - start) * 1e3)
        if step.gpu_ms:
            gpu_times_ms.append(step.gpu_ms())
    told = {"latency_ms": {"min": min(times_ms), "p50": statistics.median(times_ms)}}
    if gpu_times_ms:
        told["gpu_ms"] = statistics.median(gpu_times_ms)
    print(json.dumps(told))


def command_of(engine: str, args: argparse.Namespace) -> list[str]:
    if engine == OURS:
        command = args.ours
        for name in ("threads", "batch", "precision"):
            command = command.replace(f"{{{name}}}", str(getattr(args, name)))
        return shlex.split(command)
    command = [sys.executable, __file__, "--measure", engine]
    for name in ("onnx", "ncnn", "torch", "threads", "imgsz", "batch", "device", "precision", "runs"):
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", str(value)]
    return command


def one_round(engine: str, args: argparse.Namespace, into: Latencies) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command_of(engine, args), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{engine}: exit status {done.returncode}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    into.medians.append(told["latency_ms"]["p50"])
    into.minima.append(told["latency_ms"]["min"])
    if told.get("gpu_ms") is not None:
        into.on_gpu.append(told["gpu_ms"])


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def network(args: argparse.Namespace) -> Path:
    return Path(args.onnx or args.torch or args.ncnn)


def append_csv(path: Path, args: argparse.Namespace, results: dict[str, Latencies]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        if is_new:
            commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
            for name, value in {
                "date": datetime.datetime.now(datetime.UTC).date(), "commit": commit.stdout.strip() or "unknown",
                "cpu": cpu_name(), "cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
            }.items():
                file.write(f"# {name}: {value}\n")
            file.write("name,threads,rounds,runs,min_ms,p50_ms,ours_to_it\n")
        rows = csv.writer(file)
        for engine, latencies in results.items():
            name = f"{network(args).stem}/{args.batch}x3x{args.imgsz}x{args.imgsz}/{engine}"
            if args.device != "cpu" or args.precision != "f32":
                name += f"/{args.device}/{args.precision}"
            ratio = f"{results[OURS].counted / latencies.counted:.3f}" if OURS in results else ""
            rows.writerow([
                name, args.threads, args.rounds, args.runs, f"{latencies.minimum:.3f}", f"{latencies.median:.3f}", ratio,
            ])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", help="network of onnxruntime and openvino")
    parser.add_argument("--ncnn", help="folder of model.ncnn.param and model.ncnn.bin")
    parser.add_argument("--torch", help="checkpoint of the torch engines")
    parser.add_argument("--engines", default="onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the torch engines: cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=("f32", "f16"), default="f32", help="of the torch engines")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--measure", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    engines = [name for name in args.engines.split(",") if name]
    if unknown := [name for name in engines if name not in ENGINES]:
        parser.error(f"unknown engines {unknown}, expected some of {list(ENGINES)}")
    for name in engines:
        if getattr(args, NEEDS[name]) is None:
            parser.error(f"{name} needs --{NEEDS[name]}")
        if name not in GENERAL and (args.batch, args.device, args.precision) != (1, "cpu", "f32"):
            parser.error(f"{name} is timed on single images on the CPU in f32 only")
    if "torch-graph" in engines and not args.device.startswith("cuda"):
        parser.error("torch-graph needs --device cuda")
    if not engines:
        parser.error("no engines to time")
    results = {name: Latencies() for name in [*engines, *([OURS] if args.ours else [])]}
    for _ in range(args.rounds):
        for engine, latencies in results.items():
            one_round(engine, args, latencies)

    print(
        f"{network(args).name}, {args.batch}x3x{args.imgsz}x{args.imgsz}, {args.device}, {args.precision}, "
        f"{args.threads} threads, {args.rounds} rounds; milliseconds"
    )
    for engine, latencies in results.items():
        line = f"  {engine:14} min {latencies.minimum:8.2f}   median {latencies.median:8.2f}"
        if latencies.on_gpu:
            line += f"   on the GPU {latencies.counted:8.3f}"
        if args.ours and engine != OURS:
            line += f"   ours is {results[OURS].counted / latencies.counted:.3f} of it"
        print(line)
    if args.csv:
        append_csv(args.csv, args, results)


if __name__ == "__main__":
    main()
