-- Peak memory: of each rank by class, and of the fullest rank.
-- table: ranks
-- columns: rank, class (total: all together), peak_bytes (highest of any step; the classes peak at different moments, so they need not add up to the total)
SELECT m.rank, m.class, max(m.peak_bytes) AS peak_bytes
FROM v_memory m LEFT JOIN buffer_class c ON c.name = m.class
GROUP BY m.rank, m.class ORDER BY m.rank, c.class, m.class;
-- table: fullest
-- columns: class, peak_bytes (highest of any rank and step), rank (the first with that peak)
SELECT class, peak_bytes, rank
FROM (SELECT m.class, m.peak_bytes, m.rank, c.class AS place,
             row_number() OVER (PARTITION BY m.class
                                ORDER BY m.peak_bytes DESC, m.rank, m.step) AS n
      FROM v_memory m LEFT JOIN buffer_class c ON c.name = m.class)
WHERE n = 1 ORDER BY place, class;
