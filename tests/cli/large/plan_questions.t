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

# A whole run: failures, checkpoints and restarts on top of the steps.
$ orrery plan --model qwen3-8b --cluster h100x8 --tokens 1T --runners-up 0 2> /dev/null | sed -n '/^a run/,$p'
> a run of 1.00 T tokens
>   wall time    ... days  (... days to ... days)
>   steps        238419, ... days without a failure or a save
>   goodput      ... %
>   failures     one every ... days, ... expected
>   checkpoints  every ..., each stops training for ... s

# The fewest devices, and what was tried.
$ orrery plan --model qwen3-8b --cluster h100x8 --size-for "10 days" --tokens 100B
>
> devices of h100 for 100.0 B tokens in 10.0 days
>   devices ... step ... MFU  goodput  wall time  plan
> ...
>   fewer than ... would need more than the peak of every device
>   ... devices are the fewest that do it
>
> a run of 100.0 B tokens
> ...
! next: orrery plan --model qwen3-8b --cluster h100x...  # its plan

$ orrery plan --model qwen3-8b --cluster h100x8 --size-for "1 s" --tokens 15T
>
> devices of h100 for 15.0 T tokens in 1.00 s
>   fewer than 131073 would need more than the peak of every device
! error: orrery plan: no number of h100 trains 15.0 T tokens in 1.00 s
!   hint: at the peak it takes more than 131072 devices: more time, or fewer tokens
? 4

$ orrery plan --model qwen3-8b --cluster h100x8 --size-for "10 days"
! error: --size-for: needs the tokens of the run
!   hint: for example --tokens 15T
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --tokens 1.5
! error: --tokens: '1.5' is not a whole number of at least 1
!   hint: write 4096, 64Ki, 1M, 15T (k, M, B, T: powers of 1000; Ki, Mi: of 1024)
? 2

# The longest rows.
$ orrery plan --model qwen3-0.6b --cluster h100x1 --max-seq
>
> the longest rows of qwen3-0.6b on h100x1, 4.19 M tokens a step
>   ... memory  plan
> ... 4096 ...
> ...
>   ... tokens are the longest that fit
! next: orrery plan --model qwen3-0.6b --cluster h100x1 --max-seq -o plan.json  # keep the plan of the longest

# Several clusters side by side; where the job fits none, 4.
$ orrery plan --model qwen3-8b --cluster h100x8 --cluster h100x1 --json | grep -E '"(cluster|feasible)"'
>       "cluster": "h100x8",
>       "feasible": true,
>       "cluster": "h100x1",
>       "feasible": ...

$ orrery plan --model qwen3-8b --cluster h100x8 --cluster h100x16 --max-seq
! error: orrery plan: --max-seq and several --cluster are two questions
!   hint: ask one at a time
? 2

# A sweep, as a table and as CSV.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --sweep workload.global_batch_tokens=4Ki,8Ki --sweep ep=1,3 --csv out.csv > table.txt; cut -d, -f 1-3 out.csv; grep -c 'experts_divide\|expert_world' out.csv
> workload.global_batch_tokens,ep,feasible
> 4Ki,1,true
> 4Ki,3,false
> 8Ki,1,true
> 8Ki,3,false
> 2
! wrote out.csv

$ orrery plan --model qwen3-8b --cluster h100x8 --sweep workload.globl=1
! error: --sweep workload.globl: there is no 'globl'
!   hint: ...
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --sweep ep
! error: --sweep: 'ep' is not KEY=VALUE,VALUE
!   hint: for example --sweep workload.global_batch_tokens=1M,2M,4M
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --csv out.csv
! error: --csv: is for --sweep
!   hint: add --sweep KEY=A,B
? 2

# Absurd inputs end soon, with the reason and the nearest plan.
$ orrery plan --model qwen3-8b --cluster h100x0
! error: h100x0: the number of devices is out of range
!   hint: 1 to 1048576
? 3

$ orrery plan --model qwen3-8b --cluster h100x7
! error: batch_divides: dp 7 x micro-batch 1 x accumulation 146 = 1022 sequences a step, but pretrain-4k has 1024
!   hint: a batch of 1022 or 1029 sequences divides over 7 devices
! error: the nearest that fits: a batch of 1022 sequences (... GiB, ... s a step)
!   hint: fsdp 7 | ...
? 4

$ orrery plan --model qwen3-8b --cluster h100x13
! error: ...: 13 devices are no whole number of nodes of 8
!   hint: the nearest sizes are 8 and 16
! ...
? 3

# Half a terabyte of state on one device.
$ orrery plan --model qwen3-32b --cluster h100x1 2> /dev/null | sed -n '/^what would/,/^$/p'
> what would make it fit
>   ... devices fit (...
> ...

# Rows of ten million tokens.
$ orrery plan --model qwen3-0.6b --cluster h100x8 --sweep workload.sequence_tokens=10485760
>
> qwen3-0.6b on h100x8, pretrain-4k: 1 point
> ...
! error: --sweep: no point fits
!   hint: `orrery plan` with the values of one says what would fit
? 4

$ sed 's/"sequence_tokens": 4096/"sequence_tokens": 10485760/; s/"document_tokens": 4096/"document_tokens": 10485760/; s/"global_sequences": 1024/"global_sequences": 8/' "$(dirname "$(command -v orrery)")/../../configs/workloads/pretrain-4k.json" > long.json; orrery plan --model qwen3-0.6b --cluster h100x8 --workload ./long.json 2> error.txt | sed -n '/^what would/,/^$/p'; cat error.txt
> what would make it fit
>   rows of ... tokens fit (...
> ...
> error: orrery plan: no plan of qwen3-0.6b on h100x8 with pretrain-4k fits
