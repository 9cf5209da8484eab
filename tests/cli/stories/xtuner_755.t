# https://github.com/InternLM/xtuner/issues/755: Qwen2 7B (28 heads) with 131,072 tokens on 8 H800:
# sequence parallelism may be 4, which is out of memory, or 7, which 8 devices do not divide into.
# The maintainers lifted the rule (heads need not divide): 8 then fits.
# Our answer: 8 breaks the rule of heads; with 4 the logits are what does not fit: more ranks a
# sequence by another exchange (ring), or a loss in chunks. Agrees.
$ echo '{"model": "qwen2.5-7b", "cluster": "h800x8", "stack": "deepspeed-2025", "job": {"layout": {"sp": 8}, "sharding": "parameters", "recompute": {"full": true}, "sequence_tokens": 131072, "global_sequences": 8}}' > sp8.json

$ orrery explain sp8.json
! error: sp8.json:/job: rule heads_divide: 8 does not divide (tp x sp) the heads, 28
? 3

$ sed 's/"sp": 8/"sp": 7/' sp8.json > sp7.json; orrery explain sp7.json
! error: sp7.json:/job: rule world: ...
! ...
? 3

$ sed 's/"sp": 8/"sp": 4/' sp8.json > sp4.json; orrery explain sp4.json
>
> qwen2.5-7b on h800x8, with deepspeed-2025
> ...
> what binds it
>   memory: ... needed of 79.6 GiB, most of it logits (... %), ...
> ...
> single changes after which it fits with a probability of 99 %, smallest first
>   change ...
>   cp 2 instead of 1 ... fits
>   a loss in chunks of rows ... fits
> ...
! warning: this job does not fit the memory of a device
