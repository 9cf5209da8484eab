# https://github.com/verl-project/verl/pull/3019 (also THUDM/slime 280, verl 3360): Qwen3 235B on 4
# nodes of 8: 132 GiB of states a device by a user's count, who holds 64 devices for the least. Both
# projects train it on 32 with the optimizer on the host.
# Our answer: no layout fits; the optimizer states on the host, or 64 devices. Agrees.
$ echo '{"model": "qwen3-235b-a22b", "cluster": "h800x32", "stack": "megatron-core-2025", "job": {"layout": {"tp": 4, "pp": 8, "ep": 4}, "sequence_parallel": true, "recompute": {"full": true}, "sequence_tokens": 4096, "global_sequences": 32}}' > job.json

$ orrery explain job.json
>
> qwen3-235b-a22b on h800x32, with megatron-core-2025
> ...
> what binds it
>   memory: ... needed of 79.6 GiB, most of it optimizer states (... %) and weights (... %),
>     ...
>   with the optimizer states on the host it would need ... and fit (what that costs in time is
>     not simulated)
> ...
> no layout fits; what fits with 64 devices
> ...
! warning: this job does not fit the memory of a device
