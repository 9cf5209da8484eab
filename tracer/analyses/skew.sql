-- How far ranks drift apart: by op, by rank, and in all.
-- table: ops
-- columns: path, phase, lane, ranks (that run it), start_spread_ms (last start less first, mean over steps, micro-batches and chunks), start_spread_max_ms, duration_spread_ms (longest less shortest, the same mean), duration_spread_max_ms; at most 50, widest first
WITH spread AS (
  SELECT path, phase, lane, count(*) AS ranks, max(start_ns) - min(start_ns) AS start_ns,
         max(duration_ns) - min(duration_ns) AS duration_ns
  FROM v_op GROUP BY step, key, path, phase, lane HAVING count(*) > 1)
SELECT path, phase, lane, max(ranks) AS ranks, avg(start_ns) / 1e6 AS start_spread_ms,
       max(start_ns) / 1e6 AS start_spread_max_ms, avg(duration_ns) / 1e6 AS duration_spread_ms,
       max(duration_ns) / 1e6 AS duration_spread_max_ms
FROM spread GROUP BY path, phase, lane ORDER BY avg(start_ns) DESC, path, phase, lane LIMIT 50;
-- table: ranks
-- columns: rank, compute_ms (all compute, a step), over_mean (that, over the mean of the ranks)
WITH total AS (  -- of whole steps: a rank that died inside one would look fast
  SELECT o.rank, sum(o.duration_ns) / 1e6 / count(DISTINCT o.step) AS compute_ms
  FROM v_op o JOIN v_step s ON s.rank = o.rank AND s.step = o.step
  WHERE NOT o.communication GROUP BY o.rank)
SELECT rank, compute_ms, compute_ms / (SELECT avg(compute_ms) FROM total) AS over_mean
FROM total ORDER BY rank;
-- table: summary
-- columns: mean_ms (compute, a rank and step), slowest_ms, slowest_rank, slowest_over_mean
WITH total AS (  -- of whole steps: a rank that died inside one would look fast
  SELECT o.rank, sum(o.duration_ns) / 1e6 / count(DISTINCT o.step) AS compute_ms
  FROM v_op o JOIN v_step s ON s.rank = o.rank AND s.step = o.step
  WHERE NOT o.communication GROUP BY o.rank)
SELECT (SELECT avg(compute_ms) FROM total) AS mean_ms, compute_ms AS slowest_ms,
       rank AS slowest_rank, compute_ms / (SELECT avg(compute_ms) FROM total) AS slowest_over_mean
FROM total ORDER BY compute_ms DESC, rank LIMIT 1;
