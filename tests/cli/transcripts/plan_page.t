# The frontier of time against memory, and the page of a plan.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --frontier -o job.json
> ...
> the fastest on devices with less memory
> ...from...layout
> ...
> what the rules removed
> ...
! wrote job.json
! next: orrery explain job.json  # what binds it, and what would change the answer
! next: orrery export job.json --format html -o plan.html  # a page of it

# It is still a job; the page shows it.
$ orrery check job.json
> file      kind
> job.json  job   ok  ...
> ...

$ orrery export job.json --format html -o job.html
> wrote job.html: open it in any browser
! next: orrery simulate job.json  # what is predicted of this job

$ grep -cE '"frontier": ?\[\{' job.html; orrery export job.json --format html -o again.html --json | grep format; cmp job.html again.html
> 1
>   "format": "html",

# Without the frontier the page says so, and is a page.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --json > plain.json; orrery export plain.json --format html -o plain.html
> wrote plain.html: open it in any browser
! next: orrery simulate plain.json  # what is predicted of this job

$ grep -cE '"frontier": ?\[\]' plain.html
> 1

# The schedule is only drawn of times that can be.
$ orrery plan --for simulate --model llama-3-8b --cluster h100x8 --pin pp=2 --json > two.json; sed 's/"send_s": [^,]*,/"send_s": -1,/' two.json > off.json; orrery export off.json --format html -o off.html
! error: off.json:/cells/send_s: ...
? 3

$ orrery export job.json --format html --against job.json -o x.html
! error: --against: job.json is a job
!   hint: give the run first: orrery export run.db --against SIM
? 2

$ sed 's/"predicted"/"predicte"/' job.json > bare.json; orrery export bare.json --format html -o x.html
! error: bare.json:/predicted: is missing
!   hint: orrery plan --for simulate -o writes it beside the job
? 3

# A plan of the engine carries it too, and reads back.
$ orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local --frontier -o plan.json
> ...
> the fastest on devices with less memory
> ...
> decision
> ...
! wrote plan.json
! ...

$ orrery plan --model qwen3-8b --cluster h100x8 --frontier --max-seq
! error: --frontier: does not go with --max-seq
!   hint: it is of expected steps, beside one plan, each size of memory to the end
? 2

$ orrery plan --model qwen3-8b --cluster h100x8 --frontier --budget 1s
! error: --frontier: does not go with --budget
!   hint: it is of expected steps, beside one plan, each size of memory to the end
? 2
