# A job of the user's own: nouns by name, axes that are not 1. It fits; what binds it, what helps.
$ echo '{"model": "llama-3-8b", "cluster": "h100x16", "stack": "megatron-core-2025", "job": {"layout": {"tp": 8, "micro_batch": 1}, "sequence_tokens": 8192, "global_sequences": 64}}' > tp8.json

$ orrery check tp8.json
> file      kind
> tp8.json  job   ok  llama-3-8b on h100x16 with megatron-core-2025: tp 8 | dp 2, optimizer over 2 |
>                     micro-batch 1 x 32 | recompute none | bf16

$ orrery explain tp8.json
>
> llama-3-8b on h100x16, with megatron-core-2025
>   layout  tp 8 | dp 2, optimizer over 2 | micro-batch 1 x 32 | recompute none | bf16
>   step    ...
>   speed   ...
>   memory  ... of 79.6 GiB a device; fits with a probability of ...
>
> what binds it
>   time: ... % of the step computes; what it waits for most is exchanges of the tensor axis (... %)
>
> memory at the fullest moment (...)
>   class ...
> ...
>   reserve ...
> ...
> where the step of the slowest stage goes
> ...
> single changes that make it faster
>   change ... step ... speed ... memory ... mostly
>   tp ... instead of 8 ... fits  tensor -...
> ...
> the best of all layouts for this work, and what it would take
> ...
> term by term
>   seconds ...
>   this job ...
>   the best ...
>
> what would change the answer
>   with ... speed of this job ... best step  the best is then
>   links between nodes twice as fast ...
>   links between nodes half as fast ...
>   memory 25 % larger ...
>   memory 25 % smaller ...
>   a batch twice as large ...
>   a batch half as large ...
>   each searched again over all axes; what is not 2.0 % faster is the same

# It does not fit: what takes the memory, and single changes after which it does.
$ echo '{"model": "llama-3-8b", "cluster": "h100x8", "stack": "fsdp2-eager", "job": {"sharding": "optimizer", "layout": {"micro_batch": 4}, "sequence_tokens": 8192, "global_sequences": 64}}' > oom.json

$ orrery explain oom.json | grep -A 3 -E 'what binds|single changes'
> what binds it
>   memory: ... GiB needed of 79.6 GiB, most of it dense layers (... %) and logits (... %), fullest
>     in a backward with the activations of 1 micro-batch
>
> --
> single changes after which it fits with a probability of 99 %, smallest first
>   change ... step ... speed ... memory
>   tp 8 instead of 1 ... fits
> ...
! warning: this job does not fit the memory of a device

# The same as JSON.
$ orrery explain oom.json --json 2>/dev/null | grep -E '^  "(verdict|binding|fixes|faster|best|what_if)"'
>   "verdict": "does not fit",
>   "binding": "memory: ...
>   "fixes": [
>   "faster": [],
>   "best": {
>   "what_if": [

# A plan of the planner's: the best of other families beside it, under the pins of its search.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=2 --ties fastest -o plan.json > /dev/null 2>&1; grep -A 2 '"pins"' plan.json
>   "pins": {
>     "tp": "2"
>   }

$ orrery explain plan.json | grep -A 12 -E '^(the best|term by)'
> the best of all layouts for this work, and what it would take
>   it is this one
>
> term by term
>   seconds ...
>   this job ...
> ...

# What is wrong with a file, all at once.
$ echo '{"model": "llama-3-8c", "cluster": "h100x16", "stack": "megatron-core-2025", "job": {"layout": {"tq": 8}, "sequence_tokens": 8192}}' > bad.json; orrery explain bad.json
! error: bad.json:/job/layout/tq: unknown key
!   hint: did you mean 'tp'?
! error: bad.json:/job/global_sequences: is missing
! error: configs/models: no 'llama-3-8c' here
!   hint: did you mean 'llama-3-8b'?
? 3

$ sed 's/"tp": 8/"tp": 3/' tp8.json > tp3.json; orrery explain tp3.json
! error: tp3.json:/job: rule world: dp x cp x sp x tp x pp is 3, the cluster has 16 devices
! error: tp3.json:/job: rule heads_divide: 3 does not divide (tp x sp) the heads, 32
? 3

$ orrery plan --model qwen3-dense-5m --cluster local-cpu --workload demo-local -o engine.json >/dev/null 2>&1; orrery explain engine.json --fit-probability 0.5
! error: --fit-probability: is for jobs over all axes; engine.json is none
!   hint: leave it out
? 2

$ orrery explain tp8.json --fit-probability 1.5
! error: --fit-probability: '1.5' is not a probability below 1
!   hint: for example 0.99
? 2
