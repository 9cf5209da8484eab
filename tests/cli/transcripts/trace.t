# compare, analyze and export of a trace.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin ep=4 >/dev/null 2>&1; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --pin ep=1 -o flat.json >/dev/null 2>&1; orrery simulate plan.json -o sim.db >/dev/null 2>&1

$ orrery compare plan.json sim.db --tolerance 0% --top 2
>
> plan.json against sim.db
>                        a          b  error
>   step ... 0.0 %
>   peak memory ... 0.0 %
>
> time by class of op, a rank and step
>   kind ...
> ...
>   backward ... compute ... 0.0 %         0 s
> ...
> ops that differ most (2 of ...)
> ...
> peak memory by class, the highest of any rank and step
> ...
>   ... ops compared; only in a: 0, only in b: 0
! next: orrery analyze sim.db exposed  # communication that nothing hides

# Another program is joined by path; an answer of no is exit code 1.
$ orrery compare flat.json plan.json --tolerance 0.01%
> ...
>   ... ops compared (by path: the programs differ); ...
! beyond the tolerance of 0.0 %: step ..., peak memory ...
? 1

$ orrery compare flat.json plan.json --json
> {
>   "schema_version": 1,
>   "join": {
>     "same_program": false,
> ...
>   "step_s": {
> ...
>   "peak_bytes": {
> ...
>   "memory": [
> ...
>   "classes": [
> ...
>   "ops": [
> ...
> }

$ orrery compare plan.json sim.db --tolerance lots
! error: --tolerance: 'lots' is not a share
!   hint: for example --tolerance 10%
? 2

$ orrery compare plan.json absent.db
! error: absent.db: cannot be read: No such file or directory
? 5

$ orrery analyze sim.db
>   rank  step ...
> ...
>      3     0 ...
! next: orrery list analyses  # what else can be asked

$ for name in exposed hidden memory skew slowest steps; do orrery analyze sim.db $name --json 2>&1 | sed -n 3p; done
>   "name": "exposed",
>   "name": "hidden",
>   "name": "memory",
>   "name": "skew",
>   "name": "slowest",
>   "name": "steps",

# Nothing computes a loss in a simulation: no figure, not zero.
$ orrery analyze sim.db steps
>   step  loss  grad_norm ...  balance_loss  z_loss  lr
>      0     -          - ...             -       -   -
! next: ...

$ orrery analyze sim.db steps --json | grep -E 'loss|norm'
>         "loss": null,
>         "grad_norm": null,
>         "balance_loss": null,
>         "z_loss": null,

$ orrery analyze sim.db --sql 'SELECT count(*) AS ranks FROM v_step'
>   ranks
>       4
! next: ...

$ orrery analyze sim.db slwest
! error: analyze: there is no analysis 'slwest'
!   hint: did you mean 'slowest'? `orrery list analyses` shows all
? 2

$ orrery analyze sim.db --sql 'DELETE FROM span'
! error: sim.db: only reading is allowed ...
!   hint: ...
? 3

$ orrery analyze sim.db steps --sql 'SELECT 1'
! error: orrery analyze: NAME and --sql exclude each other
? 2

$ orrery analyze plan.json
! error: plan.json: is a plan, and this command wants a trace
!   hint: `orrery simulate plan.json -o sim.db` makes one
? 3

$ echo text > notes.txt; orrery analyze notes.txt
! error: notes.txt: not a readable SQLite file ...
!   hint: ...
? 3

$ orrery explain sim.db
! error: sim.db: is a trace, and this command wants a plan
!   hint: `orrery analyze sim.db` reads it
? 3

$ orrery export sim.db --format chrome -o sim.json
> wrote sim.json: open it in https://ui.perfetto.dev or chrome://tracing
! next: orrery analyze sim.db breakdown  # the same trace in figures

$ grep -c traceEvents sim.json
> 1

# One page for a reader: of a trace, or of a plan, which is simulated first.
$ orrery export sim.db --format html -o sim.html
> wrote sim.html: open it in any browser
! next: orrery analyze sim.db breakdown  # the same trace in figures

$ orrery export plan.json --format html -o plan.html
> wrote plan.html: open it in any browser
! next: orrery explain plan.json  # why this plan won

$ for page in sim plan; do head -c 15 $page.html; grep -c '"predicted_by":' $page.html; grep -c 'https\?://' $page.html; done; true
> <!doctype html>1
> 0
> <!doctype html>1
> 0

$ orrery export plan.json --format html -o again.html >/dev/null 2>&1; cmp plan.html again.html

# A prediction has no other prediction beside it, and other formats have none at all.
$ orrery export sim.db --format html --against plan.json -o x.html
! error: --against: sim.db is itself a prediction
!   hint: give the run first: orrery export run.db --against sim.db
? 2

$ orrery export sim.db --format chrome --against plan.json -o x.json
! error: --against: 'chrome' shows one trace
!   hint: --format html shows a run beside its prediction
? 2

$ orrery export absent.db --format html -o x.html
! error: absent.db: cannot be read: No such file or directory
? 5

$ echo '{}' > empty.json; orrery export empty.json --format html -o x.html
! error: empty.json:...
! ...
? 3

$ orrery export plan.json --format html -o plan.json
! error: --out: plan.json would replace what this command reads
!   hint: name another file after -o
? 2

$ test ! -e x.html

$ orrery export sim.db --format chrom -o x.json
! error: --format: there is no format 'chrom'
!   hint: did you mean 'chrome'?
? 2

$ orrery export sim.db --format perfetto -o sim.pftrace
> wrote sim.pftrace: open it in https://ui.perfetto.dev
! next: orrery analyze sim.db breakdown  # the same trace in figures

# The first packet of a sequence; the same trace gives the same bytes.
$ head -c 9 sim.pftrace | od -An -tx1
>  0a 07 50 01 68 01 b8 05 01

$ orrery export sim.db --format perfetto -o again.pftrace --json; cmp sim.pftrace again.pftrace
> {
>   "schema_version": 1,
>   "format": "perfetto",
>   "file": "again.pftrace"
> }

$ orrery export sim.db --format svg -o x.svg
! error: --format: there is no format 'svg'
!   hint: known: chrome, ...
? 2

$ cp sim.db kept.db; orrery export sim.db -o sim.db
! error: --out: sim.db would replace what this command reads
!   hint: name another file after -o
? 2

$ cmp sim.db kept.db

$ orrery export sim.db
! error: orrery export: missing --out
!   hint: ...
? 2

$ orrery explain plan.json
>
> qwen3-moe-10m on local-cpu, demo-local (4.1k tokens a step)
> ...
! next: orrery simulate plan.json  # where the step goes

$ orrery explain plan.json --json > explained.json; head -n -2 plan.json | cmp -n $(head -n -2 plan.json | wc -c) - explained.json; grep -c '"binding": {' explained.json
> 1
