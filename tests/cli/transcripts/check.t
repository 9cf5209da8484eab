# What each file is, and every problem in it.
$ orrery plan --model qwen3-dense-5m --cluster local-cpu --workload demo-local -o plan.json >/dev/null 2>&1

$ orrery simulate plan.json -o sim.db >/dev/null 2>&1

$ mkdir tiny && orrery explain plan.json --json > /dev/null && echo '{"model_type": "qwen3"' > tiny/config.json

$ orrery check plan.json sim.db
> file       kind
> plan.json  plan   ok  qwen3-dense-5m on local-cpu, demo-local
> sim.db     trace  ok  a sim run, ok

# A truncated config.
$ orrery check plan.json tiny/config.json
> file              kind
> plan.json         plan     ok   ...
> tiny/config.json  unknown  bad  1 problem
! error: tiny/config.json:...
? 3

# An unknown family names the nearest.
$ echo '{"model_type": "qwen3_mo", "hidden_size": 64}' > near.json; orrery check near.json
> ...
> near.json  model  bad  ...
! error: near.json:/model_type: unknown model_type 'qwen3_mo'
!   hint: did you mean 'qwen3_moe'? ...
? 3

# All problems, not only the first.
$ sed 's/"sequence_tokens": [0-9]*/"sequence_tokens": -1/; s/"clip_norm"/"clip_nrm"/' plan.json > bad.json; orrery check bad.json
> file      kind
> bad.json  plan  bad  ...
! error: bad.json:/...sequence_tokens...
! ...
! ...did you mean 'clip_norm'...
! ...
? 3

# A torn trace.
$ head -c 3000 sim.db > torn.db; orrery check torn.db
> ...
> torn.db  trace  bad  1 problem
! error: torn.db...
! ...
? 3

$ echo '{"x": 1}' > what.json; orrery check what.json
> ...
! error: what.json: is no kind of file known here
!   hint: models have model_type, ...
? 3

$ orrery check absent.json
> ...
! error: absent.json: cannot be read: No such file or directory
? 5

$ orrery check plan.json --json
> {
>   "schema_version": 1,
>   "ok": true,
>   "files": [
> ...
>       "kind": "plan",
>       "ok": true,
> ...
> }

$ orrery check what.json --json
> {
>   "schema_version": 1,
>   "ok": false,
> ...
>           "message": "is no kind of file known here",
> ...
> }
! error: what.json: ...
! ...
? 3
