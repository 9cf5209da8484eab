-- Where each rank's step goes: compute, communication that nothing covers, and idle time.
-- columns: rank, step, step_ms, compute_ms (any compute), exposed_ms (communication and no compute), hidden_ms (communication under compute), idle_ms (neither), and the same in % of the step: compute_pct, exposed_pct, hidden_pct, idle_pct; compute + exposed + idle = 100 %
WITH clipped AS (
  SELECT o.rank, o.step, o.communication, max(o.start_ns, s.start_ns) AS start_ns,
         min(o.end_ns, s.end_ns) AS end_ns
  FROM v_op o JOIN v_step s ON s.rank = o.rank AND s.step = o.step),
class AS (
  SELECT 'compute' AS class, rank, step, start_ns, end_ns FROM clipped WHERE NOT communication
  UNION ALL SELECT 'communication', rank, step, start_ns, end_ns FROM clipped WHERE communication
  UNION ALL SELECT 'any', rank, step, start_ns, end_ns FROM clipped),
-- The measure of a union: each interval, in order, adds what reaches beyond all before it.
beyond AS (
  SELECT class, rank, step, start_ns, end_ns,
         max(end_ns) OVER (PARTITION BY class, rank, step ORDER BY start_ns, end_ns
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached_ns
  FROM class WHERE end_ns > start_ns),
measure AS (
  SELECT class, rank, step,
         sum(max(0, end_ns - max(start_ns, coalesce(reached_ns, start_ns)))) AS total_ns
  FROM beyond GROUP BY class, rank, step),
part AS (
  SELECT s.rank, s.step, s.duration_ns AS step_ns,
         coalesce(compute.total_ns, 0) AS compute_ns,
         coalesce(every.total_ns, 0) - coalesce(compute.total_ns, 0) AS exposed_ns,
         coalesce(communication.total_ns, 0) + coalesce(compute.total_ns, 0)
           - coalesce(every.total_ns, 0) AS hidden_ns,
         s.duration_ns - coalesce(every.total_ns, 0) AS idle_ns
  FROM v_step s
       LEFT JOIN measure compute ON compute.class = 'compute'
                 AND compute.rank = s.rank AND compute.step = s.step
       LEFT JOIN measure communication ON communication.class = 'communication'
                 AND communication.rank = s.rank AND communication.step = s.step
       LEFT JOIN measure every ON every.class = 'any'
                 AND every.rank = s.rank AND every.step = s.step)
SELECT rank, step, step_ns / 1e6 AS step_ms, compute_ns / 1e6 AS compute_ms,
       exposed_ns / 1e6 AS exposed_ms, hidden_ns / 1e6 AS hidden_ms, idle_ns / 1e6 AS idle_ms,
       100.0 * compute_ns / step_ns AS compute_pct, 100.0 * exposed_ns / step_ns AS exposed_pct,
       100.0 * hidden_ns / step_ns AS hidden_pct, 100.0 * idle_ns / step_ns AS idle_pct
FROM part ORDER BY step, rank;
