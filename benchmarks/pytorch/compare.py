"""The engine against PyTorch on the same model, weights, tokens and libtorch; see README.md of
benchmarks/. Started by scripts/bench-pytorch with the Python of the wheel's environment.

Turns alternate: ours, theirs, ours, theirs. Each side's figure is the median over the steps of all
its turns without the first two of a turn; a ratio is theirs by ours, above one where the engine is
faster. `wall` is the step as a whole, without a trace. `cpu` is the processor time of the thread
that computes, on both sides: what a rank does outside communication, since neither side's thread
uses its core while it waits, and both leave the transport to other threads. A machine that others
use as well disturbs it less.
"""

import argparse
import glob
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DROPPED = 2  # steps at the start of a turn: pages, caches, primitives made on first use
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "cuda"))
    parser.add_argument("--models", default="qwen3-moe-10m,qwen3-dense-5m")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=8, help=f"a turn, {DROPPED} not counted")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def fail(message):
    print(f"bench-pytorch: {message}", file=sys.stderr)
    sys.exit(6)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2)


class Case:
    """A model, a precision and a number of ranks: the files both sides read."""

    def __init__(self, folder, build, model, dtype, ranks):
        self.name = f"{model}, {dtype}, {ranks} rank" + ("s" if ranks > 1 else "")
        self.model, self.dtype, self.ranks, self.build = model, dtype, ranks, build
        self.folder = os.path.join(folder, f"{model}-{dtype}-{ranks}")
        os.makedirs(self.folder, exist_ok=True)
        self.data = os.path.join(folder, "text.txt")
        self.workload = self.path("workload.json")
        self.plan = self.path("plan.json")
        with open(f"{ROOT}/configs/workloads/demo-local.json", encoding="utf-8") as source:
            workload = json.load(source)
        workload.update(name="bench", global_sequences=2 * ranks, compute=dtype)
        workload["optimizer"]["lr"] = 1e-3
        write_json(self.workload, workload)
        with open(f"{ROOT}/configs/clusters/local-cpu.json", encoding="utf-8") as source:
            cluster = json.load(source)
        cluster.update(devices=ranks, devices_per_node=ranks, cores_per_node=ranks)
        write_json(self.path("cluster.json"), cluster)
        with open(f"{ROOT}/configs/models/{model}.json", encoding="utf-8") as source:
            write_json(self.path("config.json"), json.load(source))
        pins = {"dp": ranks, "fsdp_d": ranks, "ep": 1, "micro_batch": 2, "recompute_layers": 0,
                "loss_tokens": 0, "attention_query": 0}
        command = [f"{build}/orrery", "plan", "--model", model, "--cluster",
                   self.path("cluster.json"), "--workload", self.workload, "-o", self.plan]
        for name, value in pins.items():
            command += ["--pin", f"{name}={value}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fail(done.stderr)

    def path(self, name):
        return os.path.join(self.folder, name)


def environment():
    env = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="passive",
               TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", GLOO_SOCKET_IFNAME="lo",
               TRANSFORMERS_VERBOSITY="error")
    return env


def pinned(ranks, rank=0):
    """One rank has one core to itself; several share what there is, on both sides."""
    if ranks > 1:
        return []
    return ["taskset", "-c", str(max(os.sched_getaffinity(0)))]


def thread_seconds(pid):
    """Processor time of the first thread of a process, which is the one that computes."""
    with open(f"/proc/{pid}/task/{pid}/schedstat", encoding="ascii") as stat:
        return int(stat.read().split()[0]) * 1e-9


def ranks_of(pid, ranks):
    if ranks == 1:
        return [pid]
    children = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="ascii") as listed:
            children += [int(word) for word in listed.read().split()]
    return children


def ours(case, steps):
    command = [f"{case.build}/orrery-engine", "run", case.plan, "--data", case.data,
               "--out", case.path("run.db"), "--steps", str(steps), "--no-trace"]
    if case.ranks > 1:
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
                   "mpi_yield_when_idle", "1", "-np", str(case.ranks)] + command
    result = {"seconds": [], "loss": []}
    clocks = []
    with subprocess.Popen(pinned(case.ranks) + command, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, env=environment()) as process:
        log = []
        for line in process.stdout:
            log.append(line)
            found = re.match(r"step \d+/\d+ \| loss (\S+) \| (\S+) (s|ms|us) ", line)
            if not found:
                continue
            result["loss"].append(float(found[1]))
            result["seconds"].append(float(found[2]) * UNITS[found[3]])
            try:
                clocks.append([thread_seconds(p) for p in ranks_of(process.pid, case.ranks)])
            except OSError:  # the last line, and a rank has gone
                clocks.append(None)
    if process.returncode != 0 or len(result["seconds"]) != steps:
        fail("".join(log))
    # A step's line comes when its step has ended; the last one may come too late to be read.
    result["cpu"] = [statistics.mean(now) - statistics.mean(before)
                     for before, now in zip(clocks, clocks[1:])
                     if before is not None and now is not None and len(now) == len(before)]
    return result


