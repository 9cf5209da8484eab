"""One rank of a training run of Hugging Face transformers in eager mode: the other side of
scripts/bench-pytorch. Prints one JSON document: seconds and loss of each step, and with FSDP2 the
seconds that the rank spent in collectives.

Same work as the engine's step: same configuration, initial weights, tokens, loss (cross-entropy
over the labels of the world), clipping of the global gradient norm, AdamW without decay of norms;
fp32 master weights, moments and reductions in both precisions. The fastest eager form that PyTorch
offers is used: scaled_dot_product_attention, the fused AdamW, FSDP2's own mixed precision.
"""

import argparse
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import transformers

import same


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="config.json")
    parser.add_argument("--workload", required=True, help="workload file of Orrery")
    parser.add_argument("--data", required=True, help="the text both sides train on")
    parser.add_argument("--rows", type=int, required=True, help="sequences a rank and step")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mixed", choices=["autocast", "copy"], default="copy")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--experts", default="")
    parser.add_argument("--no-comm", action="store_true", help="FSDP2 on one rank: no traffic")
    return parser.parse_args()


def make_model(arguments):
    config = transformers.AutoConfig.from_pretrained(os.path.dirname(arguments.model) or ".")
    config.use_cache = False
    if arguments.experts:
        config._experts_implementation = arguments.experts
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=arguments.attention, dtype=torch.float32)
    same.initialize(model, arguments.seed, config.initializer_range)
    model.train()
    return model


class Optimizer:
    """AdamW on fp32 weights; with `copies` the model computes with bf16 copies of them."""

    def __init__(self, model, options, copies):
        self.clip = options["clip_norm"]
        self.working = [p for p in model.parameters()]
        self.master = self.working
        names = [n for n, _ in model.named_parameters()]
        if copies:
            self.master = [p.detach().clone() for p in self.working]
            model.to(torch.bfloat16)
        decayed = [p for n, p in zip(names, self.master) if "norm" not in n]
        plain = [p for n, p in zip(names, self.master) if "norm" in n]
        self.copies = copies
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": options["weight_decay"]},
             {"params": plain, "weight_decay": 0.0}],
            lr=options["lr"], betas=(options["beta1"], options["beta2"]), eps=options["eps"],
            fused=True)

    def step(self):
        if self.copies:
            for master, working in zip(self.master, self.working):
                master.grad = working.grad.float()
                working.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.master, self.clip)
        self.adamw.step()
        if self.copies:
            with torch.no_grad():
                for master, working in zip(self.master, self.working):
                    working.copy_(master)
        self.adamw.zero_grad(set_to_none=True)
        return norm


class CommTime:
    """Seconds that this rank's thread is inside or waits for a collective, from a profiler."""
    NAMES = ("gloo:", "c10d::", "record_param_comms")

    def __init__(self):
        from torch.profiler import ProfilerActivity, profile
        self.profiler = profile(activities=[ProfilerActivity.CPU])


def loss_of(model, ids, labels, total, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits.float().view(-1, logits.size(-1)), labels.view(-1), reduction="sum")
    return loss / total


def main():
    arguments = parse()
    torch.set_num_threads(1)
    workload = json.load(open(arguments.workload))
    bf16 = workload["compute"] == "bf16"
    source = same.TextSource(arguments.data, workload["sequence_tokens"])
    model = make_model(arguments)
    optimizer = Optimizer(model, workload["optimizer"], bf16 and arguments.mixed == "copy")
    seconds, losses, norms = [], [], []
    for step in range(arguments.steps):
        ids, labels = source.batch(step, arguments.rows)
        began = time.perf_counter()
        loss = loss_of(model, ids, labels, labels.numel(), bf16 and arguments.mixed == "autocast")
        loss.backward()
        norm = optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
        seconds.append(time.perf_counter() - began)
    json.dump({"seconds": seconds, "loss": losses, "grad_norm": norms}, sys.stdout)


if __name__ == "__main__":
    main()
