"""One rank of a training run of Hugging Face transformers in eager mode: the other side of
scripts/bench-pytorch. Rank 0 prints one JSON document: of each step its seconds, the processor time
of the computing thread of each rank, loss and gradient norm.

Same work as the engine's step: same configuration, initial weights, tokens, loss (cross-entropy
over the labels of the world), clipping of the global gradient norm, AdamW without decay of norms;
fp32 master weights, moments and reductions in both precisions. No balancing loss, which the engine
has. One rank is plain PyTorch, several are FSDP2 (fully_shard of each layer and of the root) over
gloo; RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which.
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
    parser.add_argument("--model", required=True, help="folder of a config.json")
    parser.add_argument("--workload", required=True, help="the engine's workload")
    parser.add_argument("--data", required=True, help="the text both sides train on")
    parser.add_argument("--rows", type=int, required=True, help="sequences a rank and step")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", choices=["autocast", "copies"], default="copies",
                        help="of one rank: autocast, or bf16 copies of the master weights")
    return parser.parse_args()


def make_model(arguments):
    config = transformers.AutoConfig.from_pretrained(arguments.model)
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", dtype=torch.float32)
    same.initialize(model, arguments.seed, config.initializer_range)
    return model.train()


def shard(model, bf16):
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if bf16 else None,
                                  reduce_dtype=torch.float32)
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


class Optimizer:
    """AdamW on fp32 weights; with `copies` the model computes with bf16 copies of them."""

    def __init__(self, model, options, copies):
        self.clip = options["clip_norm"]
        self.working = list(model.parameters())
        self.master = self.working
        names = [name for name, _ in model.named_parameters()]
        if copies:
            self.master = [p.detach().clone() for p in self.working]
            model.to(torch.bfloat16)
        self.copies = copies
        norms = [p for name, p in zip(names, self.master) if "norm" in name]
        others = [p for name, p in zip(names, self.master) if "norm" not in name]
        self.adamw = torch.optim.AdamW(
            [{"params": others, "weight_decay": options["weight_decay"]},
             {"params": norms, "weight_decay": 0.0}],
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
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def loss_of(model, ids, labels, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().view(-1, logits.size(-1)), labels.view(-1))


def main():
    arguments = parse()
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    workload = json.load(open(arguments.workload, encoding="utf-8"))
    bf16 = workload["compute"] == "bf16"
    source = same.TextSource(arguments.data, workload["sequence_tokens"])
    model = make_model(arguments)
    if world > 1:
        shard(model, bf16)
    one_rank_bf16 = arguments.bf16 if bf16 and world == 1 else ""
    optimizer = Optimizer(model, workload["optimizer"], one_rank_bf16 == "copies")
    result = {"seconds": [], "cpu": [], "loss": [], "grad_norm": []}
    for step in range(arguments.steps):
        ids, labels = source.batch(step, arguments.rows, rank, world)
        if world > 1:
            dist.barrier()
        began, cpu = time.perf_counter(), time.thread_time()
        loss = loss_of(model, ids, labels, one_rank_bf16 == "autocast")
        loss.backward()
        norm = optimizer.step().item()
        mean = loss.detach() / world
        numbers = torch.tensor([time.perf_counter() - began, time.thread_time() - cpu])
        if world > 1:  # not timed: the engine reduces its loss inside the step
            dist.all_reduce(mean)
            numbers = numbers.clone()
            dist.all_reduce(numbers)
        for name, value in (("seconds", numbers[0].item() / world),
                            ("cpu", numbers[1].item() / world),
                            ("loss", mean.item()), ("grad_norm", norm)):
            result[name].append(value)
    if rank == 0:
        json.dump(result, sys.stdout)
        sys.stdout.flush()
    if world > 1:
        # Taking gloo down now and then ends a process that is done with "terminate called".
        dist.barrier()
        os._exit(0)


if __name__ == "__main__":
    main()
