# The questions of `orrery plan`, of jobs over all axes.

# One's own layout beside the best: pins, the rest searched.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus tp=4,pp=2 2> /dev/null | sed -n '/^your layout/,$p'
> your layout beside the best
>   yours  tp 4, ... | pp 2 ...
> ...
>   best   dp 16, ...
> ...
>   term ... yours ... best ... difference
>   compute ...
> ...
>   tensor ... s ... 0 s ... +... s
> ...
>   bubble ... ms ... 0 s ... +... ms
> ...
>   step ... s ... s ... +... s
>   memory: weights ... GiB ... GiB ...
> ...
>   memory at the peak ... GiB ... GiB ...
>   yours: +... %: ... more tensor (tp 4 against 1...
> ...

# A file is taken exactly; the document has both parts.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 -o mine.json > out.txt; orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus ./mine.json --tokens 1T --json | grep -E '^  "(plan|versus|run)"|"(legal|fits|reason|steps)": [^{]*$' | grep -v '"legal": [0-9]'
>   "plan": {
>   "versus": {
>     "legal": true,
>     "fits": true,
>     "reason": "the same time",
>   "run": {
>     "steps": 238419,
! wrote mine.json
! next: ...

# What breaks a rule: every rule with its numbers, and the nearest that fits.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus tp=3 2> /dev/null | sed -n '/^your layout/,$p'
> your layout beside the best
>   breaks world: dp x cp x sp x tp x pp is ..., the cluster has 16 devices
>   breaks heads_divide: 3 does not divide (tp x sp) the heads, 32
>   the nearest that fits: tp=... instead of 3 (... GiB, ... s a step; tp ...
> ...

# The same of a file: its job on this cluster.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --versus ./mine.json 2> /dev/null | sed -n '/^your layout/,$p'
> your layout beside the best
>   breaks world: dp x cp x sp x tp x pp is 16, the cluster has 8 devices
> ...

$ sed 's/"precision": "bf16"/"precision": "fp8"/' mine.json > fp8.json; orrery plan --for simulate --model llama-3-8b --cluster a100x16 --versus ./fp8.json 2> /dev/null | sed -n '/^your layout/,$p'
> your layout beside the best
>   breaks precision: a100-sxm-80 has no products in fp8
>   the nearest that fits: precision=bf16 instead of fp8 (...
> ...

# What does not fit: its largest class, and the nearest that does.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus sharding=none,tp=1,pp=1,cp=1 2> /dev/null | sed -n '/^  yours: /,$p'
>   yours: does not fit: needs ... GiB of 79.6 GiB; most of it is optimizer states, ... GiB
>   the nearest that fits: sharding=optimizer instead of none (... GiB, ... s a step; dp 16,
> ...

$ orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus tpp=8,ep
! error: --versus: 'tpp' cannot be pinned
!   hint: did you mean ...
! error: --versus: 'ep' is not NAME=VALUE
!   hint: for example --versus ep=8
? 2

# A file of the other planner is told apart, both ways.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --versus ./mine.json
! error: ./mine.json: is a job over all axes, and this command wants a plan of the engine
!   hint: `orrery simulate ./mine.json` reads it
? 3

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local -o engine.json > out.txt 2> /dev/null; orrery plan --for simulate --model llama-3-8b --cluster h100x16 --versus ./engine.json
! error: ./engine.json: is a plan of the engine, and this wants a job over all axes
!   hint: `orrery plan --for simulate -o FILE` writes one
? 3

# Wall time of a run.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --tokens 1T --device-mtbf "10000 h" --save-time "1 min" --restart-time "20 min" 2> /dev/null | sed -n '/^a run/,$p'
> a run of 1.00 T tokens
>   wall time    ... days  (... days to ... days)
>   steps        238419, ... days without a failure or a save
>   goodput      ... %
>   failures     one every 52.1 days, ... expected
>   checkpoints  every ..., each stops training for 60.0 s

# The fewest devices: sizes that are too slow by far stand in one row.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --size-for "10 days" --tokens 1T
>
> devices of h100 for 1.00 T tokens in 10.0 days, with megatron-bridge-2026
> ...  devices    step     MFU  goodput ... wall time  plan
> ... - ... too slow by far
> ...
>   fewer than 57 would need more than the peak of every device
>   ... devices are the fewest that do it...
>
> a run of 1.00 T tokens
> ...
! next: orrery plan --for simulate --model llama-3-8b --cluster h100x...  # its plan

# No fewer do it with less time; the plan of the size is written where asked for.
$ for days in 40 20 10; do orrery plan --for simulate --model llama-3-8b --cluster h100x8 --size-for "$days days" --tokens 1T --json | grep '^  "devices"' | tr -dc '0-9\n'; done | sort -n -c && orrery plan --for simulate --model llama-3-8b --cluster h100 --size-for "40 days" --tokens 1T -o sized.json > out.txt; orrery check sized.json
> file        kind
> sized.json  job   ok  llama-3-8b on h100x... with megatron-bridge-2026: ...
> ...
! wrote sized.json
! next: ...

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --size-for "1 s" --tokens 15T
>
> devices of h100 for 15.0 T tokens in 1.00 s, with megatron-bridge-2026
>   fewer than 131073 would need more than the peak of every device
! error: orrery plan: no number of h100 trains 15.0 T tokens in 1.00 s
!   hint: at the peak it takes more than 131072 devices: more time, or fewer tokens
? 4

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --size-for "10 days"
! error: --size-for: needs the tokens of the run
!   hint: for example --tokens 15T
? 2

# The longest rows.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --max-seq
>
> the longest rows of llama-3-8b on h100x8, 4.19 M tokens a step, with megatron-bridge-2026
> ... tokens ... step  tokens/s ... memory  plan
>     4096 ...
> ...
> ... - ... does not fit...
> ...
>   ... tokens are the longest that fit
! next: orrery plan --for simulate --model llama-3-8b --cluster h100x8 --max-seq -o plan.json  # keep the plan of the longest

$ orrery plan --for simulate --model llama-3-70b --cluster h100x1 --max-seq
>
> the longest rows of llama-3-70b on h100x1, ...
> ...
! error: orrery plan: rows of no length of llama-3-70b fit on h100x1
!   hint: `orrery plan` without --max-seq says what would fit
? 4

# Where no rule allows any, the rule; of plans of the engine too.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --max-seq --pin tp=3
>
> the longest rows of llama-3-8b on h100x8, 4.19 M tokens a step, with megatron-bridge-2026
> ... tokens ... step  tokens/s ... memory  plan
>   1 to 4096 ... - ... world: dp x cp x sp x tp x pp is 6, the cluster has 8 devices
> ...
! error: orrery plan: rows of no length of llama-3-8b fit on h100x8
!   hint: `orrery plan` without --max-seq says what would fit
? 4

$ orrery plan --model qwen3-8b --cluster h100x8 --max-seq --pin ep=8
>
> the longest rows of qwen3-8b on h100x8, 4.19 M tokens a step
> ... tokens ... step  tokens/s  memory  plan
>   1 to 4096 ... - ... ep_without_experts: ep 8 x etp 1, but qwen3-8b has no experts
! error: orrery plan: rows of no length of qwen3-8b fit on h100x8
!   hint: `orrery plan` without --max-seq says what would fit
? 4

# Several clusters, one where it does not fit and one where nothing is legal.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --cluster a100x8 --cluster h100x1 --cluster h100x8008 --tokens 1T
>
> llama-3-8b, pretrain-4k, with megatron-bridge-2026, side by side
>   cluster ... step  tokens/s  a device ... MFU ... memory ... wall time  plan
>   h100x8 ... days  dp 8, ...
> ...
>   a100x8 ... days  dp 8, ...
> ...
>   h100x1 ... - ... does not fit: needs ...
> ...
>   h100x8008 ... - ... batch: ...
> ...

# A sweep, also of pins and of the stack; as CSV.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep stack=megatron-core-2025,fsdp1 --sweep tp=1,3 --csv out.csv | head -n 3; cut -d, -f 1-5 out.csv; grep -c 'heads_divide\|world' out.csv
>
> llama-3-8b on h100x8, pretrain-4k, with megatron-bridge-2026: 4 points
>                stack  tp ... step  tokens/s ... MFU ... memory  plan
> stack,tp,feasible,devices,tokens_a_step
> megatron-core-2025,1,true,8,4194304
> megatron-core-2025,3,false,,
> fsdp1,1,true,8,4194304
> fsdp1,3,false,,
> 2
! wrote out.csv

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep workload.global_batch_tokens=1M,2M --sweep stack.overlaps_gradients=true,false --json | grep -E '"(stack.overlaps_gradients|tokens_a_step|feasible)"'
>         "stack.overlaps_gradients": "true"
>       "feasible": true,
>       "tokens_a_step": ...,
>         "stack.overlaps_gradients": "false"
>       "feasible": true,
>       "tokens_a_step": ...,
>         "stack.overlaps_gradients": "true"
>       "feasible": true,
>       "tokens_a_step": ...,
>         "stack.overlaps_gradients": "false"
>       "feasible": true,
>       "tokens_a_step": ...,

# Wrong calls, of either purpose.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep stack=megatrom-core-2025
! error: ...
!   hint: ...
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --sweep stack=fsdp1
! error: --sweep stack: says something about jobs that are simulated
!   hint: add --for simulate
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep stack.parameters.exposed_share=0.1
! error: --sweep stack.parameters.exposed_share: is fitted: --parameters sets it
!   hint: a file of your own with --parameters (orrery list parameters)
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep stack.overlap=true
! error: --sweep stack.overlap: there is no 'overlap'
!   hint: ...
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep tpp=1
! error: --sweep: 'tpp' cannot be pinned
!   hint: did you mean ...
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --sweep sharding=zero3
! error: --sweep sharding: 'zero3' is not a value of it
!   hint: one of none, optimizer, gradients, parameters
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --versus tp=2 --max-seq
! error: orrery plan: --versus and --max-seq are two questions
!   hint: ask one at a time
? 2

$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --csv out.csv
! error: --csv: is for --sweep
!   hint: add --sweep KEY=A,B
? 2
