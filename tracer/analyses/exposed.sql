-- Communication by class of op: how much of it compute hides, a step and rank in the mean.
-- columns: kind, phase, lane, count (ops a step and rank), total_ms, hidden_ms (under compute of the same rank), exposed_ms (total less hidden; two lanes at once count for both), exposed_pct (of total)
-- A run that failed inside a step has spans of it, but no step: only whole steps are counted.
WITH times AS (SELECT count(*) AS n FROM v_step),
whole AS (
  SELECT o.kind, o.phase, o.lane, o.duration_ns, o.exposed_ns
  FROM v_op o JOIN v_step s ON s.rank = o.rank AND s.step = o.step WHERE o.communication)
SELECT kind, phase, lane, count(*) * 1.0 / max(times.n, 1) AS count,
       sum(duration_ns) / 1e6 / max(times.n, 1) AS total_ms,
       sum(duration_ns - exposed_ns) / 1e6 / max(times.n, 1) AS hidden_ms,
       sum(exposed_ns) / 1e6 / max(times.n, 1) AS exposed_ms,
       100.0 * sum(exposed_ns) / sum(duration_ns) AS exposed_pct
FROM whole, times
GROUP BY kind, phase, lane ORDER BY sum(exposed_ns) DESC, kind, phase, lane;
