-- Which compute hides which communication: by class of op, a step and rank in the mean.
-- columns: op (its path, layers taken together), phase, lane, total_ms, hidden_ms (under compute of the same rank), exposed_ms (total less hidden), hidden_by (the three compute ops that ran beside it longest, with their phase, and in % of the total, from 1 % on)
-- A run that failed inside a step has spans of it, but no step: only whole steps are counted.
WITH times AS (SELECT count(*) AS n FROM v_step),
whole AS (
  SELECT o.rank, o.communication, o.lane, o.phase, o.start_ns, o.end_ns,
         CASE WHEN o.path GLOB 'layer.[0-9]*/*' OR o.path GLOB 'layers.[0-9]*/*'
              THEN substr(o.path, 1, instr(o.path, '.')) || '*' || substr(o.path, instr(o.path, '/'))
              ELSE o.path END AS class
  FROM v_op o JOIN v_step s ON s.rank = o.rank AND s.step = o.step),
-- Numbered in the order in which they began, so that the latest is the highest.
compute AS MATERIALIZED (
  SELECT row_number() OVER (ORDER BY rank, start_ns, end_ns) AS id, * FROM whole
  WHERE NOT communication),
wire AS MATERIALIZED (
  SELECT row_number() OVER (ORDER BY rank, lane, start_ns, end_ns) AS id, * FROM whole
  WHERE communication),
-- Ops of a lane follow each other: between two of these points nothing changes.
point AS (
  SELECT rank, lane, start_ns AS at_ns, id AS wire, end_ns AS wire_end_ns, NULL AS compute,
         NULL AS compute_end_ns FROM wire
  UNION ALL SELECT rank, lane, end_ns, NULL, NULL, NULL, NULL FROM wire
  UNION ALL SELECT c.rank, l.lane, c.start_ns, NULL, NULL, c.id, c.end_ns
            FROM compute c JOIN (SELECT DISTINCT rank, lane FROM wire) l ON l.rank = c.rank
  UNION ALL SELECT c.rank, l.lane, c.end_ns, NULL, NULL, NULL, NULL
            FROM compute c JOIN (SELECT DISTINCT rank, lane FROM wire) l ON l.rank = c.rank),
piece AS (
  SELECT at_ns, lead(at_ns) OVER w AS next_ns, max(wire) OVER w AS wire,
         max(wire_end_ns) OVER w AS wire_end_ns, max(compute) OVER w AS compute,
         max(compute_end_ns) OVER w AS compute_end_ns
  FROM point
  WINDOW w AS (PARTITION BY rank, lane ORDER BY at_ns ROWS UNBOUNDED PRECEDING)),
beside AS (
  SELECT w.class, w.phase, w.lane, c.class AS by_class, c.phase AS by_phase,
         sum(p.next_ns - p.at_ns) AS ns
  FROM piece p JOIN wire w ON w.id = p.wire JOIN compute c ON c.id = p.compute
  WHERE p.wire_end_ns > p.at_ns AND p.compute_end_ns > p.at_ns AND p.next_ns > p.at_ns
  GROUP BY w.class, w.phase, w.lane, c.class, c.phase),
total AS (
  SELECT class, phase, lane, sum(end_ns - start_ns) AS ns FROM wire GROUP BY class, phase, lane),
placed AS (
  SELECT b.class, b.phase, b.lane, sum(b.ns) OVER all_of AS hidden_ns,
         row_number() OVER longest AS place,
         min(3, count(*) OVER all_of) AS last_place,
         CASE WHEN 100 * b.ns >= t.ns  -- less is noise
              THEN replace(b.by_class, 'layer.*/', '') || ' ' || b.by_phase || ' ' ||
                   -- Not printf: SQLite 3.43 to 3.45 cut the digits of '%.0f' off, unrounded.
                   CAST(round(100.0 * b.ns / t.ns) AS INTEGER) || ' %' END AS text
  FROM beside b JOIN total t ON t.class = b.class AND t.phase = b.phase AND t.lane = b.lane
  WINDOW all_of AS (PARTITION BY b.class, b.phase, b.lane),
         longest AS (PARTITION BY b.class, b.phase, b.lane
                     ORDER BY b.ns DESC, b.by_class, b.by_phase)),
listed AS (
  SELECT class, phase, lane, hidden_ns, place, last_place,
         group_concat(text, ', ') OVER (PARTITION BY class, phase, lane ORDER BY place
                                        ROWS UNBOUNDED PRECEDING) AS text
  FROM placed)
SELECT t.class AS op, t.phase, t.lane, t.ns / 1e6 / max(times.n, 1) AS total_ms,
       coalesce(l.hidden_ns, 0) / 1e6 / max(times.n, 1) AS hidden_ms,
       (t.ns - coalesce(l.hidden_ns, 0)) / 1e6 / max(times.n, 1) AS exposed_ms,
       coalesce(l.text, '') AS hidden_by
FROM times, total t LEFT JOIN listed l
  ON l.class = t.class AND l.phase = t.phase AND l.lane = t.lane AND l.place = l.last_place
ORDER BY t.ns DESC, t.class, t.phase, t.lane;
