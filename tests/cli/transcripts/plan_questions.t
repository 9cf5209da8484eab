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
