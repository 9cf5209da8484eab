# A plan of the engine: what binds it, and whether its rivals would win under other circumstances.
$ orrery plan --model qwen3-0.6b --cluster h100x16 --runners-up 1 -o plan.json > /dev/null 2>&1; orrery explain plan.json | sed -n '/^what binds it/,$p'
> what binds it
>   memory: ... of 75.6 GiB at the peak, most of it ... and ...
>   time: ... % of the step computes, ... % is exposed communication, ... % waiting; ...
> ...
> what would change the answer
>   with ... its step ... fastest then
>   the outermost links twice as fast ...
>   the outermost links half as fast ...
>   of this plan and ... rival... that fit, replayed and not searched again; what is
>   not 2.0 % faster counts as the same
! next: orrery simulate plan.json  # where the step goes

$ orrery explain plan.json --json | grep -E '^  "(layout|binding|terms|what_if)"'
>   "layout": {
>   "binding": {
>   "terms": {
>   "what_if": [
