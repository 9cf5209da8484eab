"""Measures what one op of training takes on a device, with PyTorch alone (2.1 or later; what a
version lacks is left out with a note). Writes samples that `orrery calibrate --from` reads:

  {"schema_version": 1, "device": {...}, "samples": [{"op", "dtype", "flops", "bytes", "groups",
   "ranks", "nodes", "passes", "seconds", "spread", "count", "source"}], "facts": {...},
   "notes": [...]}

usage: python tools/gpu_probe.py -o probe.json [--quick] [--resume] [--device cuda|cpu]

seconds is the median of `count` groups of calls after a warm-up, spread is (p90 - p10) / median.
bytes are those read and written; of a transfer, what a rank sends, its own part excluded. FLOPs
count a multiply-add as two; causal attention counts the pairs at or below the diagonal. Passes are
measured as eager PyTorch runs them, over buffers that caches do not hold. The file is written as it
goes: a run that was stopped goes on with --resume. Without a GPU: one line "no GPU: nothing
checked", exit 5; with --device cpu the same code runs with tiny sizes, which measures nothing of
use and shows that it works. At most about ten minutes. NOT RUN ON HARDWARE YET."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

SCHEMA_VERSION = 1
LIMIT_S = 540
CACHE_BYTES = 256 << 20  # what buffers in turn must hold, to come from memory
NAMES = {"bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}


def spread_of(values):
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return (deciles[8] - deciles[0]) / statistics.median(values)


class Timer:
    """Seconds a call, one figure for each of `groups` groups of calls."""

    def __init__(self, torch, device, quick):
        self.torch = torch
        self.cuda = device == "cuda"
        self.least_s = (0.01 if quick else 0.04) if self.cuda else 0.001
        self.groups = (5 if quick else 9) if self.cuda else 3

    def wait(self):
        if self.cuda:
            self.torch.cuda.synchronize()

    def group(self, body, count):
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(count):
                body()
            return (time.perf_counter() - start) / count
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            body()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / count

    def count_for(self, body):
        """Calls that together take long enough to measure; warms up on the way."""
        body()
        self.wait()
        count = 1
        while count < 4096:
            start = time.perf_counter()
            for _ in range(count):
                body()
            self.wait()
            if time.perf_counter() - start >= self.least_s:
                break
            count *= 2
        return count

    def seconds(self, body, groups=None):
        count = self.count_for(body)
        return [self.group(body, count) for _ in range(groups or self.groups)]


def in_turn(bodies):
    """A body that calls the next of several, so that caches do not hold their buffers."""
    state = {"next": 0}

    def call():
        body = bodies[state["next"]]
        state["next"] = (state["next"] + 1) % len(bodies)
        body()
    return call


class Probe:
    def __init__(self, torch, args):
        self.torch, self.args = torch, args
        self.device, self.quick, self.out = args.device, args.quick, args.out
        self.timer = Timer(torch, args.device, args.quick)
        self.start = self.written = time.monotonic()
        self.document = {"schema_version": SCHEMA_VERSION, "device": device_facts(torch, args),
                         "samples": [], "facts": {}, "notes": []}
        self.known = set()
        if args.resume:
            self.take_up()

    def take_up(self):
        """What an earlier, stopped run of the same device found. A file of another is an error."""
        if not os.path.exists(self.out):
            return
        with open(self.out) as f:
            found = json.load(f)
        if found.get("device", {}).get("name") != self.document["device"]["name"]:
            sys.exit("error: %s: is of %r, this is %r: give another -o" % (
                self.out, found.get("device", {}).get("name"), self.document["device"]["name"]))
        self.document["samples"] = found["samples"]
        self.document["facts"] = found.get("facts", {})
        self.known = {s["source"] for s in found["samples"]}

    def late(self):
        return time.monotonic() - self.start > LIMIT_S

    def note(self, text):
        if text not in self.document["notes"]:
            print("note: " + text, file=sys.stderr)
            self.document["notes"].append(text)

    def write(self):
        part = self.out + ".part"
        with open(part, "w") as f:
            json.dump(self.document, f, indent=1)
            f.write("\n")
        os.replace(part, self.out)
        self.written = time.monotonic()

    def has(self, what):
        return "gpu_probe: " + what in self.known

    def add(self, op, what, seconds, **fields):
        """One sample; `what` names it, and keeps --resume from measuring it again."""
        sample = {"op": op}
        sample.update({k: v for k, v in fields.items() if v is not None})
        sample.update({"seconds": statistics.median(seconds), "spread": spread_of(seconds),
                       "count": len(seconds), "source": "gpu_probe: " + what})
        self.document["samples"].append(sample)
        self.known.add(sample["source"])
        if time.monotonic() - self.written > 2:
            self.write()

    def measure(self, op, what, make, **fields):
        """Measures what make() returns, a body to call. A failure is a note, not the end."""
        if self.has(what):
            return
        if self.late():
            self.note("stopped after %d s: run it again with --resume" % LIMIT_S)
            return
        try:
            self.add(op, what, self.timer.seconds(make()), **fields)
        except (RuntimeError, AttributeError, NotImplementedError, TypeError, ValueError) as error:
            self.note("%s: left out: %s" % (what, str(error).strip().split("\n")[0][:160]))
        if self.timer.cuda:
            self.torch.cuda.empty_cache()

    def tensor(self, *shape, dtype=None):
        dtype = dtype or self.torch.bfloat16
        return self.torch.randn(*shape, device=self.device).to(dtype)


def clocks():
    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=" + query, "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [v.strip() for v in done.stdout.strip().split("\n")[0].split(",")]
    return dict(zip(query.split(","), values))


def device_facts(torch, args):
    facts = {"name": "cpu", "torch": str(torch.__version__), "quick": args.quick,
             "date": time.strftime("%Y-%m-%d")}
    if args.device == "cuda":
        p = torch.cuda.get_device_properties(0)
        facts.update({"name": p.name, "count": torch.cuda.device_count(),
                      "memory_bytes": p.total_memory, "processors": p.multi_processor_count,
                      "capability": "%d.%d" % (p.major, p.minor), "cuda": torch.version.cuda,
                      "clocks_before": clocks()})
    return facts


def product_bytes(m, n, k, size=2, out=2):
    return size * (m * k + n * k) + out * m * n


def gemm_shapes(probe):
    if probe.device == "cpu":
        return [(8, 32, 32), (64, 64, 64)]
    square = [(128, 1024, 1024), (512, 1024, 1024), (1024, 2048, 2048), (2048, 4096, 4096),
              (4096, 4096, 4096), (8192, 8192, 4096), (8192, 8192, 8192), (16384, 8192, 8192)]
    skinny = [(16, 4096, 4096), (64, 8192, 8192), (4096, 512, 4096), (8192, 1536, 7168),
              (8192, 7168, 2048), (4096, 32768, 4096), (4096, 151936, 2048)]
    return square + (skinny[1:3] if probe.quick else skinny)


def probe_gemm(probe):
    torch = probe.torch
    size = 16 if probe.device == "cpu" else 4096
    rows = [(shape, torch.bfloat16, 2) for shape in gemm_shapes(probe)]
    rows += [((size,) * 3, torch.float32, 4), ((size,) * 3, torch.float64, 8)]
    for (m, n, k), dtype, width in rows:
        def make(m=m, n=n, k=k, dtype=dtype):
            a, b = probe.tensor(m, k, dtype=dtype), probe.tensor(n, k, dtype=dtype)
            out = torch.empty(m, n, device=probe.device, dtype=dtype)
            return lambda: torch.mm(a, b.t(), out=out)
        name = NAMES[str(dtype).split(".")[1]]
        probe.measure("gemm", "gemm %s %dx%dx%d" % (name, m, n, k), make, dtype=name,
                      flops=2.0 * m * n * k, bytes=product_bytes(m, n, k, width, width))


def probe_fp8(probe):
    torch = probe.torch
    if not hasattr(torch, "float8_e4m3fn") or not hasattr(torch, "_scaled_mm"):
        probe.note("fp8: this PyTorch has no _scaled_mm: left out")
        return
    sizes = [(16, 32, 32)] if probe.device == "cpu" else [
        (1024, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 4096), (8192, 8192, 8192)]
    for m, n, k in sizes:
        def make(m=m, n=n, k=k):
            a = probe.tensor(m, k).to(torch.float8_e4m3fn)
            b = probe.tensor(n, k).to(torch.float8_e4m3fn).t()
            one = torch.ones((), device=probe.device)

            return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one,
                                            out_dtype=torch.bfloat16)
        probe.measure("gemm", "gemm fp8 %dx%dx%d" % (m, n, k), make, dtype="fp8_e4m3",
                      flops=2.0 * m * n * k, bytes=product_bytes(m, n, k, 1, 2))


def grouped_body(probe, groups, rows, n, k):
    """One kernel where PyTorch has it and the device runs it, else a loop. (body, which)"""
    torch = probe.torch
    a, b = probe.tensor(groups * rows, k), probe.tensor(groups, k, n)
    if hasattr(torch, "_grouped_mm"):
        ends = torch.arange(rows, groups * rows + 1, rows, device=probe.device, dtype=torch.int32)
        try:
            torch._grouped_mm(a, b, offs=ends)
            probe.timer.wait()
            return lambda: torch._grouped_mm(a, b, offs=ends), "one kernel"
        except (RuntimeError, NotImplementedError) as error:
            probe.note("grouped: _grouped_mm: %s" % str(error).split("\n")[0][:120])
    probe.note("grouped: a loop of products, one an expert: no grouped kernel here")
    parts = a.split(rows)
    return lambda: [torch.mm(part, weight) for part, weight in zip(parts, b)], "a loop"


def probe_grouped(probe):
    shapes = [(2, 8, 32, 32)] if probe.device == "cpu" else [
        (8, 128, 2048, 2048), (8, 512, 2048, 2048), (8, 2048, 2048, 2048), (8, 4096, 4096, 4096),
        (32, 256, 1536, 4096), (32, 1024, 1536, 4096), (64, 64, 1536, 2048), (64, 512, 1536, 2048)]
    for groups, rows, n, k in shapes:
        what = "grouped %d experts of %dx%dx%d" % (groups, rows, n, k)
        if any(probe.has("%s, %s" % (what, kind)) for kind in ("one kernel", "a loop")):
            continue
        try:
            body, kind = grouped_body(probe, groups, rows, n, k)
        except RuntimeError as error:
            probe.note("%s: left out: %s" % (what, str(error).split("\n")[0][:160]))
            continue
        probe.measure("grouped", "%s, %s" % (what, kind), lambda body=body: body, dtype="bf16",
                      groups=groups, flops=2.0 * groups * rows * n * k,
                      bytes=groups * product_bytes(rows, n, k))


def flash_only(torch):
    """A context in which attention is the flash kernel, or fails."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        return sdpa_kernel(SDPBackend.FLASH_ATTENTION)
    except ImportError:  # before 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=True, enable_math=False,
                                              enable_mem_efficient=False)


