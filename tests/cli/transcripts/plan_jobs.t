# Jobs over all axes: the best one, the best of other families, the proof.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16
>
> llama-3-8b on h100x16, pretrain-4k, with megatron-bridge-2026
>   layout  ...
> ...
>   step    ...  (... to ...)
>   speed   ... tokens/s, ... MFU
>   memory  ... of 79.6 GiB a device; fits with a probability of ...
>
> where the step of the slowest stage goes
>   part ...
> ...
> the best of each other family, and what it loses by
> ...
> what the rules removed
>   layouts  rule
> ...
> search
>   ... legal jobs of ... layouts, ... bounded, ... predicted, in ...
>   closed: no other job takes less than ...; the fastest takes ...
! wrote plan.json
! next: orrery explain plan.json  # what binds it, and what would change the answer

# The file is a job, which check and simulate read; others say so.
$ orrery check plan.json
> file       kind
> plan.json  job   ok  llama-3-8b on h100x16 with megatron-bridge-2026: ...
> ...

$ orrery simulate plan.json
>
> llama-3-8b on h100x16, with megatron-bridge-2026
>   layout  ...
> ...

# The same prediction.
$ orrery simulate plan.json --json | grep '"step_s"' | tr -d ' ,' > again; grep -m 1 '"step_s"' plan.json | tr -d ' ,' > first; cmp first again; rm first again

$ sed 's/"pp": [0-9]*/"pp": 3/' plan.json > off.json; orrery check off.json
> file      kind
> off.json  job   bad  ...
! error: off.json:/job: rule world: ...
! ...
? 3

$ orrery simulate plan.json -o sim.db
! error: --out: is for plans of the engine; plan.json is a job over all axes
? 2

$ orrery train plan.json --data .
! error: plan.json: is a job over all axes, and this command wants a plan of the engine
!   hint: `orrery simulate plan.json` reads it
? 3

# A pin holds.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=4 --pin sharding=gradients --json | grep -m 2 -E '"(tp|sharding)"'
>       "tp": 4,
>     "sharding": "gradients",

# Two threads or one: the same.
$ for t in 1 2; do orrery plan --for simulate --model llama-3-8b --cluster h100x16 --threads $t --json | grep -v '"seconds"' > $t.json; done; cmp 1.json 2.json

# Of jobs that cannot be told apart the simplest is taken; proof.best_s is that of the fastest.
$ for t in simplest fastest; do orrery plan --for simulate --model llama-3-8b --cluster h100x16 --ties $t --json > $t.json; grep -m 1 '"best_s"' $t.json > $t; done; cmp simplest fastest; rm simplest fastest; grep -c '"asked_fit"' simplest.json
> 1

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --risk p90 --json | grep -m 1 '"risk"'
>     "risk": "p90",

# The best that can be found in a time.
$ orrery plan --for simulate --model deepseek-v3 --cluster h800x2048 --budget 1ms | sed -n '/^search/,$p'
> search
>   ... legal jobs of ... layouts, ... bounded, ... predicted, in ...
>   not proved: ... is the best so far
>   the search was ended by --budget
! wrote plan.json
! next: orrery explain plan.json  # what binds it, and what would change the answer

# Several precisions are searched; heads may be exchanged.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin precision=bf16,fp8 --ties fastest --json | grep -m 1 '"precision"'
>     "precision": "fp8",

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin sp=4 --json | grep -m 1 '"sp"'
>       "sp": 4,

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin precision=bf16,bf16
! error: --pin precision: 'bf16,bf16' is not a list of its values
!   hint: each once, of fp32, bf16, fp8: bf16,fp8
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster a100x16 --pin precision=fp8
! error: --pin precision: a100-sxm-80 has no 8 bit products
!   hint: leave the pin out
? 4

# What cannot be.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tpp=4 --pin tp=x --pin sharding=zero3 --pin ep
! error: --pin: 'ep' is not NAME=VALUE
!   hint: for example --pin ep=8
! error: --pin tpp: is no axis of a job
!   hint: did you mean ...
! error: --pin tp: 'x' is not a whole number from 1 to 16777216
!   hint: --pin tp=4
! error: --pin sharding: 'zero3' is not a value of it
!   hint: one of none, optimizer, gradients, parameters
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --pin tp=3 --stack megatron-core-2025
! error: --pin: no job is legal; layouts that each rule removed: world ...
!   hint: leave a pin out
! error: the nearest that fits: without --pin tp=3 (... a step)
!   hint: ...
? 4

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8008
! error: orrery plan: no job is legal; layouts that each rule removed: batch ...
!   hint: for example 4096 devices
! error: the nearest that fits: a batch of 8008 sequences (... a step)
!   hint: ...
? 4

$ orrery plan --for simulate --model llama-3-8c --cluster h100x16 --stack megatron --fit-probability 2
! error: --fit-probability: '2' is not a probability below 1
!   hint: for example 0.99
? 2

$ orrery plan --for guess --model llama-3-8b --cluster h100x16
! error: --for: 'guess' is no purpose of a plan
!   hint: train or simulate
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --stack fsdp1
! error: --stack: says something about jobs that are simulated
!   hint: add --for simulate
? 2

$ orrery plan --for simulate --model qwen3-8b --cluster h100x8 --runners-up 3
! error: --runners-up: is for plans of the engine
!   hint: leave it out, or --for simulate
? 2

# Nothing fits: the nearest job, and what would.
$ orrery plan --for simulate --model llama-3-70b --cluster h100x8 -o none.json; echo "exit $?"; ls none.json 2>/dev/null || true
>
> llama-3-70b on h100x8, pretrain-4k, with megatron-bridge-2026
>
> nothing fits; the job that needs least memory
> ...
> what fits with 32 devices
> ...
> exit 4
! error: orrery plan: no job of llama-3-70b on h100x8 fits
!   hint: it fits with 32 devices