def theirs(case, steps):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(case.ranks):
        env = dict(environment(), RANK=str(rank), WORLD_SIZE=str(case.ranks),
                   MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        command = pinned(case.ranks, rank) + [
            sys.executable, os.path.join(HERE, "train.py"), "--model", case.folder, "--workload",
            case.workload, "--data", case.data, "--rows", "2", "--steps", str(steps)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env,
                                          stderr=subprocess.PIPE))
    outputs = [process.communicate() for process in processes]
    if any(process.returncode != 0 for process in processes):
        fail(outputs[0][1])
    return json.loads(outputs[0][0])


def run_case(case, arguments):
    sides = {"ours": {"wall": [], "cpu": [], "loss": []},
             "theirs": {"wall": [], "cpu": [], "loss": []}}
    for turn in range(arguments.rounds):
        print(f"{case.name}: turn {turn + 1} of {arguments.rounds}", file=sys.stderr)
        for side, train in (("ours", ours), ("theirs", theirs)):
            result = train(case, arguments.steps)
            sides[side]["wall"] += result["seconds"][DROPPED:]
            # The engine's first clock is read after its first step.
            sides[side]["cpu"] += result["cpu"][DROPPED - (side == "ours"):]
            sides[side]["loss"] = result["loss"]
    row = {"case": case.name, "model": case.model, "dtype": case.dtype, "ranks": case.ranks}
    for figure in ("wall", "cpu"):
        ours_s = statistics.median(sides["ours"][figure])
        theirs_s = statistics.median(sides["theirs"][figure])
        row[figure] = {"ours_s": ours_s, "theirs_s": theirs_s, "ratio": theirs_s / ours_s}
    first, last = (abs(sides["ours"]["loss"][i] / sides["theirs"]["loss"][i] - 1) for i in (0, -1))
    row["loss"] = {"ours": sides["ours"]["loss"], "theirs": sides["theirs"]["loss"],
                   "first_step_differs_by": first, "last_step_differs_by": last}
    if first > (1e-4 if case.dtype == "fp32" else 2e-3):
        fail(f"{case.name}: the losses of the first step differ by {first:.1e}: not the same work")
    return row


def print_row(row):
    print(f"{row['case']:32s} {1e3 * row['wall']['ours_s']:8.1f} {1e3 * row['wall']['theirs_s']:8.1f}"
          f" {row['wall']['ratio']:7.3f} {1e3 * row['cpu']['ours_s']:9.1f}"
          f" {1e3 * row['cpu']['theirs_s']:8.1f} {row['cpu']['ratio']:7.3f}"
          f"   {row['loss']['first_step_differs_by']:.0e} {row['loss']['last_step_differs_by']:.0e}",
          flush=True)


def main():
    arguments = parse()
    import torch
    import transformers
    folder = os.path.join(arguments.build, "bench-pytorch")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "text.txt"), "w", encoding="utf-8") as out:
        for path in sorted(glob.glob(f"{ROOT}/docs/*.md") + glob.glob(f"{ROOT}/*.md")):
            with open(path, encoding="utf-8") as text:
                out.write(text.read())
    report = {"schema_version": 1, "torch": torch.__version__,
              "transformers": transformers.__version__, "cores": os.cpu_count(),
              "load_average_before": os.getloadavg()[0], "rounds": arguments.rounds,
              "steps_counted_a_turn": arguments.steps - DROPPED, "began": time.time(), "rows": []}
    if not arguments.json:
        print(f"{'':32s} {'wall, ms a step':>17s} {'':7s} {'cpu, ms a step':>18s}")
        print(f"{'':32s} {'ours':>8s} {'theirs':>8s} {'ratio':>7s} {'ours':>9s} {'theirs':>8s}"
              f" {'ratio':>7s}   losses differ by (first, last step)")
    for ranks in map(int, arguments.ranks.split(",")):
        for model in arguments.models.split(","):
            for dtype in arguments.dtypes.split(","):
                row = run_case(Case(folder, arguments.build, model, dtype, ranks), arguments)
                report["rows"].append(row)
                if not arguments.json:
                    print_row(row)
    report["load_average_after"] = os.getloadavg()[0]
    if arguments.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