def probe_attention(probe):
    torch = probe.torch
    attend = torch.nn.functional.scaled_dot_product_attention
    dim = 16 if probe.device == "cpu" else 128
    shapes = [(16, 2)] if probe.device == "cpu" else [
        (512, 8), (1024, 16), (2048, 16), (4096, 16), (4096, 32), (8192, 32)]
    if probe.device == "cuda" and not probe.quick:
        shapes += [(16384, 32), (32768, 16)]
    for tokens, heads in shapes:
        pairs = tokens * (tokens + 1) / 2 * heads
        moved = 4.0 * heads * tokens * dim * 2  # q, k, v and the result

        def inputs(tokens=tokens, heads=heads):
            return [probe.tensor(1, heads, tokens, dim).requires_grad_() for _ in range(3)]

        def forward(tokens=tokens, heads=heads):
            q, k, v = (x.detach() for x in inputs(tokens, heads))

            def body():
                with flash_only(torch):
                    return attend(q, k, v, is_causal=True)
            return body

        def backward(tokens=tokens, heads=heads):
            q, k, v = inputs(tokens, heads)
            with flash_only(torch):
                out = attend(q, k, v, is_causal=True)
            grad = torch.ones_like(out)
            return lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)
        what = "flash attention %d tokens, %d heads of %d, causal" % (tokens, heads, dim)
        probe.measure("attention", what, forward, dtype="bf16", flops=4.0 * dim * pairs,
                      bytes=moved)
        probe.measure("attention", what + ", backward", backward, dtype="bf16",
                      flops=10.0 * dim * pairs, bytes=2 * moved)


