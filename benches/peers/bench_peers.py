"""Times inference engines on one network, a process each, in turn, beside ours.

    python bench_peers.py --onnx MODEL.onnx [--ncnn FOLDER] [--engines onnxruntime,openvino] [--threads 2]
        [--imgsz 640] [--runs 20] [--rounds 5] [--ours COMMAND] [--csv FILE]

COMMAND prints, as its last line, a JSON object with `latency_ms.p50` and `latency_ms.min`; `{threads}` in it is
replaced. The rules of the comparison stand in README.md.
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

Step = Callable[[], object]


def onnxruntime_step(args: argparse.Namespace, image: np.ndarray) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return lambda: session.run(None, feed)


def openvino_step(args: argparse.Namespace, image: np.ndarray, precision: str = "f32") -> Step:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": args.threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(args.onnx, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: image}, share_inputs=True)


def ncnn_step(args: argparse.Namespace, image: np.ndarray) -> Step:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = args.threads
    folder = Path(args.ncnn)
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))

    def step() -> object:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(image[0]))
            return extractor.extract("out0")

    return step


ENGINES: dict[str, Callable[[argparse.Namespace, np.ndarray], Step]] = {
    "onnxruntime": onnxruntime_step,
    "openvino": openvino_step,
    "openvino-bf16": lambda args, image: openvino_step(args, image, "bf16"),
    "ncnn": ncnn_step,
}


@dataclass
class Latencies:
    """Milliseconds, one value for each round."""

    medians: list[float] = field(default_factory=list)
    minima: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.medians)

    @property
    def minimum(self) -> float:
        return min(self.minima)


def measure(args: argparse.Namespace) -> None:
    """Runs one engine in this process and prints its latencies as ours does."""
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, args.imgsz, args.imgsz), dtype=np.float32)
    step = ENGINES[args.measure](args, image)
    for _ in range(WARMUP_RUNS):
        step()
    times_ms = []
    for _ in range(args.runs):
        start = time.perf_counter()
        step()
        times_ms.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"latency_ms": {"min": min(times_ms), "p50": statistics.median(times_ms)}}))


def command_of(engine: str, args: argparse.Namespace) -> list[str]:
    if engine == OURS:
        return shlex.split(args.ours.replace("{threads}", str(args.threads)))
    command = [sys.executable, __file__, "--measure", engine]
    for name in ("onnx", "ncnn", "threads", "imgsz", "runs"):
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", str(value)]
    return command


def one_round(engine: str, args: argparse.Namespace, into: Latencies) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command_of(engine, args), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{engine}: exit status {done.returncode}: {done.stderr[-2000:]}")
    latency = json.loads(done.stdout.strip().splitlines()[-1])["latency_ms"]
    into.medians.append(latency["p50"])
    into.minima.append(latency["min"])


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


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
            name = f"{Path(args.onnx).stem}/1x3x{args.imgsz}x{args.imgsz}/{engine}"
            ratio = f"{results[OURS].median / latencies.median:.3f}" if OURS in results else ""
            rows.writerow([
                name, args.threads, args.rounds, args.runs, f"{latencies.minimum:.3f}", f"{latencies.median:.3f}", ratio,
            ])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--ncnn", help="folder of model.ncnn.param and model.ncnn.bin")
    parser.add_argument("--engines", default="onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=640)
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
    if "ncnn" in engines and not args.ncnn:
        parser.error("ncnn needs --ncnn FOLDER")
    results = {name: Latencies() for name in [*engines, *([OURS] if args.ours else [])]}
    for _ in range(args.rounds):
        for engine, latencies in results.items():
            one_round(engine, args, latencies)

    print(f"{Path(args.onnx).name}, {args.imgsz}x{args.imgsz}, {args.threads} threads, {args.rounds} rounds; milliseconds")
    for engine, latencies in results.items():
        line = f"  {engine:14} min {latencies.minimum:8.2f}   median {latencies.median:8.2f}"
        if args.ours and engine != OURS:
            line += f"   ours is {results[OURS].median / latencies.median:.3f} of it"
        print(line)
    if args.csv:
        append_csv(args.csv, args, results)


if __name__ == "__main__":
    main()
