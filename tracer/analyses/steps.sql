-- The course of training: one row a step.
-- columns: step, loss, grad_norm, step_s (seconds, mean over ranks), tokens (of the world), balance_loss, z_loss, lr
SELECT s.step, head.loss, head.grad_norm, s.step_s, head.tokens, head.balance_loss, head.z_loss,
       head.lr
FROM (SELECT step, min(rank) AS rank, avg(duration_ns) / 1e9 AS step_s FROM v_step GROUP BY step) s
     JOIN v_step head ON head.step = s.step AND head.rank = s.rank
ORDER BY s.step;