def rms_norm(probe, x, weight):
    f = probe.torch.nn.functional
    if hasattr(f, "rms_norm"):
        return f.rms_norm(x, (x.shape[-1],), weight)
    probe.note("norm: no rms_norm in this PyTorch: several kernels in its place")
    scale = probe.torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
    return x * scale.to(x.dtype) * weight


def passes_over(probe, elements):
    """(op, name, make(), bytes) of passes over `elements` bf16 numbers."""
    torch, f = probe.torch, probe.torch.nn.functional
    cols = 64 if probe.device == "cpu" else 2048
    rows = max(1, elements // cols)
    size = 2.0 * rows * cols
    turns = 1 if probe.device == "cpu" else min(1024, max(1, math.ceil(CACHE_BYTES / size)))

    def index(most):
        return torch.randint(0, most, (rows,), device=probe.device)

    def of(tensors, body, *others):
        """Makes the body over fresh tensors, as many of them in turn as caches do not hold."""
        def one():
            given = [probe.tensor(rows, cols) for _ in range(tensors)] + [o() for o in others]
            return lambda: body(*given)
        return lambda: in_turn([one() for _ in range(turns)])
    return [
        ("stream", "copy", of(2, lambda x, y: y.copy_(x)), 2 * size),
        ("stream", "add", of(3, lambda x, y, z: torch.add(x, y, out=z)), 3 * size),
        ("norm", "rms norm", of(1, lambda x, w: rms_norm(probe, x, w), lambda: probe.tensor(cols)),
         2 * size),
        ("activation", "SwiGLU, eager", of(2, lambda gate, up: f.silu(gate) * up), 3 * size),
        ("loss", "softmax", of(1, lambda x: torch.softmax(x, -1)), 2 * size),
        ("loss", "cross entropy", of(1, f.cross_entropy, lambda: index(cols)), size + 8.0 * rows),
        ("rows", "rows gathered", of(1, lambda x, i: torch.index_select(x, 0, i),
                                     lambda: index(rows)), 2 * size + 8.0 * rows)]


def probe_passes(probe):
    powers = [14] if probe.device == "cpu" else range(16, 31, 4 if probe.quick else 2)
    for size in (1 << p for p in powers):
        for op, name, make, moved in passes_over(probe, size // 2):
            probe.measure(op, "%s of %d bytes" % (name, size), make, dtype="bf16", bytes=moved)


def probe_optimizer(probe):
    """Gradient, parameter and two moments are read, all but the gradient written: 28 bytes each."""
    torch = probe.torch
    kind = "fused" if probe.device == "cuda" else "foreach"
    for n in [1 << 10] if probe.device == "cpu" else [1 << 16, 1 << 20, 1 << 24, 1 << 27]:
        def make(n=n):
            parameter = torch.nn.Parameter(probe.tensor(n, dtype=torch.float32))
            parameter.grad = torch.ones_like(parameter)
            return torch.optim.AdamW([parameter], **{kind: True}).step
        probe.measure("optimizer", "AdamW %s of %d fp32" % (kind, n), make, dtype="fp32",
                      bytes=28.0 * n)


def probe_copies(probe):
    torch = probe.torch
    pinned = probe.device == "cuda"
    if not pinned:
        probe.note("copies: no pinned memory without CUDA: copies within the host")
    sizes = [1 << 12] if not pinned else [1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28]
    for size in sizes:
        def make(back, size=size):
            host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            device = torch.empty(size, dtype=torch.uint8, device=probe.device)
            to, of = (host, device) if back else (device, host)
            return lambda: to.copy_(of, non_blocking=True)
        probe.measure("copy_to_host", "to the host, %d bytes" % size, lambda: make(True),
                      bytes=float(size))
        probe.measure("copy_to_device", "to the device, %d bytes" % size, lambda: make(False),
                      bytes=float(size))


def probe_launch(probe):
    tiny = probe.torch.zeros(1, device=probe.device)
    probe.measure("launch", "a kernel on one number", lambda: lambda: tiny.add_(1))


def busy_product(probe):
    size = 32 if probe.device == "cpu" else 4096
    a, b = probe.tensor(size, size), probe.tensor(size, size)
    return lambda: probe.torch.mm(a, b)


def slowdowns(probe, compute, other):
    """How much longer each takes while the other runs on its own stream: (compute's, other's)."""
    torch, timer = probe.torch, probe.timer
    alone = [statistics.median(timer.seconds(body)) for body in (compute, other)]
    if not timer.cuda:
        probe.note("slowdowns: one stream without CUDA: nothing runs beside")
        return 1.0, 1.0
    side, results = torch.cuda.Stream(), []
    for body, beside, own, others in ((compute, other, alone[0], alone[1]),
                                      (other, compute, alone[1], alone[0])):
        count = max(4, math.ceil(0.02 / own))
        # Enough beside it to outlast it even at half speed.
        cover = math.ceil(3 * count * own / others) + 2
        values = []
        for _ in range(timer.groups):
            torch.cuda.synchronize()
            with torch.cuda.stream(side):
                for _ in range(cover):
                    beside()
            values.append(timer.group(body, count))
            torch.cuda.synchronize()
        results.append(max(1.0, statistics.median(values) / own))
    return results[0], results[1]


def probe_beside(probe):
    if "compute_slowdown_beside_copy" in probe.document["facts"] or probe.late():
        return
    torch = probe.torch
    size = 1 << 12 if probe.device == "cpu" else 1 << 26
    host = torch.empty(size, dtype=torch.uint8, pin_memory=probe.device == "cuda")
    device = torch.empty(size, dtype=torch.uint8, device=probe.device)
    compute, copy = slowdowns(probe, busy_product(probe),
                              lambda: host.copy_(device, non_blocking=True))
    probe.document["facts"]["compute_slowdown_beside_copy"] = compute
    probe.document["facts"]["copy_slowdown_beside_compute"] = copy


def probe_noise(probe):
    if "noise" not in probe.document["facts"] and not probe.late():
        groups = 30 if probe.device == "cuda" else 5
        seconds = probe.timer.seconds(busy_product(probe), groups)
        probe.document["facts"]["noise"] = spread_of(seconds)


TRANSFERS = {"all_gather": "gather", "reduce_scatter": "reduce", "all_to_all": "exchange",
             "all_reduce": "reduce"}


def collective_body(torch, name, device, world, size):
    """(body, bytes that a rank sends) of a whole buffer of `size` bytes, in bf16."""
    dist = torch.distributed
    whole = torch.zeros(size // 2, device=device, dtype=torch.bfloat16)
    part = torch.zeros(size // 2 // world, device=device, dtype=torch.bfloat16)
    other = torch.zeros_like(whole)
    sent = float(size) * (world - 1) / world
    return {"all_gather": (lambda: dist.all_gather_into_tensor(whole, part), sent),
            "reduce_scatter": (lambda: dist.reduce_scatter_tensor(part, whole), sent),
            "all_to_all": (lambda: dist.all_to_all_single(other, whole), sent),
            "all_reduce": (lambda: dist.all_reduce(whole), 2 * sent)}[name]


def same_count(torch, timer, device, body):
    """Every rank must call it as often as rank 0 does."""
    body()
    timer.wait()
    start = time.perf_counter()
    for _ in range(3):
        body()
    timer.wait()
    each = max((time.perf_counter() - start) / 3, 1e-7)
    count = torch.tensor([min(2048, max(1, math.ceil(timer.least_s / each)))], device=device)
    torch.distributed.broadcast(count, 0)
    return int(count.item())


def collective_rank(rank, world, args, store, out):
    import torch
    dist = torch.distributed
    cuda = args.device == "cuda"
    device = "cuda:%d" % rank if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if cuda else "gloo", init_method="file://" + store, rank=rank,
                            world_size=world)
    timer = Timer(torch, args.device, args.quick)
    sizes = [1 << p for p in range(12, 31, 4 if args.quick else 2)]
    found, notes = [], []
    for name in TRANSFERS:
        for size in sizes if cuda else [4096, 65536]:
            size = max(1, size // (2 * world)) * 2 * world
            try:
                body, sent = collective_body(torch, name, device, world, size)
                count = same_count(torch, timer, device, body)
                dist.barrier()
                values = [timer.group(body, count) for _ in range(timer.groups)]
            except (RuntimeError, AttributeError, NotImplementedError, ValueError) as error:
                notes.append("%s: left out: %s" % (name, str(error).split("\n")[0][:160]))
                break
            found.append({"name": name, "size": size, "sent": sent, "seconds": values})
    if rank == 0:
        with open(out, "w") as f:
            json.dump({"found": found, "notes": notes}, f)
    dist.barrier()
    dist.destroy_process_group()


def probe_collectives(probe):
    """Between the devices of this machine; on the CPU between two processes of it."""
    torch = probe.torch
    world = torch.cuda.device_count() if probe.device == "cuda" else 2
    if world < 2:
        probe.note("collectives: one device: left out")
        return
    if any(s["op"] in TRANSFERS.values() for s in probe.document["samples"]) or probe.late():
        return
    if not torch.distributed.is_available():
        probe.note("collectives: this PyTorch has no torch.distributed: left out")
        return
    import torch.multiprocessing as processes
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "found.json")
        try:
            processes.spawn(collective_rank, nprocs=world,
                            args=(world, probe.args, os.path.join(folder, "store"), out))
            with open(out) as f:
                result = json.load(f)
        except Exception as error:  # of whatever kind a rank ended with
            probe.note("collectives: left out: %s" % str(error).strip().split("\n")[-1][:160])
            return
    for note in result["notes"]:
        probe.note(note)
    for row in result["found"]:
        probe.add(TRANSFERS[row["name"]], "%s of %d bytes" % (row["name"], row["size"]),
                  row["seconds"], dtype="bf16", bytes=row["sent"], ranks=world, nodes=1,
                  passes=2 if row["name"] == "all_reduce" else 1)


STAGES = {"launch": probe_launch, "gemm": probe_gemm, "fp8": probe_fp8, "grouped": probe_grouped,
          "attention": probe_attention, "passes": probe_passes, "optimizer": probe_optimizer,
          "copies": probe_copies, "beside": probe_beside, "noise": probe_noise,
          "collectives": probe_collectives}


def run_stages(probe, args):
    for name, stage in STAGES.items():
        if args.only and name not in args.only:
            continue
        print("%4.0f s  %s" % (time.monotonic() - probe.start, name), file=sys.stderr)
        try:
            stage(probe)
        except RuntimeError as error:  # a stage that fails whole leaves the others
            probe.note("%s: left out: %s" % (name, str(error).split("\n")[0][:160]))
        probe.write()
    if probe.device == "cuda":
        probe.document["device"]["clocks_after"] = clocks()
        probe.write()


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    parser.add_argument("--resume", action="store_true", help="go on with what OUT has")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), help="some stages")
    return parser.parse_args(words)


def main(words=None):
    args = parse(words)
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or (args.device == "cuda" and not torch.cuda.is_available()):
        print("no GPU: nothing checked" if args.device == "cuda" else "no PyTorch: nothing checked")
        return 5
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.manual_seed(1)
    probe = Probe(torch, args)
    run_stages(probe, args)
    print("%s: %d samples, %d notes, %.0f s" % (
        args.out, len(probe.document["samples"]), len(probe.document["notes"]),
        time.monotonic() - probe.start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
