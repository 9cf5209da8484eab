"""One training step of a MoE and of a dense model on one GPU: this engine, Hugging Face's model in
eager mode, and the same compiled. Started by scripts/gpu_check, which documents the JSON it writes.
All three: byte tokens, vocabulary 256, rows of 4,096, bf16 compute, fp32 master weights, AdamW.
Hugging Face's run keeps fp32 weights under autocast. Not run on hardware yet."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

TOKENS, ROWS, WARM_UP, STEPS = 4096, 4, 5, 15

COMMON = dict(
    attention_bias=False, attention_dropout=0.0, head_dim=128, hidden_act="silu", hidden_size=2048,
    initializer_range=0.02, intermediate_size=6144, max_position_embeddings=TOKENS,
    num_attention_heads=16, num_hidden_layers=12, num_key_value_heads=8, rms_norm_eps=1e-6,
    rope_scaling=None, rope_theta=10000, tie_word_embeddings=False, torch_dtype="bfloat16",
    vocab_size=256)
MODELS = {
    "dense": dict(COMMON, architectures=["Qwen3ForCausalLM"], model_type="qwen3"),
    "moe": dict(COMMON, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
                decoder_sparse_step=1, mlp_only_layers=[], moe_intermediate_size=768,
                norm_topk_prob=True, num_experts=16, num_experts_per_tok=4,
                router_aux_loss_coef=0.001),
}


def step_flops(c):
    """6 FLOPs a token and active parameter, and causal attention's products, of one step."""
    h, d = c["hidden_size"], c["head_dim"]
    attention = h * d * (2 * c["num_attention_heads"] + 2 * c["num_key_value_heads"])
    if "num_experts" in c:
        ffn = 3 * h * c["moe_intermediate_size"] * c["num_experts_per_tok"] + h * c["num_experts"]
    else:
        ffn = 3 * h * c["intermediate_size"]
    weights = c["num_hidden_layers"] * (attention + ffn) + h * c["vocab_size"]
    scores = c["num_hidden_layers"] * 6 * TOKENS * c["num_attention_heads"] * d
    return ROWS * TOKENS * (6 * weights + scores)


def peak_flops(root, name):
    for part in ("h100", "h800"):
        if part in name.lower():
            with open(os.path.join(root, "configs/devices", part + "-sxm.json")) as f:
                return float(json.load(f)["peak_bf16"].split()[0]) * 1e12
    return None


def run_orrery(root, work, name, config):
    folder = os.path.join(work, name)
    os.makedirs(folder, exist_ok=True)
    paths = {n: os.path.join(folder, n) for n in ("config.json", "workload.json", "plan.json",
                                                   "run.db", "text.txt")}
    with open(os.path.join(root, "configs/workloads/pretrain-4k.json")) as f:
        workload = json.load(f)
    workload.update(name="gpu-check", sequence_tokens=TOKENS, global_sequences=ROWS,
                    document_tokens=TOKENS, source="one device: what fits with a margin")
    for path, value in (("config.json", config), ("workload.json", workload)):
        with open(paths[path], "w") as f:
            json.dump(value, f)
    with open(paths["text.txt"], "w") as f:
        for i in range(200000):
            f.write("%d times seven is %d.\n" % (i, 7 * i))
    cli = os.path.join(root, "build/cuda/cli/orrery")
    engine = os.path.join(root, "build/cuda/engine/orrery-engine")
    subprocess.run([cli, "plan", "--model", paths["config.json"], "--cluster", "h100x1",
                    "--workload", paths["workload.json"], "-o", paths["plan.json"]], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["mpirun", "--allow-run-as-root", "--bind-to", "none", "-np", "1", engine, "run",
                    paths["plan.json"], "--data", paths["text.txt"], "--out", paths["run.db"],
                    "--steps", str(WARM_UP + STEPS), "--device", "cuda"], check=True)
    steps = json.loads(subprocess.run([cli, "analyze", paths["run.db"], "steps", "--json"],
                                      check=True, stdout=subprocess.PIPE).stdout)["tables"][0]
    memory = json.loads(subprocess.run([cli, "analyze", paths["run.db"], "--json", "--sql",
                                          "SELECT MAX(peak_bytes) AS peak FROM v_memory"], check=True,
                                         stdout=subprocess.PIPE).stdout)["tables"][0]
    return statistics.median(s["step_s"] for s in steps[WARM_UP:]), memory[0]["peak"]


def run_hugging_face(name, config, compiled):
    import torch
    import transformers

    kind = transformers.Qwen3MoeConfig if name == "moe" else transformers.Qwen3Config
    settings = {k: v for k, v in config.items()
                if k not in ("architectures", "model_type", "torch_dtype", "rope_scaling")}
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(kind(**settings)).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8,
                                  weight_decay=0.1, fused=True)
    forward = torch.compile(model) if compiled else model
    ids = torch.randint(0, 256, (ROWS, TOKENS), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(WARM_UP + STEPS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:]), torch.cuda.max_memory_allocated()


def measure(label, run, config, peak):
    model, engine = label
    row = dict(model=model, engine=engine, step_s=None, tokens_per_s=None, mfu=None,
               peak_bytes=None, error=None)
    try:
        seconds, memory = run()
        row.update(step_s=seconds, tokens_per_s=ROWS * TOKENS / seconds, peak_bytes=memory,
                   mfu=step_flops(config) / seconds / peak if peak else None)
    except Exception as e:  # one engine's failure must not hide the others' figures
        row["error"] = "%s: %s" % (type(e).__name__, str(e)[:400])
    print(json.dumps(row), flush=True)
    return row


def child(work, name, compiled):
    """In a process of its own, so that memory of one run does not count in another's."""
    seconds, memory = run_hugging_face(name, MODELS[name], compiled)
    with open(os.path.join(work, "hf.json"), "w") as f:
        json.dump([seconds, memory], f)


def hugging_face(work, name, compiled):
    subprocess.run([sys.executable, os.path.abspath(__file__), "--work", work, "--child", name] +
                   (["--compiled"] if compiled else []), check=True)
    with open(os.path.join(work, "hf.json")) as f:
        return json.load(f)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True)
    parser.add_argument("--checks")
    parser.add_argument("-o", "--out")
    parser.add_argument("--child")
    parser.add_argument("--compiled", action="store_true")
    a = parser.parse_args()
    if a.child:
        return child(a.work, a.child, a.compiled)
    import torch

    if not torch.cuda.is_available():
        print("no GPU: nothing checked")
        return 5
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    device = torch.cuda.get_device_name(0)
    peak = peak_flops(root, device)
    rows = []
    for name, config in MODELS.items():
        rows.append(measure((name, "orrery"), lambda: run_orrery(root, a.work, name, config),
                            config, peak))
        for compiled, engine in ((False, "hf-eager"), (True, "hf-compile")):
            rows.append(measure((name, engine), lambda: hugging_face(a.work, name, compiled),
                                config, peak))
    with open(a.checks) as f:
        checks = dict(line.split() for line in f)
    for row in rows:
        if row["engine"] == "orrery":
            checks["step-" + row["model"]] = "failed" if row["error"] else "passed"
    document = dict(schema_version=1, device=device, torch=torch.__version__, checks=checks,
                    steps=rows)
    with open(a.out + ".part", "w") as f:
        json.dump(document, f, indent=1)
    os.replace(a.out + ".part", a.out)
    return 6 if "failed" in checks.values() else 0


if __name__ == "__main__":
    sys.exit(main())
