"""Measures one GPU with PyTorch alone and writes a device profile of the form of configs/devices/:
efficiency of bf16 products by FLOPs, of memory-bound kernels by bytes, of attention by FLOPs, the
cost of a launch, and host copies. Not run on hardware yet.

usage: python benchmarks/gpu_probe.py -o device.json [--peak-bf16 TFLOPS] [--bandwidth TB_S]
Peaks default to those measured, so that the best point of a curve has efficiency 1; give the
datasheet's to compare devices. Without a GPU: one line "no GPU: nothing checked", exit 5."""

import argparse
import json
import os
import statistics
import sys
import time


def seconds_of(torch, body, least_s=0.05):
    """Median seconds of a call, by events around groups that last long enough to measure."""
    body()
    torch.cuda.synchronize()
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            body()
        torch.cuda.synchronize()
        if time.perf_counter() - start > least_s or count >= 4096:
            break
        count *= 2
    groups = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            body()
        end.record()
        end.synchronize()
        groups.append(begin.elapsed_time(end) / 1e3 / count)
    return statistics.median(groups)


def gemm_curve(torch):
    rows = []
    for m, n, k in ((128, 1024, 1024), (512, 1024, 1024), (1024, 2048, 2048), (2048, 4096, 4096),
                    (4096, 4096, 4096), (8192, 8192, 4096), (8192, 8192, 8192),
                    (16384, 8192, 8192)):
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        flops = 2.0 * m * n * k
        rows.append((flops, flops / seconds_of(torch, lambda: torch.mm(a, b.t(), out=out))))
    return rows


def memory_curve(torch):
    rows = []
    for bytes_ in (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30):
        x = torch.zeros(bytes_ // 8, device="cuda", dtype=torch.float32)
        y = torch.empty_like(x)
        rows.append((bytes_, bytes_ / seconds_of(torch, lambda: y.copy_(x))))  # read and written
    return rows


def attention_curve(torch):
    rows = []
    for tokens, heads in ((512, 8), (1024, 16), (2048, 16), (4096, 32), (8192, 32)):
        q, k, v = (torch.randn(1, heads, tokens, 128, device="cuda", dtype=torch.bfloat16)
                   for _ in range(3))
        flops = 2.0 * heads * tokens * tokens * 128  # two products, the causal half of each
        attend = torch.nn.functional.scaled_dot_product_attention
        rows.append((flops, flops / seconds_of(torch, lambda: attend(q, k, v, is_causal=True))))
    return rows


def copy_bandwidth(torch):
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    to_host = seconds_of(torch, lambda: host.copy_(device, non_blocking=True))
    to_device = seconds_of(torch, lambda: device.copy_(host, non_blocking=True))
    return host.numel() / to_host, host.numel() / to_device


def copy_curve(torch):
    rows = []
    for bytes_ in (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28):
        host = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True)
        device = torch.empty(bytes_, dtype=torch.uint8, device="cuda")
        rows.append([bytes_,
                     bytes_ / seconds_of(torch, lambda: host.copy_(device, non_blocking=True)),
                     bytes_ / seconds_of(torch, lambda: device.copy_(host, non_blocking=True))])
    return rows


def efficiencies(rows, peak):
    return [[work, round(min(1.0, rate / peak), 4)] for work, rate in sorted(rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--peak-bf16", type=float, help="TFLOP/s; default: the best product")
    parser.add_argument("--bandwidth", type=float, help="TB/s; default: the best copy")
    a = parser.parse_args()
    try:
        import torch
        found = torch.cuda.is_available()
    except ImportError:
        found = False
    if not found:
        print("no GPU: nothing checked")
        return 5
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    gemm, memory, attention = gemm_curve(torch), memory_curve(torch), attention_curve(torch)
    tiny = torch.zeros(1, device="cuda")
    launch = seconds_of(torch, lambda: tiny.add_(1))
    down, up = copy_bandwidth(torch)
    peak = a.peak_bf16 * 1e12 if a.peak_bf16 else max(rate for _, rate in gemm)
    bandwidth = a.bandwidth * 1e12 if a.bandwidth else max(rate for _, rate in memory)
    properties = torch.cuda.get_device_properties(0)
    f32 = torch.randn(4096, 4096, device="cuda")
    fp32 = 2.0 * 4096 ** 3 / seconds_of(torch, lambda: torch.mm(f32, f32))
    f64 = torch.randn(2048, 2048, device="cuda", dtype=torch.float64)
    fp64 = 2.0 * 2048 ** 3 / seconds_of(torch, lambda: torch.mm(f64, f64))
    gemm_eff = efficiencies(gemm, peak)
    document = {
        "name": properties.name.lower().replace(" ", "-"),
        "peak_bf16": "%.1f TFLOP/s" % (peak / 1e12),
        "peak_fp32": "%.1f TFLOP/s" % (fp32 / 1e12),
        "peak_fp64": "%.1f TFLOP/s" % (fp64 / 1e12),
        "memory_bandwidth": "%.3f TB/s" % (bandwidth / 1e12),
        "memory": "%.1f GiB" % (properties.total_memory / 2 ** 30),
        "reserved": "4 GiB",
        "launch": "%.2f us" % (launch * 1e6),
        "host_bandwidth": "%.1f GB/s" % (min(down, up) / 1e9),
        "efficiency": {"gemm": gemm_eff, "grouped": gemm_eff,
                       "attention": efficiencies(attention, peak),
                       "memory": efficiencies(memory, bandwidth)},
        "source": {
            "all": "benchmarks/gpu_probe.py, PyTorch %s, %s" % (torch.__version__,
                                                              time.strftime("%Y-%m-%d")),
            "grouped": "that of single products: not measured on its own",
            "reserved": "a documented default",
            "copies": "bytes, bytes/s to the host, bytes/s to the device: " +
                      json.dumps(copy_curve(torch)),
        },
    }
    with open(a.out + ".part", "w") as f:
        json.dump(document, f, indent=2)
    os.replace(a.out + ".part", a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
