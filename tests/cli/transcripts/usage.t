# What is wrong with the command line itself: exit code 2, nothing on stdout but the
# document of --json, all problems at once.
$ orrery
! orrery: a working model ...
! ...
? 2

$ orrery plna
! error: orrery: unknown command 'plna'
!   hint: did you mean 'orrery plan'?
? 2

$ orrery --frobnicate
! error: orrery: unknown option '--frobnicate'
!   hint: `orrery --help` lists the commands
? 2

$ orrery plan --modle qwen3-8b
! error: orrery plan: unknown option '--modle'
!   hint: did you mean '--model'?
! error: orrery plan: missing --model
!   hint: for example: orrery plan ...
! error: orrery plan: missing --cluster
!   hint: for example: orrery plan ...
? 2

$ orrery simulate a.json b.json
! error: orrery simulate: unexpected argument 'b.json'
!   hint: `orrery simulate --help` shows what there is
? 2

$ orrery plan --model
! error: orrery plan: --model...
!   hint: `orrery plan --help` shows what there is
? 2

$ orrery simulate
! error: orrery simulate: missing PLAN
!   hint: for example: orrery simulate plan.json -o sim.db
? 2

$ orrery --version
> orrery 0...

$ orrery --version --json
> {
>   "schema_version": 1,
>   "version": "0..."
> }

# A failure is one document, too; stderr and the exit code stay.
$ orrery plna --json
> {
>   "schema_version": 1,
>   "error": {
>     "code": 2,
>     "problems": [
>       {
>         "where": "orrery",
>         "message": "unknown command 'plna'",
>         "hint": "did you mean 'orrery plan'?"
>       }
>     ]
>   }
> }
! error: orrery: unknown command 'plna'
!   hint: did you mean 'orrery plan'?
? 2

$ orrery plan --modle qwen3-8b --json | grep '"message"'
>         "message": "unknown option '--modle'",
>         "message": "missing --model",
>         "message": "missing --cluster",
! ...

$ orrery plan --model qwen3-8b --cluster h800x8 -o ''
! error: --out: the name of the file is empty
!   hint: name the file after -o
? 2

$ orrery plan --help | grep -e --runners-up
>   --runners-up N          N nearest, and one of each other family (default: 5)

$ orrery --help
> orrery: a working model ...
> ...
>   plan        search ...
> ...
>   doctor      what this machine has, ...
> ...
> exit codes: 0 ok, 1 the answer is no, ...
> ...

$ orrery help
> ...
> usage: orrery COMMAND [options]
> ...

# Every command explains itself, with an example.
$ for c in plan simulate train compare analyze export explain list check doctor; do orrery $c --help | grep -A1 '^example:'; done
> example:
>   orrery plan --model ...
> example:
>   orrery simulate plan.json -o sim.db
> example:
>   orrery train plan.json --data DIR ...
> example:
>   orrery compare sim.db run.db
> example:
>   orrery analyze run.db exposed
> example:
>   orrery export run.db --format chrome -o run.json
> example:
>   orrery explain plan.json
> example:
>   orrery list models
> example:
>   orrery check plan.json run.db
> example:
>   orrery doctor

$ orrery plan -h
> ...
> usage: orrery plan --model M --cluster C [options]
> ...

# A result that cannot be written is an error.
$ orrery list models > /dev/full
! next: ...
! error: stdout: the result could not be written: No space left on device
? 5
