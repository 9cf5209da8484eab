# https://github.com/pytorch/torchtitan/issues/932 (also 2574, and transformers 48307): Llama 3 8B on
# 16 devices with TP 16 dies of "shape '[1, 8192, -1, 128]' is invalid": there are 8 heads of keys
# and values. Since then torchtitan refuses it with a message.
# Our answer: where heads cannot be copied it is refused; where they can it runs, at half the speed
# of the best since the tensor axis crosses nodes; TP 2 is twice as fast. Agrees.
$ echo '{"model": "llama-3-8b", "cluster": "h100x16", "stack": "fsdp2-eager", "job": {"layout": {"tp": 16}, "sequence_parallel": true, "sharding": "parameters", "recompute": {"ops": true}, "sequence_tokens": 8192, "global_sequences": 16}}' > job.json

$ orrery explain job.json
>
> llama-3-8b on h100x16, with fsdp2-eager
> ...
> what binds it
>   time: ... % of the step computes; what it waits for most is exchanges of the tensor axis (... %)
>   tp 16 is more than the 8 heads of keys and values: each is held by several ranks where the
>     framework can copy it (Megatron), and the run is refused where it cannot (torchtitan)
>   the tensor axis crosses nodes
> ...
> single changes that make it faster
>   change ...
>   tp 2 instead of 16 ... fits  tensor -...
> ...
