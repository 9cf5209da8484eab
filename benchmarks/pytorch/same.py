"""What makes both sides of the comparison train the same model on the same tokens: the engine's
initial weights (engine/torch/executor_init.cpp) and its rows of text (engine/data.cpp), written
again in numpy. That they agree is seen in the loss of the first step."""

import math
import re

import numpy as np
import torch

U64 = np.uint64


def mix64(x):
    """splitmix64 of an array."""
    x = x + U64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def hash64(text):
    """FNV-1a."""
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


def normal(name, shape, seed, std):
    """The initial values of a parameter, fp32: Box-Muller on two draws of an element's index."""
    with np.errstate(over="ignore"):
        key = mix64(np.array([seed ^ hash64(name)], dtype=U64))
        a = mix64(key ^ mix64(np.arange(math.prod(shape), dtype=U64)))
        b = mix64(a)
    u = ((a >> U64(11)).astype(np.float64) + 0.5) * 2.0**-53
    v = (b >> U64(11)).astype(np.float64) * 2.0**-53
    draws = std * np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v)
    return torch.from_numpy(draws.astype(np.float32)).view(shape)


def engine_name(name):
    """The engine's name of a parameter of transformers; None of a norm, which starts at one."""
    if "norm" in name:
        return None
    name = name.removeprefix("model.").removesuffix(".weight")
    name = re.sub(r"\.(self_attn|mlp)\.", ".", name)
    return re.sub(r"\.gate$", ".router", name)


@torch.no_grad()
def initialize(model, seed, std):
    """Overwrites every parameter by the engine's initial value."""
    for name, p in model.named_parameters():
        ours = engine_name(name)
        if ours is None:
            p.fill_(1)
        elif ours.endswith("experts.gate_up_proj"):
            half = (p.shape[0], p.shape[1] // 2, p.shape[2])
            stem = ours.removesuffix("gate_up_proj")
            p.copy_(torch.cat([normal(stem + part, half, seed, std)
                               for part in ("gate_proj", "up_proj")], dim=1))
        else:
            p.copy_(normal(ours, tuple(p.shape), seed, std))


class TextSource:
    """Rows of a file's bytes in the engine's order."""

    def __init__(self, path, tokens):
        self.text = np.fromfile(path, dtype=np.uint8)
        self.tokens = tokens
        self.rows = (len(self.text) - 1) // tokens
        self.stride = max(1, self.rows * 618 // 1000)
        while math.gcd(self.stride, self.rows) != 1:
            self.stride += 1

    def row(self, index):
        begin = index % self.rows * self.stride % self.rows * self.tokens
        return self.text[begin:begin + self.tokens + 1].astype(np.int64)

    def batch(self, step, rows, rank=0, world=1):
        """Token ids and labels [rows, tokens] of a rank in a step of one micro-batch."""
        first = step * rows * world + rank * rows
        text = torch.from_numpy(np.stack([self.row(first + j) for j in range(rows)]))
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
