# A budget of time: the best so far, and how far from proved it is.
$ orrery plan --model qwen3-30b-a3b --cluster h800x64 --budget 1ms --runners-up 0
>
> qwen3-30b-a3b on h800x64, pretrain-4k (4.19 M tokens a step)
> ...
> search
>   ... legal plans, ... bounded, ... replayed, in ...
> ...
>   open: the bound of every plan that was not replayed is at least ... s; the best takes ... s
>   not proved: at most ... % better exists; the search was stopped by its
>   budget of time: how far it came depends on the machine
> ...
! wrote plan.json
! next: orrery simulate plan.json  # where the step goes

$ orrery plan --model qwen3-8b --cluster h800x8 --budget 2
! error: --budget: '2' has no unit
!   hint: write it as in "2.5 us"
? 2

$ orrery plan --model qwen3-8b --cluster h800x8 --budget 0s
! error: --budget: '0s' is not more than 0
? 2

# The user's own layout beside the best, term by term.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --versus ep=2,micro_batch=1
>
> qwen3-moe-10m on local-cpu, demo-local (4.1k tokens a step)
> ...
> your layout beside the best
>   yours  fsdp ... ep 2 ... micro-batch 1 ...
> ...
>   term ... yours ... best ... difference
> ...
>   step ...
>   memory: parameter_shard ...
> ...
>   memory at the peak ...
>   yours: +... %: ...
> ...
! ...
! wrote plan.json
! ...

# A plan.json is taken exactly.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --versus ./plan.json --json | grep -E '"(legal|fits|reason)": [^{]*$' | tail -n 3
>     "legal": true,
>     "fits": true,
>     "reason": "the same time",
! ...

# What breaks a rule: the rule, and the nearest that fits.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --versus ep=3 2> /dev/null | sed -n '/your layout/,$p'
> your layout beside the best
>   breaks ...: ...
> ...
>   breaks experts_divide: ... experts do not divide by ep 3; ...
> ...
>   the nearest that fits: ep=... instead of 3 (...
> ...

# What does not fit: the bytes it lacks, and the nearest that fits.
$ orrery plan --model qwen3-8b --cluster h800x8 --versus recompute_layers=0,sp=1,micro_batch=8 --runners-up 0 2> /dev/null | sed -n '/  yours: /,$p'
>   yours: does not fit: needs ... GiB of 75.60 GiB; most of it is saved, ... GiB
>   the nearest that fits: ... instead of ...
> ...

$ orrery plan --model qwen3-8b --cluster h800x8 --versus epp=8,sp
! error: --versus: 'epp' cannot be pinned
!   hint: did you mean ...
! error: --versus: 'sp' is not NAME=VALUE
!   hint: for example --versus ep=8
? 2

$ orrery plan --model qwen3-8b --cluster h800x8 --versus ep=8,
! error: --versus: 'ep=8,' has an empty part
!   hint: write the values with one comma between them
? 2

# Ties go to the simpler plan, and the plan file says by what it was taken.
$ orrery plan --model qwen3-8b --cluster h800x8 2> /dev/null | sed -n '/^decision/,/^$/p'
> decision
>   one of ... plans that the model cannot tell apart; the fastest takes ... s
>   ranked by the expected step; fits with a probability of ... %
> ...

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --risk p90 --fit-probability 0.9 --ties fastest --json 2> /dev/null | grep -A 5 '"decision"'
>   "decision": {
>     "risk": "p90",
>     "asked_fit": 0.9,
>     "fit": ...
>     "held_back_bytes": ...
>     "fastest_s": ...

$ orrery plan --model qwen3-8b --cluster h800x8 --risk p95 --fit-probability 2 --ties none
! error: --risk: 'p95' is not a value of it
!   hint: write 'expected' or 'p90'
! error: --ties: 'none' is not a value of it
!   hint: write 'simplest' or 'fastest'
! error: --fit-probability: '2' is not a probability below 1
!   hint: for example 0.99; 0: a replay that fits is enough
? 2
