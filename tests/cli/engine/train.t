# Real runs: four ranks under mpirun, on text that is made here.
$ mkdir text; seq 1 20000 > text/numbers.txt; orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local -o plan.json > /dev/null 2>&1

$ orrery train plan.json --data text --steps 3
> step 1/3 | loss ... | ... (sim ..., ...) | ... MFU | ... tok/s | mem ...
> step 2/3 | loss ...
> step 3/3 | loss ...
>
> 3 steps: loss ... -> ... | ... a step (sim ..., ...)
! ...
! wrote run.db
! next: orrery compare plan.json run.db  # predicted against measured

$ ls -A
> plan.json
> run.db
> text

$ orrery check run.db
> file    kind
> run.db  trace  ok  a measured run, ok

$ orrery compare plan.json run.db --top 1
> ...
> ...  predicted   measured ...
>   step ...
>   peak memory ...
> ...
! next: orrery calibrate run.db  # a profile that explains this run

# Whom to blame is said, and a profile that explains the run is one command away.
$ orrery compare plan.json run.db --json | grep -c '"entry": "device/efficiency/'
> ...

$ orrery calibrate run.db -o fitted.json --top 1
>
> steps that were fitted
> ...
>   run.db ...
>   run.db ...
> ...
> entries that moved most (1 of ...
> ...
! wrote fitted.json
! next: orrery plan --model qwen3-moe-10m --cluster fitted.json --workload demo-local  # plan with it

$ orrery check fitted.json
> file         kind
> fitted.json  cluster  ok ...

# Broken off, a calibration goes on with the parts that are there.
$ mkdir c.json.parts; cp fitted.json c.json.parts/probe.json; for t in dense dense-sharded moe moe-again; do cp run.db c.json.parts/$t.db; done

$ orrery calibrate -o c.json --top 0 > /dev/null; ls -d c.json*; rm -r c.json fitted.json
> c.json
! 1/5 probe: done before
! 2/5 dense: done before
! 3/5 dense-sharded: done before
! 4/5 moe: done before
! 5/5 moe-again: done before
! wrote c.json
! next: orrery plan --model qwen3-moe-10m --cluster c.json --workload demo-local  # plan with it

# The run beside its prediction, on a page: the plan is the run's own.
$ orrery export run.db --format html -o report.html
> wrote report.html: open it in any browser
! next: orrery analyze run.db breakdown  # the same trace in figures

$ grep -c 'loads and document lengths that step [12] recorded' report.html; rm report.html
> 1

$ orrery export run.db --format html --against run.db -o report.html
! error: run.db: was measured, and --against wants a prediction
!   hint: `orrery compare run.db RUN` holds two runs against each other
? 3

# Bound to what the run recorded: the same bytes of parameters, gradients and optimizer, and a
# peak within 5 %.
$ orrery simulate plan.json --bind run.db --step 1 -o bound.db > /dev/null 2>&1; orrery analyze run.db --json --sql "SELECT max(peak_bytes) AS b FROM v_memory WHERE class = 'total' AND step = 1" > m.json 2>/dev/null; orrery analyze bound.db --json --sql "SELECT max(peak_bytes) AS b FROM v_memory WHERE class = 'total'" > p.json 2>/dev/null; cat m.json p.json | tr -d ' ' | sed -n 's/^"b"://p' | awk 'NR == 1 { m = $1 } NR == 2 { p = $1 } END { print (p > 0.95 * m && p < 1.05 * m) ? "within 5 %" : p " against " m }'
> within 5 %

# One rank, and --json: one document on stdout, the steps beside it.
$ sed 's/"devices_per_node": 4/"devices_per_node": 1/; s/"devices": 4/"devices": 1/' "$(dirname "$(command -v orrery)")/../../configs/clusters/local-cpu.json" > one.json; orrery plan --model qwen3-dense-5m --cluster ./one.json --workload demo-local -o one-plan.json > /dev/null 2>&1; orrery train one-plan.json --data text --steps 1 -o one.db --json
> {
>   "schema_version": 1,
>   "status": "ok",
>   "reason": "",
>   "file": "one.db",
>   "steps": 1,
> ...
>   "dropped": 0,
>   "missing_ranks": []
> }
! ...
! step 1/1 | loss ...
! wrote one.db

# A cluster file of this machine, and a plan for it.
$ orrery doctor --probe --ranks 2 -o local.json
>
> ...: 2 ranks on ... cores
> ...
! wrote local.json
! next: orrery plan ...

$ orrery check local.json > /dev/null; orrery plan --model qwen3-dense-5m --cluster local.json --workload demo-local -o local-plan.json --json | grep -c '"world\|"layout"' > /dev/null
! wrote local-plan.json
