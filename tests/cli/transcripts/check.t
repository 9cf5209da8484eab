# What each file is, and every problem in it.
$ orrery plan --model qwen3-dense-5m --cluster local-cpu --workload demo-local -o plan.json >/dev/null 2>&1

$ orrery simulate plan.json -o sim.db >/dev/null 2>&1

$ mkdir tiny && orrery explain plan.json --json > /dev/null && echo '{"model_type": "qwen3"' > tiny/config.json

$ orrery check plan.json sim.db
> file       kind
> plan.json  plan   ok  qwen3-dense-5m on local-cpu, demo-local
> sim.db     trace  ok  a sim run, ok

# A set of fitted parameters, and what may be wrong in one.
$ echo '{"values": [{"owner": "device", "of": "hopper", "name": "product", "value": 0.7, "rows": 9, "low": 0.6, "high": 0.8}], "spread": {"faster": {"base": 0.1, "exposed": 0.3, "unseen": 0.4}, "slower": {"base": 0.2, "exposed": 0, "unseen": 1}, "rows": 40, "shapes": [{"stack": "a", "family": "f", "device": "hopper", "sizes": ["4096 2048 8 1 1 1 1", "8192 2048 8 2 1 1 1"]}]}}' > set.json; orrery check set.json
> file      kind
> set.json  parameters  ok  1 fitted value, 2 measured shapes

$ sed 's/"low": 0.6/"low": 0.75/; s/8192 2048 8/8192 2048/; s/"product"/"prodict"/; s/"base": 0.2/"base": 0/' set.json > off.json; orrery check off.json
> file      kind
> off.json  parameters  bad  ...
! error: off.json:/values/0/name: 'prodict' is no free parameter of a device
!   hint: orrery list parameters
! ...
! error: off.json:/spread/slower/base: ...
! error: off.json:/spread/shapes/0/sizes: "8192 2048 2 1 1 1" is no shape
!   hint: hidden, tokens, devices, tp, pp, cp, ep: "4096 2048 8 1 1 1 1"
? 3

$ sed 's/"low": 0.6/"low": 0.75/' set.json > above.json; orrery check above.json
> ...
! error: above.json:/values/0/low: is 0.75, not between 0.3 and 0.7
? 3

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
