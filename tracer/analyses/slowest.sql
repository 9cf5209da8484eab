-- The ops that take the most time, over all ranks, steps, micro-batches and chunks; at most 50.
-- columns: path, phase, lane, kind, count, total_ms, mean_ms, max_ms
SELECT path, phase, lane, kind, count(*) AS count, sum(duration_ns) / 1e6 AS total_ms,
       avg(duration_ns) / 1e6 AS mean_ms, max(duration_ns) / 1e6 AS max_ms
FROM v_op GROUP BY path, phase, lane, kind
ORDER BY sum(duration_ns) DESC, path, phase, lane, kind LIMIT 50;
