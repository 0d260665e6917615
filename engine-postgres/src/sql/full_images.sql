, i AS MATERIALIZED (                            -- row images; what only the database knows is a hole
  SELECT i.*, s.now, s.ended, s.bucket_ms, s.leaves FROM s, i
  WHERE s.gate = 0 AND NOT (i.grants AND s.ended)  -- an ended instance gets no claims
)
