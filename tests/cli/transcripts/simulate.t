$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin ep=4 >/dev/null 2>&1

$ orrery simulate plan.json -o sim.db
>
> simulated: qwen3-moe-10m on local-cpu, demo-local (4.1k tokens a step)
>   layout        fsdp ...
>   program       4 ranks, ...
>   expert loads  drawn, coefficient of variation 0.3
>   step ...
> ...
> where the step goes, by rank
>   rank   compute ...
>      0 ...
>      1 ...
>      2 ...
>      3 ...
> ...
> memory at the peak (rank ...)
> ...
! wrote sim.db
! next: orrery analyze sim.db slowest  # the ops that cost most

# The same input, the same rows.
$ orrery simulate plan.json -o again.db > /dev/null 2>&1; cmp sim.db again.db && ls -A
> again.db
> plan.json
> sim.db

$ orrery simulate plan.json --json
> {
>   "schema_version": 1,
> ...
>   "predicted": {
> ...
>   "breakdown": [
> ...
>   "memory": {
> ...
> }

# Bound to the loads of a trace of the same plan: the same prediction.
$ orrery simulate plan.json --bind sim.db --json | grep -v bound_to > bound.json; orrery simulate plan.json --json | grep -v bound_to | cmp - bound.json

$ orrery simulate plan.json --bind sim.db
> ...
>   expert loads  as recorded in sim.db
> ...
! next: orrery simulate plan.json -o sim.db  # keep it as a trace

$ orrery simulate plan.json --bind sim.db --step 7
! error: sim.db: does not hold the bindings of all 4 ranks for step 7
!   hint: `orrery analyze sim.db steps` shows which steps there are
? 3

$ orrery simulate plan.json --step 7
! error: --step: names a step of the run that --bind reads
!   hint: add --bind run.db
? 2

$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin micro_batch=2 --pin ep=1 -o other.json >/dev/null 2>&1; orrery simulate other.json --bind sim.db
! error: sim.db: is a run of program ..., but the plan's is ...
!   hint: bind a run of the same plan
? 3

# Neither the plan nor the trace is replaced, whatever it is called.
$ ln -s plan.json link.json; cp sim.db kept.db; cp plan.json kept.json; orrery simulate plan.json -o plan.json
! error: --out: plan.json would replace what this command reads
!   hint: name another file after -o
? 2

$ orrery simulate plan.json -o ./link.json
! error: --out: ./link.json would replace what this command reads, plan.json
!   hint: ...
? 2

$ orrery simulate plan.json --bind sim.db -o "$PWD/sim.db"
! error: --out: .../sim.db would replace what this command reads, sim.db
!   hint: ...
? 2

$ cmp plan.json kept.json && cmp sim.db kept.db && rm link.json kept.json kept.db

$ orrery simulate plan.json -o ''
! error: --out: the name of the file is empty
!   hint: name the file after -o
? 2

# The other kind of file.
$ orrery simulate sim.db
! error: sim.db: is a trace, and this command wants a plan
!   hint: `orrery analyze sim.db` reads it
? 3

$ orrery simulate plan.json --bind plan.json
! error: plan.json: is a plan, and this command wants a trace
!   hint: `orrery simulate plan.json -o sim.db` makes one
? 3

# Of a large world, a simulation has the loads of some ranks only.
$ orrery plan --model qwen3-0.6b --cluster h800x32 -o large.json >/dev/null 2>&1; orrery simulate large.json -o large.db >/dev/null 2>&1; orrery simulate large.json --bind large.db
! error: large.db: holds representatives only, 1 of 32 ranks: ...
!   hint: bind a measured run, or simulate without --bind
? 3

$ rm large.json large.db

# A plan that was changed by hand: truncated, with a layout that breaks the rules.
$ head -c 500 plan.json > torn.json; orrery simulate torn.json
! error: torn.json:...
? 3

$ sed '0,/"micro_batch": [0-9]*/s//"micro_batch": 5/' plan.json > five.json; orrery simulate five.json -o never.db
! ...
! ...batch_divides...
! ...
? 3

$ orrery simulate absent.json
! error: absent.json: cannot be read: No such file or directory
? 5

$ orrery simulate absent.json --json
> {
>   "schema_version": 1,
>   "error": {
>     "code": 5,
>     "problems": [
>       {
>         "where": "absent.json",
>         "message": "cannot be read: No such file or directory",
>         "hint": ""
>       }
>     ]
>   }
> }
! error: absent.json: cannot be read: No such file or directory
? 5

$ sh -c 'ulimit -f 64; exec orrery simulate plan.json -o never.db'
! error: ...
! ...
? 5

$ ls -A
> again.db
> bound.json
> five.json
> other.json
> plan.json
> sim.db
> torn.json
