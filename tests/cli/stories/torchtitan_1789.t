# https://github.com/pytorch/torchtitan/issues/1789: the shipped recipe of a 16 B DeepSeek model runs
# out of memory on 8 H100 of 80 GB. A local batch of 4 instead of 8 trains at 92.7 % of the memory;
# so does EP 1 instead of 8, at 96 %.
# Our answer: activations and logits of 8 sequences; a micro-batch of 4 fits barely, of 2 for sure.
# Agrees on the batch; differs on EP: we see no memory saved by EP 1 (all exchanges take as many
# rows in the mean), and say so by not listing it.
$ echo '{"model": "deepseek-v2-lite", "cluster": "h100x8", "stack": "fsdp2-eager", "job": {"layout": {"ep": 8, "micro_batch": 8}, "sharding": "parameters", "recompute": {"ops": true}, "sequence_tokens": 4096, "global_sequences": 64}}' > job.json

$ orrery explain job.json --fit-probability 0.5 | grep -A 4 -E '^(what binds|single changes after)'
> what binds it
>   memory: ... needed of 79.6 GiB, most of it MoE layers (... %) and logits (... %), ...
> ...
> --
> single changes after which it fits with a probability of 50 %, smallest first
>   change ...
>   micro-batch 4 instead of 8 ... may fit
> ...
! warning: this job does not fit the memory of a device

$ orrery explain job.json | grep -A 2 '^single changes after'
> single changes after which it fits with a probability of 99 %, smallest first
>   change ...
>   micro-batch 2 instead of 8 ... fits
! warning: this job does not fit the memory of a device
